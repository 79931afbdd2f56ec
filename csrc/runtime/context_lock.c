/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The lock of a context, and the interrupts of whoever holds it.
 */
#include "context_lock.h"

#include <time.h>

#include "base/wait.h"

/* Its address names the thread. */
static _Thread_local char this_thread;

bool iris_context_is_inside(const struct iris_context *ctx)
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

bool iris_context_try_lock(struct iris_context *ctx)
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

void iris_context_move_in(struct iris_context *ctx)
{
    atomic_store(&ctx->owner, (uintptr_t)&this_thread);
    iris_context_begin_interruptible(ctx);
}

void iris_context_move_out(struct iris_context *ctx)
{
    iris_context_end_interruptible();
    atomic_store_explicit(&ctx->inside, NULL, memory_order_release);
    atomic_store(&ctx->owner, 0);
    pthread_mutex_unlock(&ctx->op_lock);
}
