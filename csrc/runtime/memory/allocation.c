/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Allocations: blocks of the symmetric heap, or of the local arena, that callers count references
 * to. Each keeps its context, and so the mapping of the heap, alive.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/cause.h"
#include "runtime/context.h"
#include "runtime/context_lock.h"
#include "runtime/entry.h"

struct iris_allocation {
    atomic_int references;
    struct iris_context *ctx;
    struct iris_block block;
    bool is_local;
};

enum iris_status iris_allocation_create(struct iris_context *ctx, size_t nbytes,
                                        struct iris_allocation **out)
{
    struct iris_allocation *allocation;
    enum iris_status status;

    IRIS_TRY(iris_context_enter(ctx, "allocate", IRIS_CALL_OF_ALL));
    IRIS_TRY_GOTO(status, iris_alloc_zeroed(sizeof *allocation, (void **)&allocation), done);
    status = iris_heap_allocate(ctx->heap, nbytes, &allocation->block);
    if (status != IRIS_OK) {
        char call[64];
        (void)snprintf(call, sizeof call, "allocation of %zu bytes", nbytes);
        iris_error_in_call(status, "allocation", call);
        iris_context_name_cause(ctx, status);
        goto fail;
    }
    atomic_init(&allocation->references, 1);
    allocation->ctx = iris_context_retain(ctx);
    (void)iris_heap_retain_memory(ctx->heap); /* the open context keeps it */
    *out = allocation;
    goto done;
fail:
    free(allocation);
done:
    iris_context_leave(ctx);
    return status;
}

enum iris_status iris_allocation_create_local(struct iris_context *ctx, size_t nbytes, void *stream,
                                              struct iris_allocation **out)
{
    struct iris_allocation *allocation;
    enum iris_status status;

    IRIS_TRY(iris_context_check(ctx));
    if (!iris_heap_retain_memory(ctx->heap)) /* another thread has closed the context meanwhile */
        return IRIS_FAIL(IRIS_ESTATE, "context: it is closed");
    IRIS_TRY_GOTO(status, iris_alloc_zeroed(sizeof *allocation, (void **)&allocation), fail);
    status = iris_heap_allocate_local(ctx->heap, nbytes, !iris_context_is_capturing(ctx, stream),
                                      &allocation->block);
    if (status != IRIS_OK) {
        free(allocation);
        goto fail;
    }
    atomic_init(&allocation->references, 1);
    allocation->ctx = iris_context_retain(ctx);
    allocation->is_local = true;
    *out = allocation;
    return IRIS_OK;
fail:
    iris_heap_release_memory(ctx->heap);
    return status;
}

bool iris_allocation_is_local(const struct iris_allocation *allocation)
{
    return allocation->is_local;
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
    if (!iris_context_is_inherited(allocation->ctx)) {
        if (allocation->is_local)
            iris_heap_free_local(allocation->ctx->heap, &allocation->block);
        else
            iris_heap_free(allocation->ctx->heap, &allocation->block);
        iris_heap_release_memory(allocation->ctx->heap);
    }
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

enum iris_status iris_allocation_read(const struct iris_allocation *allocation, void *host,
                                      size_t nbytes)
{
    struct iris_context *ctx = allocation->ctx;

    IRIS_TRY(iris_context_check_process(ctx));
    IRIS_TRY(iris_context_wait_for_device(ctx));
    return ctx->ops->memory_read(iris_heap_device(ctx->heap), host,
                                 iris_allocation_data(allocation), nbytes);
}

enum iris_status iris_allocation_write(const struct iris_allocation *allocation, const void *host,
                                       size_t nbytes)
{
    struct iris_context *ctx = allocation->ctx;

    IRIS_TRY(iris_context_check_process(ctx));
    IRIS_TRY(iris_context_wait_for_device(ctx));
    return ctx->ops->memory_write(iris_heap_device(ctx->heap), iris_allocation_data(allocation),
                                  host, nbytes);
}
