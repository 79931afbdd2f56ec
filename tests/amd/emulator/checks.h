/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What is wrong with a program although its result may be right:
 *
 *   waits    A register that a load writes may be neither read nor written before the s_waitcnt
 * that waits for it. Memory and LDS complete in order, each by itself; scalar loads do not, so that
 * among them lgkmcnt(0) alone says anything. A load may overwrite what an earlier one of its kind
 * will write. races    Two waves that access the same byte of LDS, at least one of them writing,
 * have a barrier between them. An access lasts until its wave has waited for it: with a barrier
 * before that wait it counts on both sides of it. A write of what is there already is none. scalars
 * Scalar loads read kernel arguments, the dispatch packet and the code object's constants alone:
 * nothing invalidates their cache while a kernel runs.
 */
#ifndef EMULATOR_CHECKS_H
#define EMULATOR_CHECKS_H

#include <stdbool.h>
#include <stdint.h>

#include "machine.h"

/* The state of a wave's loads. */
struct checks;
/* The state of a work-group's LDS. */
struct races;

bool checks_begin(struct work_group *group);
void checks_end(struct work_group *group);

/* Before an instruction runs; false: it must not, and the wave has a fault. */
bool checks_issue(struct wave *w, const struct instruction *in);
/* s_waitcnt; -1: any number. */
void checks_wait(struct wave *w, int32_t vmcnt, int32_t lgkmcnt);
/* The wave passes a barrier. */
void checks_barrier(struct wave *w);
/* An access of one lane to LDS; `written` is NULL if it reads. */
void checks_lds(struct wave *w, uint32_t address, uint32_t nbytes, const void *written);
/* The wave loads into LDS, without registers: at its issue, and when it arrives. */
void checks_direct(struct wave *w, uint32_t address, uint32_t nbytes);
bool checks_scalar_load(struct wave *w, uint64_t address, uint32_t nbytes);

#endif
