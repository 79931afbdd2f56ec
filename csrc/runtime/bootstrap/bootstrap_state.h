/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The inside of a bootstrap, shared by the caller's side, the monitor, and the hub, which rank 0 is
 * besides.
 *
 * `lock` guards the fields that stand below it; `call_lock` is held by a rank's caller through a
 * collective. The departure callback runs on the monitor thread without either.
 */
#ifndef IRIS_BOOTSTRAP_STATE_H
#define IRIS_BOOTSTRAP_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "bootstrap.h"
#include "bootstrap_wire.h"
#include "kernels/abi/abi.h"

/* A rank's part of the open collective; on the hub. */
struct iris_bootstrap_part {
    bool present;
    uint32_t nbytes;
    uint32_t num_fds; /* 1 if a descriptor belongs to it */
    int fd;           /* owned; -1: none, or none arrived */
    char name[IRIS_WIRE_NAME_NBYTES];
    char bytes[IRIS_BOOTSTRAP_MAX_BYTES];
};

/* How the last collective ended, for the caller. */
struct iris_bootstrap_outcome {
    uint64_t sequence;
    enum iris_status status;
    int rank; /* at fault, or -1 */
    uint32_t nbytes;
    int fds[IRIS_MAX_RANKS]; /* by rank; owned; -1: none */
    char payload[IRIS_WIRE_MAX_PAYLOAD + 1];
};

struct iris_bootstrap {
    int rank, world_size;
    uint64_t timeout_ns;
    void (*on_departure)(void *arg, int rank, enum iris_departure departure);
    void *on_departure_arg;
    pthread_t monitor;
    bool monitor_runs;
    int wake; /* eventfd: the monitor has something new to look at, or shall stop */
    int sockets[IRIS_MAX_RANKS];
    pthread_mutex_t call_lock;

    pthread_mutex_t lock;
    pthread_cond_t finished; /* outcome.sequence has moved on */
    bool stopping;
    bool interrupted;  /* by this rank's caller */
    uint64_t sequence; /* of the caller's last collective */
    uint32_t gone;     /* bit per rank */
    int first_gone;    /* the first of them, or -1 */
    enum iris_departure departure[IRIS_MAX_RANKS];
    uint32_t unreported; /* departures the callback has not been told */
    char broken[256];    /* not empty: a collective timed out; nothing works any more */
    int broken_rank;
    struct iris_bootstrap_outcome outcome;
    /* Hub only: */
    uint64_t open_sequence;
    uint64_t opened_ns; /* when the first part came; 0: none yet */
    struct iris_bootstrap_part parts[IRIS_MAX_RANKS];
    /* The monitor's own: */
    char receive_buffer[IRIS_WIRE_MAX_PAYLOAD + 1];
};

/* Said by the hub when a descriptor did not reach it, and by a member likewise: name, rank. */
#define IRIS_BOOTSTRAP_MISSING_FD                                                                  \
    "%s: rank %d's file descriptor did not arrive; is the limit on open files reached?"

/* Lets the monitor have a new look. */
void iris_bootstrap_wake(struct iris_bootstrap *b);

/* The rest under `lock`. */

void iris_bootstrap_note_departure(struct iris_bootstrap *b, int rank,
                                   enum iris_departure departure);

/* Hands a result to this rank's caller. Takes over the descriptors; `fds` may be NULL. */
void iris_bootstrap_finish(struct iris_bootstrap *b, const struct iris_wire_header *header,
                           const void *payload, const int *fds);

#endif
