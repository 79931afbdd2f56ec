/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Bytes of one rank for the hosts of all: a call without a kernel, over the bootstrap's channel.
 */
#include <stdlib.h>
#include <string.h>

#include "cause.h"
#include "entry.h"
#include "runtime/bootstrap/bootstrap.h"

static enum iris_status broadcast(struct iris_context *ctx, char *bytes, size_t nbytes, int src)
{
    const size_t piece = nbytes < IRIS_BOOTSTRAP_MAX_BYTES ? nbytes : IRIS_BOOTSTRAP_MAX_BYTES;
    enum iris_status status = IRIS_OK;
    char *all;

    if (nbytes == 0)
        return IRIS_OK;
    IRIS_TRY(iris_alloc_zeroed(piece * (size_t)ctx->world_size, (void **)&all));
    for (size_t done = 0; done < nbytes && status == IRIS_OK;) {
        const size_t count = nbytes - done < piece ? nbytes - done : piece;

        status = iris_bootstrap_all_gather(ctx->bootstrap, "broadcast", bytes + done, count, all);
        if (status == IRIS_OK && ctx->rank != src)
            memcpy(bytes + done, all + (size_t)src * count, count);
        done += count;
    }
    free(all);
    return status;
}

enum iris_status iris_context_broadcast(struct iris_context *ctx, void *bytes, size_t nbytes,
                                        int src)
{
    enum iris_status status;

    if (src < 0 || src >= ctx->world_size)
        return IRIS_FAIL(IRIS_EINVAL, "src: expected 0 to %d, got %d", ctx->world_size - 1, src);
    IRIS_TRY(iris_context_enter(ctx, "broadcast_object", IRIS_CALL_OF_ALL));
    status = broadcast(ctx, bytes, nbytes, src);
    iris_context_leave(ctx);
    iris_error_in_call(status, "broadcast_object", "broadcast_object");
    return iris_context_name_cause(ctx, status);
}
