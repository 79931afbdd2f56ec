/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Entering a context for a call, leaving it, and being interrupted in it.
 *
 * While a thread is in a context, an interrupt of its call (base/wait.h) is the context's: what has
 * begun on some ranks cannot be completed, so this rank's kernels and those of its peers are ended
 * through the abort words, and the peers' hosts are told. The context can only be closed then.
 */
#include "context.h"

#include <errno.h>
#include <time.h>

#include "base/wait.h"

/* Its address names the thread. */
static _Thread_local char this_thread;

static bool is_inside(const struct iris_context *ctx)
{
    return atomic_load(&ctx->owner) == (uintptr_t)&this_thread;
}

void iris_context_interrupt(struct iris_context *ctx)
{
    struct iris_control *control = __atomic_load_n(&ctx->control, __ATOMIC_ACQUIRE);
    const uint32_t word = IRIS_ABORT_WORD(IRIS_ABORT_INTERRUPTED, ctx->rank);

    if (atomic_exchange(&ctx->interrupted, true))
        return;
    for (int rank = 0; control != NULL && rank < ctx->world_size; ++rank)
        iris_control_abort(control, rank, word);
    iris_bootstrap_interrupt(ctx->bootstrap);
    iris_lifelines_let_go(&ctx->lifelines); /* survivors do not wait for this rank */
}

static void interrupt(void *arg)
{
    iris_context_interrupt(arg);
}

void iris_context_begin_interruptible(struct iris_context *ctx)
{
    (void)iris_wait_on_interrupt((struct iris_on_interrupt){interrupt, ctx});
}

void iris_context_end_interruptible(void)
{
    (void)iris_wait_on_interrupt((struct iris_on_interrupt){NULL, NULL});
}

enum iris_status iris_context_wait_for_device(struct iris_context *ctx)
{
    struct iris_device *device = iris_heap_device(ctx->heap);
    struct iris_on_interrupt before = {NULL, NULL};
    const bool closed = iris_context_is_closed(ctx);
    enum iris_status status;

    if (!closed)
        before = iris_wait_on_interrupt((struct iris_on_interrupt){interrupt, ctx});
    status = ctx->ops->synchronize(device);
    if (!closed)
        (void)iris_wait_on_interrupt(before);
    return status;
}

/* Waits for op_lock, a slice at most. */
static bool try_lock(struct iris_context *ctx)
{
    struct timespec until;

    if (pthread_mutex_trylock(&ctx->op_lock) == 0)
        return true;
    (void)clock_gettime(CLOCK_REALTIME, &until); /* timedlock's clock */
    until.tv_nsec += IRIS_WAIT_SLICE_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        ++until.tv_sec;
    }
    return pthread_mutex_timedlock(&ctx->op_lock, &until) == 0;
}

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

static void take(struct iris_context *ctx)
{
    atomic_store(&ctx->owner, (uintptr_t)&this_thread);
    iris_context_begin_interruptible(ctx);
}

enum iris_status iris_context_enter(struct iris_context *ctx, const char *name,
                                    enum iris_call_kind kind)
{
    enum iris_status status;

    IRIS_TRY(iris_context_check(ctx));
    if (is_inside(ctx))
        return IRIS_FAIL(IRIS_ESTATE,
                         "context: this thread is in a call of it already; the "
                         "handler of a signal that interrupts one cannot make another");
    while (pthread_mutex_trylock(&ctx->op_lock) != 0) {
        IRIS_TRY(check_beside(ctx, name, kind));
        if (try_lock(ctx))
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
    take(ctx);
    return IRIS_OK;
}

bool iris_context_enter_to_close(struct iris_context *ctx, bool goes_on)
{
    if (is_inside(ctx)) {
        if (!goes_on) {
            atomic_store(&ctx->closing, true);
            iris_context_interrupt(ctx);
        }
        return false;
    }
    if ((goes_on && atomic_load(&ctx->interrupted)) || atomic_exchange(&ctx->closed, true))
        return false;
    if (goes_on)
        iris_control_abort(ctx->control, ctx->rank, IRIS_ABORT_WORD(IRIS_ABORT_WENT_ON, ctx->rank));
    /* A running operation of another thread ends first: it uses what goes away. */
    while (!try_lock(ctx))
        if (iris_wait_is_interrupted())
            iris_context_interrupt(ctx); /* the operation is cut short */
    take(ctx);
    return true;
}

void iris_context_leave(struct iris_context *ctx)
{
    iris_context_end_interruptible();
    atomic_store_explicit(&ctx->inside, NULL, memory_order_release);
    atomic_store(&ctx->owner, 0);
    pthread_mutex_unlock(&ctx->op_lock);
    if (atomic_load(&ctx->closing))
        iris_context_close(ctx);
}
