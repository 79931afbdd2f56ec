/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Entering a context for a call, and leaving it.
 */
#include "entry.h"

#include "base/wait.h"
#include "context_lock.h"

/* NOTE [threads]: a context may be used by several threads. Calls that all ranks make are made in
 * one order on all of them, which two threads at the same time cannot keep: on one rank the one
 * would come first, on another the other, and both would wait until the timeout. So the second is
 * refused. On the cpu a call is carried out before it returns, so whatever comes beside one that
 * waits for a peer would wait with it, also what the peer is waiting for: it is refused too.
 * Everything else waits for the other thread to leave, which it does soon. Alone in its world a
 * rank waits for nobody but in `wait`. */
static enum iris_status check_beside(const struct iris_context *ctx, const char *name,
                                     enum iris_call_kind kind)
{
    const char *other = atomic_load(&ctx->inside);
    const enum iris_call_kind its = (enum iris_call_kind)atomic_load(&ctx->inside_kind);
    const bool alone = ctx->world_size == 1;

    if (other == NULL || kind == IRIS_CALL_CONTINUES || (its == IRIS_CALL_OF_ALL && alone))
        return IRIS_OK;
    if (its == IRIS_CALL_OF_ALL && kind == IRIS_CALL_OF_ALL)
        return IRIS_FAIL(IRIS_ESTATE,
                         "%s: another thread is in %s of this context; calls that all ranks make "
                         "are made by one thread at a time, in one order on all ranks",
                         name, other);
    if (ctx->ops == &iris_device_cpu && (its == IRIS_CALL_OF_ALL || its == IRIS_CALL_OF_TWO))
        return IRIS_FAIL(IRIS_ESTATE,
                         "%s: another thread is in %s of this context, which may wait for a peer; "
                         "on the cpu one thread at a time is in a context",
                         name, other);
    return IRIS_OK;
}

enum iris_status iris_context_enter(struct iris_context *ctx, const char *name,
                                    enum iris_call_kind kind)
{
    enum iris_status status;

    IRIS_TRY(iris_context_check(ctx));
    if (iris_context_is_inside(ctx))
        return IRIS_FAIL(IRIS_ESTATE,
                         "context: this thread is in a call of it already; the "
                         "handler of a signal that interrupts one cannot make another");
    while (pthread_mutex_trylock(&ctx->op_lock) != 0) {
        IRIS_TRY(check_beside(ctx, name, kind));
        if (iris_context_try_lock(ctx))
            break;
        if (iris_wait_is_interrupted())
            return IRIS_FAIL(IRIS_EINTERRUPTED, "context: interrupted before the call began");
    }
    status = iris_context_check(ctx); /* another thread may have closed it meanwhile */
    if (status != IRIS_OK) {
        pthread_mutex_unlock(&ctx->op_lock);
        return status;
    }
    atomic_store_explicit(&ctx->inside_kind, kind, memory_order_relaxed);
    atomic_store_explicit(&ctx->inside, name, memory_order_release);
    iris_context_move_in(ctx);
    return IRIS_OK;
}

void iris_context_leave(struct iris_context *ctx)
{
    iris_context_move_out(ctx);
    if (atomic_load(&ctx->closing))
        iris_context_close(ctx);
}
