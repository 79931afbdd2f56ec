/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The launch path. In the steady state it takes no message and waits for nobody: a few stores and
 * one compare-and-swap on the control segment, then the launch.
 */
#include "op_launch.h"

#include "kernels/abi/instances.h"
#include "runtime/barriers.h"
#include "runtime/cause.h"
#include "runtime/entry.h"
#include "runtime/fault.h"
#include "runtime/memory/workspace.h"
#include "trace_buffer.h"

/* Operations that are another one as far as the kernel goes. */
static enum iris_operation kernel_of(const struct iris_context *ctx, enum iris_operation operation,
                                     enum iris_variant variant)
{
    const bool in_steps = operation == IRIS_OP_ALL_REDUCE_RMSNORM && !iris_is_by_packets(variant);

    if (operation == IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER)
        return IRIS_OP_ALL_GATHER_MATMUL;
    if (operation == IRIS_OP_MATMUL_REDUCE_SCATTER && ctx->world_size == 1)
        return IRIS_OP_MATMUL_ALL_REDUCE; /* which stores a product at once */
    return operation == IRIS_OP_REDUCE || in_steps ? IRIS_OP_ALL_REDUCE : operation;
}

static uint32_t kernel_id(const struct iris_context *ctx, const struct iris_op_desc *desc,
                          enum iris_operation operation, const struct iris_op_launch *op)
{
    const enum iris_variant variant =
        desc->variant == IRIS_VARIANT_ONE_SHOT_LEGACY ? IRIS_VARIANT_ONE_SHOT : desc->variant;

    if (op->only_meets)
        return IRIS_KERNEL_ID(IRIS_OP_ALL_GATHER, IRIS_VARIANT_NONE, IRIS_DTYPE_U8);
    if (desc->form == IRIS_FORM_DECODE)
        return iris_decode_kernel(op->kernel_dtype);
    return IRIS_KERNEL_ID(kernel_of(ctx, operation, desc->variant), variant, op->kernel_dtype);
}

static enum iris_status launch_kernel(struct iris_context *ctx, const struct iris_op_desc *desc,
                                      enum iris_operation operation,
                                      const struct iris_op_launch *op, void *stream)
{
    const struct iris_launch launch = {
        .kernel = kernel_id(ctx, desc, operation, op),
        .work_groups = op->work_groups,
        .args = op->args,
        .args_nbytes = op->args_nbytes,
        .scratch_nbytes = desc->local.gpu_parts > 0 || op->only_meets
                              ? 0
                              : iris_host_scratch_nbytes(desc->block_m, desc->block_n, desc->K,
                                                         iris_op_desc_is_scaled(desc)),
        .cluster = op->cluster,
        .traced = op->call->trace != 0 && IRIS_IS_PRODUCT(operation) && !op->only_meets &&
                  desc->form != IRIS_FORM_DECODE,
        .stream = stream,
    };

    return ctx->ops->launch(ctx->device, &launch);
}

enum iris_status iris_op_launch_again(struct iris_context *ctx, const struct iris_op_desc *runs_as,
                                      const struct iris_op_launch *launch, void *stream)
{
    return launch_kernel(ctx, runs_as, runs_as->operation, launch, stream);
}

/* What every call cost before signals carried the call's number: flags zeroed by the host, between
 * two barriers of the hosts, so that no signal is erased. */
static enum iris_status zero_flags(struct iris_context *ctx, const struct iris_storage *storage)
{
    char *flags = (char *)iris_heap_base(ctx->heap, ctx->rank) + storage->flags_offset;

    IRIS_TRY(ctx->ops->synchronize(ctx->device));
    IRIS_TRY(iris_bootstrap_barrier(ctx->bootstrap, "flags no longer used"));
    IRIS_TRY(ctx->ops->memory_set(ctx->device, NULL, flags, 0,
                                  storage->packets_offset - storage->flags_offset));
    IRIS_TRY(ctx->ops->synchronize(ctx->device));
    return iris_bootstrap_barrier(ctx->bootstrap, "flags zeroed");
}

static enum iris_status prepare_call(struct iris_context *ctx, const struct iris_op_desc *desc,
                                     const struct iris_op_launch *op,
                                     const struct iris_storage *storage, void *stream)
{
    struct iris_op_launch clear = *op;

    if (op->only_meets)
        return IRIS_OK;
    switch (desc->variant) {
    case IRIS_VARIANT_ONE_SHOT_LEGACY:
        return zero_flags(ctx, storage);
    case IRIS_VARIANT_ATOMIC:
    case IRIS_VARIANT_SPINLOCK:
        /* They add up in memory that must be zero on all ranks before anybody adds. A product's
         * arguments begin with those of a reduction. */
        clear.args_nbytes = sizeof(struct iris_reduce_args);
        clear.kernel_dtype = iris_op_desc_result_dtype(desc);
        IRIS_TRY(launch_kernel(ctx, desc, IRIS_OP_CLEAR_SUMS, &clear, stream));
        return iris_context_launch_barrier(ctx, stream);
    default:
        return IRIS_OK;
    }
}

/* On a synchronous device: whether the call has been completed, and if not, why. */
static enum iris_status verdict(struct iris_context *ctx, const struct iris_op_desc *desc,
                                bool completed)
{
    if (completed)
        return IRIS_OK;
    if (IRIS_ABORT_REASON(iris_control_aborted(ctx->control, ctx->rank)) == IRIS_ABORT_MISMATCH)
        return iris_workspace_settle_mismatch(ctx, desc);
    return iris_context_abort_status(ctx, desc->operation);
}

