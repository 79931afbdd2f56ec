/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The launch of what needs no agreement.
 */
#include "op_direct.h"

#include "kernels/abi/instances.h"
#include "runtime/cause.h"
#include "runtime/entry.h"
#include "runtime/fault.h"

static enum iris_status order_before(struct iris_context *ctx, const struct iris_direct_launch *d,
                                     bool capturing)
{
    if (d->sends)
        IRIS_TRY(
            iris_stream_order_before(ctx->ops, ctx->device, &ctx->sends, d->stream, capturing));
    if (d->receives)
        IRIS_TRY(
            iris_stream_order_before(ctx->ops, ctx->device, &ctx->receipts, d->stream, capturing));
    return IRIS_OK;
}

static enum iris_status order_after(struct iris_context *ctx, const struct iris_direct_launch *d,
                                    bool capturing)
{
    if (d->sends)
        IRIS_TRY(iris_stream_order_after(ctx->ops, ctx->device, &ctx->sends, d->stream, capturing));
    if (d->receives)
        IRIS_TRY(
            iris_stream_order_after(ctx->ops, ctx->device, &ctx->receipts, d->stream, capturing));
    return IRIS_OK;
}

static enum iris_status launch_direct(struct iris_context *ctx, const struct iris_direct_launch *d)
{
    const bool is_gpu = iris_device_traits(ctx->device)->is_gpu;
    const bool capturing = iris_context_is_capturing(ctx, d->stream);
    const struct iris_launch launch = {
        .kernel = IRIS_KERNEL_ID(d->kernel, IRIS_VARIANT_NONE, d->dtype),
        .work_groups = d->work_groups,
        .args = d->args,
        .args_nbytes = d->args_nbytes,
        .stream = d->stream,
    };
    uint32_t completed = 0;

    iris_context_call_args(ctx, d->operation, d->call); /* the device barrier's control, at 0 */
    d->call->board_number = capturing ? IRIS_BOARD_REPLAY : IRIS_BOARD_DIRECT;
    d->call->completed = (uint64_t)(uintptr_t)&completed;
    IRIS_TRY(order_before(ctx, d, capturing));
    IRIS_TRY(ctx->ops->launch(ctx->device, &launch));
    IRIS_TRY(order_after(ctx, d, capturing));
    if (is_gpu || !d->counts || completed == d->work_groups)
        return IRIS_OK;
    return iris_context_abort_status(ctx, d->operation);
}

static enum iris_call_kind kind_of(const struct iris_context *ctx,
                                   const struct iris_direct_launch *d)
{
    if (d->continues)
        return IRIS_CALL_CONTINUES;
    switch (d->operation) {
    case IRIS_OP_PUT:
    case IRIS_OP_GET:
    case IRIS_OP_SIGNAL:
        return IRIS_CALL_BRIEF;
    case IRIS_OP_ALL_TO_ALL_V:
        return IRIS_CALL_OF_ALL;
    case IRIS_OP_SENDRECV:
    case IRIS_OP_BATCH: /* alone, a copy */
        return ctx->world_size == 1 ? IRIS_CALL_BRIEF : IRIS_CALL_OF_TWO;
    default:
        return IRIS_CALL_OF_TWO;
    }
}

enum iris_status iris_direct_run(struct iris_context *ctx, const struct iris_direct_launch *d)
{
    enum iris_status status = IRIS_OK;

    IRIS_TRY(iris_context_enter(ctx, iris_operation_name(d->operation), kind_of(ctx, d)));
    if (!d->continues)
        status = iris_context_poll(ctx, d->operation);
    if (status == IRIS_OK && d->work_groups > 0)
        status = launch_direct(ctx, d);
    iris_context_leave(ctx);
    return iris_context_name_cause(ctx, status);
}
