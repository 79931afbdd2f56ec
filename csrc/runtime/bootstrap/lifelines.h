/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Lifelines: how a rank knows that a peer lives without asking anybody, the hub least of all.
 *
 * Each rank makes a pipe, keeps the end that writes, and hands the end that reads to all peers.
 * Nothing is ever written. When the rank dies or lets go, the operating system closes its end, and
 * every peer that polls the other one sees it at once. A rank that is only stopped keeps its line.
 */
#ifndef IRIS_LIFELINES_H
#define IRIS_LIFELINES_H

#include <stdint.h>

#include "base/status.h"
#include "bootstrap.h"
#include "kernels/abi/abi.h"

struct iris_lifelines {
    int own;                   /* the end that writes; -1: none */
    int peers[IRIS_MAX_RANKS]; /* the end that reads of each peer's; -1: none */
    uint32_t ended;            /* bit per rank: seen to have ended; changed atomically */
};

/* All of `lines` set to none, so that close and abandon may be called. */
void iris_lifelines_init(struct iris_lifelines *lines);
/* Collective. On failure `lines` holds what it has got, for close. A world of one has none. */
enum iris_status iris_lifelines_create(struct iris_bootstrap *bootstrap, int rank, int world_size,
                                       struct iris_lifelines *lines);
/* Lets go of the own line, which tells the peers. From any thread, and again. */
void iris_lifelines_let_go(struct iris_lifelines *lines);
/* Lets go of the own line and of theirs. May be called again. */
void iris_lifelines_close(struct iris_lifelines *lines);
/* Waits up to `timeout_ms` until one more line of `ranks` (a bit each) ends; returns all of `ranks`
 * that have. */
uint32_t iris_lifelines_watch(struct iris_lifelines *lines, uint32_t ranks, int timeout_ms);

#endif
