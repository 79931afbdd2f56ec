/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What everybody may ask of a context at any time: what it is, and whether it can be used.
 */
#include "context.h"

#include <string.h>

#include "base/process.h"

/* ---- whether it can be used ---- */

bool iris_context_is_closed(const struct iris_context *ctx)
{
    return atomic_load(&ctx->closed) || atomic_load(&ctx->closing);
}

bool iris_context_is_inherited(const struct iris_context *ctx)
{
    return ctx->generation != iris_process_generation();
}

enum iris_status iris_context_check_process(const struct iris_context *ctx)
{
    if (iris_context_is_inherited(ctx))
        return IRIS_FAIL(IRIS_ESTATE, "context: it belongs to the parent process; a forked child "
                                      "must create its own with iris_c.init()");
    return IRIS_OK;
}

enum iris_status iris_context_check(const struct iris_context *ctx)
{
    IRIS_TRY(iris_context_check_process(ctx));
    if (iris_context_is_closed(ctx))
        return IRIS_FAIL(IRIS_ESTATE, "context: it is closed");
    if (atomic_load(&ctx->interrupted))
        return IRIS_FAIL(IRIS_ESTATE,
                         "context: a call of it was interrupted; it can only be closed");
    return IRIS_OK;
}

/* ---- what it is ---- */

int iris_context_rank(const struct iris_context *ctx)
{
    return ctx->rank;
}

int iris_context_world_size(const struct iris_context *ctx)
{
    return ctx->world_size;
}

const char *iris_context_run_key(const struct iris_context *ctx)
{
    return ctx->run_key;
}

const char *iris_context_backend(const struct iris_context *ctx)
{
    return ctx->ops->name;
}

int iris_context_device_id(const struct iris_context *ctx)
{
    return ctx->ops->device_id(ctx->device);
}

int iris_context_compute_units(const struct iris_context *ctx)
{
    return ctx->ops->compute_units(ctx->device);
}

size_t iris_context_heap_size(const struct iris_context *ctx)
{
    return ctx->heap_size;
}

size_t iris_context_heap_used(const struct iris_context *ctx)
{
    return iris_heap_used(ctx->heap);
}

size_t iris_context_local_size(const struct iris_context *ctx)
{
    return ctx->local_size;
}

const char *iris_context_memory_kind(const struct iris_context *ctx)
{
    static const char *const names[] = {[IRIS_MEMORY_COHERENT] = "shared",
                                        [IRIS_MEMORY_UNCACHED] = "uncached",
                                        [IRIS_MEMORY_FINE_GRAINED] = "fine-grained",
                                        [IRIS_MEMORY_COARSE_GRAINED] = "coarse-grained",
                                        [IRIS_MEMORY_UNKNOWN] = "unknown"};
    const enum iris_memory_kind kind = iris_heap_memory_kind(ctx->heap);

    if (kind == IRIS_MEMORY_COHERENT && iris_device_traits(ctx->device)->is_gpu)
        return "device";
    return names[kind];
}

size_t iris_context_local_used(const struct iris_context *ctx)
{
    return iris_heap_local_used(ctx->heap);
}

size_t iris_context_local_room(const struct iris_context *ctx)
{
    return iris_heap_local_room(ctx->heap);
}

void iris_context_heap_bases(const struct iris_context *ctx, uint64_t *out)
{
    for (int rank = 0; rank < ctx->world_size; ++rank)
        out[rank] = (uint64_t)(uintptr_t)iris_heap_base(ctx->heap, rank);
}

/* ---- what its device is given ---- */

void iris_context_call_args(const struct iris_context *ctx, enum iris_operation operation,
                            struct iris_call_args *args)
{
    memset(args, 0, sizeof *args);
    iris_context_heap_bases(ctx, args->heap_bases);
    args->faults_address = ctx->faults_address;
    args->doorbells_address = (uint64_t)(uintptr_t)ctx->control->doorbells;
    args->timeout_ticks = (uint64_t)((double)ctx->timeout_ns * 1e-9 *
                                     (double)iris_device_traits(ctx->device)->ticks_per_second);
    args->board_number = (uint32_t)(ctx->op_number & 0xffff);
    args->rank = ctx->rank;
    args->world_size = ctx->world_size;
    args->operation = operation;
}

bool iris_context_is_capturing(const struct iris_context *ctx, void *stream)
{
    return ctx->ops->stream_is_capturing != NULL &&
           ctx->ops->stream_is_capturing(ctx->device, stream);
}

enum iris_status iris_context_barriers(const struct iris_context *ctx, uint64_t *out)
{
    const struct iris_workspace_control *control =
        (const struct iris_workspace_control *)iris_heap_base(ctx->heap, ctx->rank);

    IRIS_TRY(ctx->ops->synchronize(ctx->device));
    return ctx->ops->memory_read(ctx->device, out, &control->calls, sizeof *out);
}
