/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Entering a context for a call, and leaving it.
 */
#ifndef IRIS_ENTRY_H
#define IRIS_ENTRY_H

#include "base/status.h"
#include "context.h"

/* What a call may wait for, inside the context. */
enum iris_call_kind {
    IRIS_CALL_BRIEF,    /* nobody */
    IRIS_CALL_OF_TWO,   /* on the cpu: another rank, whose calls need no order with this one's */
    IRIS_CALL_OF_ALL,   /* all ranks: they make such calls in one order */
    IRIS_CALL_CONTINUES /* nobody, and it is the rest of a call that has begun: never refused */
};

/* Begins a call: on IRIS_OK the caller holds op_lock until iris_context_leave. IRIS_ESTATE in a
 * forked child, whose copy of the lock may be held for ever by a thread that it does not have, and
 * for a closed context. Whatever reads or changes more of a context than its constants enters.
 * IRIS_ESTATE also, at once, beside another thread's call if waiting for its end could be waiting
 * for ever: NOTE [threads] in entry.c. `name` of the call, as messages have it, is kept meanwhile.
 */
enum iris_status iris_context_enter(struct iris_context *ctx, const char *name,
                                    enum iris_call_kind kind);
/* Ends the call; if this thread closed the context in it, by a signal's handler, closes it now. */
void iris_context_leave(struct iris_context *ctx);

#endif
