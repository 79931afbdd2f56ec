/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Settling a trace: the ranks compare their clocks.
 */
#include "op_launch.h"
#include "runtime/entry.h"
#include "trace_buffer.h"

static enum iris_status compare_clocks(struct iris_context *ctx)
{
    const struct iris_op_desc desc = {
        .operation = IRIS_OP_COMPARE_CLOCKS, .dtype = IRIS_DTYPE_U8, .root = -1};
    const struct iris_op_options options = {.trace = true};
    struct iris_barrier_args args;
    const struct iris_op_launch launch = {
        .call = &args.call,
        .args = &args,
        .args_nbytes = sizeof args,
        .work_groups = 1,
        .kernel_dtype = IRIS_DTYPE_U8,
    };

    return iris_op_run(ctx, &desc, &launch, &options);
}

enum iris_status iris_trace_settle(struct iris_context *ctx, struct iris_trace_info *out)
{
    enum iris_status status;

    IRIS_TRY(compare_clocks(ctx));
    /* Complete on all ranks: none of them is missed from here on. */
    IRIS_TRY(iris_context_barrier(ctx, NULL));
    IRIS_TRY(iris_context_enter(ctx, "tracing", IRIS_CALL_BRIEF));
    status = iris_trace_read_info(ctx, out);
    iris_context_leave(ctx);
    return status;
}
