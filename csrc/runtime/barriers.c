/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The two barriers of a context.
 */
#include "barriers.h"

#include "cause.h"
#include "entry.h"
#include "fault.h"
#include "kernels/abi/instances.h"

enum iris_status iris_context_launch_barrier(struct iris_context *ctx, void *stream)
{
    struct iris_barrier_args args;
    const struct iris_launch launch = {
        .kernel = IRIS_KERNEL_ID(IRIS_OP_BARRIER, IRIS_VARIANT_NONE, IRIS_DTYPE_U8),
        .work_groups = 1,
        .args = &args,
        .args_nbytes = sizeof args,
        .stream = stream,
    };

    iris_context_call_args(ctx, IRIS_OP_BARRIER, &args.call); /* its control lies at offset 0 */
    return ctx->ops->launch(ctx->device, &launch);
}

enum iris_status iris_context_device_barrier(struct iris_context *ctx, void *stream)
{
    uint64_t before = 0, after = 1;
    enum iris_status status;
    bool is_gpu;

    IRIS_TRY(iris_context_enter(ctx, "device_barrier", IRIS_CALL_OF_ALL));
    is_gpu = iris_device_traits(ctx->device)->is_gpu;
    IRIS_TRY_GOTO(status, iris_context_poll(ctx, IRIS_OP_BARRIER), done);
    if (!is_gpu)
        IRIS_TRY_GOTO(status, iris_context_barriers(ctx, &before), done);
    IRIS_TRY_GOTO(status, iris_context_launch_barrier(ctx, stream), done);
    if (!is_gpu)
        IRIS_TRY_GOTO(status, iris_context_barriers(ctx, &after), done);
    if (after == before)
        status = iris_context_abort_status(ctx, IRIS_OP_BARRIER);
done:
    iris_context_leave(ctx);
    return iris_context_name_cause(ctx, status);
}

enum iris_status iris_context_barrier(struct iris_context *ctx, void *stream)
{
    enum iris_status status;

    IRIS_TRY(iris_context_enter(ctx, "barrier", IRIS_CALL_OF_ALL));
    IRIS_TRY_GOTO(status, ctx->ops->stream_synchronize(ctx->device, stream), done);
    if (iris_device_traits(ctx->device)->is_gpu)
        IRIS_TRY_GOTO(status, iris_context_poll(ctx, IRIS_OP_BARRIER), done);
    status =
        iris_error_in_call(iris_bootstrap_barrier(ctx->bootstrap, "barrier"), "barrier", "barrier");
done:
    iris_context_leave(ctx);
    return iris_context_name_cause(ctx, status);
}
