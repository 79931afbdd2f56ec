/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a context ends: closing says farewell and stops the threads, the memory goes with the last
 * reference.
 */
#include "context_end.h"

#include <stdlib.h>

#include "base/wait.h"
#include "context_lock.h"

struct iris_context *iris_context_retain(struct iris_context *ctx)
{
    atomic_fetch_add(&ctx->references, 1);
    return ctx;
}

/* Closing waits for who is inside, and cuts it short when interrupted, or at once if this rank
 * `goes_on`, with survivors. false: the context is closed, or will be when this thread leaves the
 * call that it is in; or it was interrupted, and cannot go on. */
static bool enter_to_close(struct iris_context *ctx, bool goes_on)
{
    if (iris_context_is_inside(ctx)) {
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
    while (!iris_context_try_lock(ctx))
        if (iris_wait_is_interrupted())
            iris_context_interrupt(ctx); /* the operation is cut short */
    iris_context_move_in(ctx);
    return true;
}

void iris_context_close(struct iris_context *ctx)
{
    (void)iris_context_depart(ctx, false);
}

bool iris_context_depart(struct iris_context *ctx, bool goes_on)
{
    struct iris_interruptible *suspended;

    if (iris_context_is_inherited(ctx) || !enter_to_close(ctx, goes_on))
        return false;
    /* Kernels poll the control segment; their waits are bounded, and end at an interrupt. */
    if (ctx->device != NULL && ctx->heap != NULL &&
        ctx->ops->synchronize(ctx->device) == IRIS_EINTERRUPTED) {
        suspended = iris_wait_suspend();
        (void)ctx->ops->synchronize(ctx->device);
        iris_wait_resume(suspended);
    }
    for (int i = 0; i < ctx->part_count; ++i)
        if (ctx->parts[i].at_farewell != NULL)
            ctx->parts[i].at_farewell(ctx);
    iris_bootstrap_depart(ctx->bootstrap, goes_on ? IRIS_PEER_WENT_ON : IRIS_PEER_LEFT);
    ctx->bootstrap = NULL;
    if (ctx->faults_address != 0)
        ctx->ops->host_unregister(ctx->device, ctx->control);
    ctx->faults_address = 0;
    iris_stream_order_destroy(ctx->ops, ctx->device, &ctx->sends);
    iris_stream_order_destroy(ctx->ops, ctx->device, &ctx->receipts);
    for (int i = 0; i < ctx->part_count; ++i)
        if (ctx->parts[i].at_close != NULL)
            ctx->parts[i].at_close(ctx);
    if (goes_on)
        iris_heap_drop_peers(ctx->heap);
    else
        iris_lifelines_close(&ctx->lifelines);
    if (ctx->device != NULL && ctx->ops->stop != NULL)
        ctx->ops->stop(ctx->device);
    iris_context_move_out(ctx);
    return true;
}

void iris_context_close_now(struct iris_context *ctx)
{
    if (iris_context_is_inherited(ctx) || atomic_load(&ctx->closed))
        return;
    iris_context_interrupt(ctx);
    iris_context_close(ctx);
}

void iris_context_release(struct iris_context *ctx)
{
    if (ctx == NULL || atomic_fetch_sub(&ctx->references, 1) > 1)
        return;
    if (iris_context_is_inherited(ctx))
        return; /* the parent's; a child frees nothing that another thread may have held locked */
    iris_context_close(ctx);
    for (int i = 0; i < ctx->part_count; ++i)
        if (ctx->parts[i].at_end != NULL)
            ctx->parts[i].at_end(ctx);
    iris_heap_destroy(ctx->heap);
    iris_control_destroy(ctx->control);
    if (ctx->ops != NULL)
        ctx->ops->close(ctx->device);
    pthread_mutex_destroy(&ctx->storages_lock);
    pthread_mutex_destroy(&ctx->op_lock);
    free(ctx->run_key);
    free(ctx->kernel_directory);
    free(ctx);
}
