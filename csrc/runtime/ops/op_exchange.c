/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Numbers that the hosts of all ranks tell each other: a call without a kernel, on the board alone.
 */
#include "runtime/cause.h"
#include "runtime/entry.h"
#include "runtime/fault.h"
#include "runtime/memory/board.h"
#include "runtime/memory/workspace.h"

static enum iris_status exchange(struct iris_context *ctx, int64_t value, int64_t *out)
{
    const struct iris_op_desc desc = {.operation = IRIS_OP_EXCHANGE,
                                      .M = ctx->world_size,
                                      .N = 1,
                                      .dtype = IRIS_DTYPE_I64,
                                      .root = -1};
    enum iris_board_kind kind;

    if (iris_device_traits(ctx->device)->is_gpu)
        IRIS_TRY(iris_context_poll(ctx, desc.operation));
    IRIS_TRY(iris_board_exchange(ctx, iris_op_desc_signature(&desc), value, out, &kind));
    return kind == IRIS_BOARD_DIFFER ? iris_workspace_settle_mismatch(ctx, &desc) : IRIS_OK;
}

enum iris_status iris_context_exchange(struct iris_context *ctx, int64_t value, int64_t *out)
{
    enum iris_status status;

    IRIS_TRY(iris_context_enter(ctx, "exchange", IRIS_CALL_OF_ALL));
    status = exchange(ctx, value, out);
    iris_context_leave(ctx);
    return iris_context_name_cause(ctx, iris_error_in_call(status, "exchange", "exchange"));
}
