/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Who is inside a context, and being interrupted there.
 *
 * While a thread is in a context, an interrupt of its call (base/wait.h) is the context's: what has
 * begun on some ranks cannot be completed, so this rank's kernels and those of its peers are ended
 * through the abort words, and the peers' hosts are told. The context can only be closed then.
 */
#ifndef IRIS_CONTEXT_LOCK_H
#define IRIS_CONTEXT_LOCK_H

#include <stdbool.h>

#include "base/status.h"
#include "context.h"

/* The caller wants to wait no longer: ends this rank's waits and its peers', who hear that this
 * rank was interrupted. From any thread; the second time it does nothing. */
void iris_context_interrupt(struct iris_context *ctx);

/* Between the two, an interrupt of this thread's call is one of the context's. For creation; who
 * is inside has it. */
void iris_context_begin_interruptible(struct iris_context *ctx);
void iris_context_end_interruptible(void);

/* Waits for all that the device has been given, in a call or outside of one, also of a closed
 * context; an interrupt is the context's. */
enum iris_status iris_context_wait_for_device(struct iris_context *ctx);

/* Whether this thread is inside. */
bool iris_context_is_inside(const struct iris_context *ctx);

/* Waits for op_lock, a slice of time at most. true: the caller has it, and calls
 * iris_context_move_in, or lets go of the mutex. */
bool iris_context_try_lock(struct iris_context *ctx);
/* With op_lock: this thread is inside. */
void iris_context_move_in(struct iris_context *ctx);
/* It no longer is, and op_lock is free. */
void iris_context_move_out(struct iris_context *ctx);

#endif
