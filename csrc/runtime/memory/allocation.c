/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Allocations: blocks of the heap that callers count references to. Each keeps its context, and so
 * the mapping of the heap, alive.
 */
#include <stdlib.h>

#include "runtime/context.h"

struct iris_allocation {
    atomic_int references;
    struct iris_context *ctx;
    struct iris_block block;
};

enum iris_status iris_allocation_create(struct iris_context *ctx, size_t nbytes,
                                        struct iris_allocation **out)
{
    struct iris_allocation *allocation;
    enum iris_status status;

    IRIS_TRY(iris_alloc_zeroed(sizeof *allocation, (void **)&allocation));
    pthread_mutex_lock(&ctx->op_lock);
    status = iris_context_check(ctx);
    if (status == IRIS_OK)
        status = iris_heap_allocate(ctx->heap, nbytes, &allocation->block);
    pthread_mutex_unlock(&ctx->op_lock);
    if (status != IRIS_OK) {
        free(allocation);
        return status;
    }
    atomic_init(&allocation->references, 1);
    allocation->ctx = iris_context_retain(ctx);
    *out = allocation;
    return IRIS_OK;
}

struct iris_allocation *iris_allocation_retain(struct iris_allocation *allocation)
{
    atomic_fetch_add(&allocation->references, 1);
    return allocation;
}

void iris_allocation_release(struct iris_allocation *allocation)
{
    if (allocation == NULL || atomic_fetch_sub(&allocation->references, 1) > 1)
        return;
    if (!atomic_load(&allocation->ctx->forked))
        iris_heap_free(allocation->ctx->heap, &allocation->block);
    iris_context_release(allocation->ctx);
    free(allocation);
}

void *iris_allocation_data(const struct iris_allocation *allocation)
{
    return iris_heap_base(allocation->ctx->heap, allocation->ctx->rank) + allocation->block.offset;
}

size_t iris_allocation_nbytes(const struct iris_allocation *allocation)
{
    return allocation->block.nbytes;
}

struct iris_context *iris_allocation_context(const struct iris_allocation *allocation)
{
    return allocation->ctx;
}

static enum iris_status wait_for_device(struct iris_context *ctx)
{
    IRIS_TRY(iris_context_check_process(ctx));
    return ctx->ops->synchronize(ctx->device);
}

enum iris_status iris_allocation_read(const struct iris_allocation *allocation, void *host,
                                      size_t nbytes)
{
    struct iris_context *ctx = allocation->ctx;

    IRIS_TRY(wait_for_device(ctx));
    return ctx->ops->memory_read(ctx->device, host, iris_allocation_data(allocation), nbytes);
}

enum iris_status iris_allocation_write(const struct iris_allocation *allocation, const void *host,
                                       size_t nbytes)
{
    struct iris_context *ctx = allocation->ctx;

    IRIS_TRY(wait_for_device(ctx));
    return ctx->ops->memory_write(ctx->device, iris_allocation_data(allocation), host, nbytes);
}
