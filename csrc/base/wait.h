/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How the caller of the core cuts a wait short: by a question that every wait of the host asks.
 *
 * Who calls the core installs the question for its thread and the time of the call; the Python
 * layer's runs the handlers of signals that have come. Waits on other threads do not ask.
 * Whoever waits asks every IRIS_WAIT_SLICE_MS or so, holding no lock that is held for moments, and
 * ends with IRIS_EINTERRUPTED when the answer is no.
 */
#ifndef IRIS_WAIT_H
#define IRIS_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "clock.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { IRIS_WAIT_SLICE_MS = 50 };

struct iris_interruptible {
    /* Whether the thread's waits may go on. Not asked again after a no. */
    bool (*may_wait)(struct iris_interruptible *self);
    bool interrupted;
    /* The core's, while the thread is in a context: ends what waits elsewhere for this call. */
    void (*on_interrupt)(void *arg);
    void *on_interrupt_arg;
    struct iris_interruptible *outer;
};

/* Between the two, the calling thread's waits ask `call`, which the caller keeps. They nest: the
 * question of a call may make calls of its own. */
void iris_interruptible_begin(struct iris_interruptible *call);
void iris_interruptible_end(struct iris_interruptible *call);

/* Sets what the calling thread's interrupt does; NULL: nothing. Returns what it did before. */
struct iris_on_interrupt {
    void (*function)(void *arg);
    void *arg;
};
struct iris_on_interrupt iris_wait_on_interrupt(struct iris_on_interrupt on_interrupt);

/* Whether the calling thread's waits ask anybody. */
bool iris_wait_can_be_interrupted(void);

/* Between the two, the calling thread's waits ask nobody. */
struct iris_interruptible *iris_wait_suspend(void);
void iris_wait_resume(struct iris_interruptible *suspended);

/* Asks. true: the wait is to end. */
bool iris_wait_is_interrupted(void);

/* The same, but asks at most every IRIS_WAIT_SLICE_MS: `*asked_ns`, 0 before the first time, is the
 * wait's own. For loops that come round more often. */
static inline bool iris_wait_is_over(uint64_t now_ns, uint64_t *asked_ns)
{
    if (*asked_ns == 0)
        *asked_ns = now_ns;
    if (now_ns - *asked_ns < IRIS_WAIT_SLICE_MS * UINT64_C(1000000))
        return false;
    *asked_ns = now_ns;
    return iris_wait_is_interrupted();
}

#ifdef __cplusplus
}
#endif

#endif