static enum iris_status run_call(struct iris_context *ctx, const struct iris_op_desc *desc,
                                 const struct iris_op_launch *op, struct iris_storage *storage,
                                 const struct iris_op_options *options, bool capturing)
{
    void *const stream = options->stream;
    const bool is_gpu = iris_device_traits(ctx->device)->is_gpu;
    const struct iris_workspace_control *control = iris_storage_control(ctx, storage);
    const uint64_t before = is_gpu ? 0 : control->calls;
    struct iris_op_steps *const steps = op->steps;
    const struct iris_op_desc *const runs_as = steps != NULL ? steps->runs_as : desc;

    iris_context_call_args(ctx, desc->operation, op->call);
    op->call->control_offset = storage->block.offset;
    op->call->flags_offset = storage->flags_offset;
    op->call->flags_count = (uint32_t)storage->room.flags_count;
    op->call->data_offset = storage->data_offset;
    op->call->data_half_nbytes = storage->room.half_nbytes;
    op->call->packets_offset = storage->packets_offset;
    op->call->packets_half_count = storage->room.packets;
    op->call->bare_offset = storage->bare_offset;
    op->call->bare_half_count = storage->room.bare;
    if (capturing) /* replays are not described on the board: no mismatch is ever about them */
        op->call->board_number = IRIS_BOARD_REPLAY;
    if (options->trace)
        iris_trace_attach(ctx, op->call);
    if (op->place != NULL)
        IRIS_TRY(op->place(ctx, desc, op->call));
    if (capturing)
        storage->captured = true;
    IRIS_TRY(iris_stream_order_before(ctx->ops, ctx->device, &storage->order, stream, capturing));
    ctx->last_op = *desc;
    if (steps != NULL)
        IRIS_TRY(steps->begin(steps, ctx, storage, options));
    IRIS_TRY(prepare_call(ctx, runs_as, op, storage, stream));
    IRIS_TRY(launch_kernel(ctx, runs_as, runs_as->operation, op, stream));
    if (!is_gpu)
        IRIS_TRY(verdict(ctx, desc, control->calls != before));
    if (steps != NULL)
        IRIS_TRY(steps->end(steps, ctx, storage, options));
    return iris_stream_order_after(ctx->ops, ctx->device, &storage->order, stream, capturing);
}

static bool has_preamble(enum iris_operation operation)
{
    return operation == IRIS_OP_ALL_REDUCE || IRIS_IS_PRODUCT(operation);
}

/* Allocation is collective and synchronises: neither can be captured. */
static enum iris_status check_capture(struct iris_workspace *workspace,
                                      const struct iris_op_desc *desc)
{
    const char *name;

    if (desc->variant == IRIS_VARIANT_ONE_SHOT_LEGACY)
        return IRIS_FAIL(IRIS_ESTATE,
                         "all_reduce_variant: expected one without host barriers while a graph is "
                         "captured, got 'one_shot_legacy'");
    if (iris_workspace_has_room(workspace, desc))
        return IRIS_OK;
    name = iris_operation_name(desc->operation);
    return IRIS_FAIL(
        IRIS_ESTATE,
        "%s: its workspace has no room for this call and cannot allocate while a graph "
        "is captured; call %s%sthe operation once, with this shape, config and workspace before "
        "the capture",
        name, has_preamble(desc->operation) ? name : "",
        has_preamble(desc->operation) ? "_preamble, or " : "");
}

/* Errors about peers say which call they came in, with its sizes. */
static enum iris_status name_call(const struct iris_op_desc *desc, enum iris_status status)
{
    char text[IRIS_OP_TEXT_NBYTES];

    if (status != IRIS_OK)
        iris_op_desc_format(desc, text);
    return status == IRIS_OK
               ? status
               : iris_error_in_call(status, iris_operation_name(desc->operation), text);
}

enum iris_status iris_op_run(struct iris_context *ctx, const struct iris_op_desc *desc,
                             const struct iris_op_launch *launch,
                             const struct iris_op_options *options)
{
    struct iris_workspace *workspace = options->workspace;
    struct iris_storage *storage;
    enum iris_status status;
    bool capturing;

    if (workspace != NULL)
        IRIS_TRY(iris_workspace_check(workspace, ctx, desc->operation));
    IRIS_TRY(iris_context_enter(ctx, iris_operation_name(desc->operation), IRIS_CALL_OF_ALL));
    if (workspace == NULL)
        IRIS_TRY_GOTO(status, iris_context_workspace(ctx, desc->operation, &workspace), done);
    IRIS_TRY_GOTO(status, iris_context_poll(ctx, desc->operation), done);
    capturing = iris_context_is_capturing(ctx, options->stream);
    if (capturing)
        IRIS_TRY_GOTO(status, check_capture(workspace, desc), done);
    if (options->trace)
        IRIS_TRY_GOTO(status, iris_trace_open(ctx, capturing), done);
    status = iris_workspace_acquire(workspace, desc, capturing, &storage);
    if (status == IRIS_OK && launch->steps != NULL && !capturing)
        status = launch->steps->prepare(launch->steps, ctx, storage, options);
    if (status == IRIS_OK && !options->prepare)
        status = run_call(ctx, desc, launch, storage, options, capturing);
    status = name_call(desc, status);
done:
    iris_context_leave(ctx);
    return iris_context_name_cause(ctx, status);
}

enum iris_status iris_op_meet(struct iris_context *ctx, const struct iris_op_desc *desc,
                              enum iris_ending ending, const struct iris_op_options *options)
{
    struct iris_copy_collective_args args = {.output_offset = IRIS_STAGED, .ending = ending};
    const struct iris_op_launch launch = {.call = &args.call,
                                          .args = &args,
                                          .args_nbytes = sizeof args,
                                          .work_groups = 1,
                                          .only_meets = true};

    return iris_op_run(ctx, desc, &launch, options);
}
