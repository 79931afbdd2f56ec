/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The trace's buffer.
 */
#include "trace_buffer.h"

#include <unistd.h>

#include "runtime/entry.h"

/* 8 MiB: a hundred products of common size. */
enum { CAPACITY = 1 << 18 };

static struct iris_trace *trace_of(const struct iris_context *ctx)
{
    return ctx->trace.data;
}

static enum iris_status write_head(struct iris_context *ctx)
{
    const struct iris_trace head = {.capacity = CAPACITY};

    return ctx->ops->memory_write(ctx->device, trace_of(ctx), &head, sizeof head);
}

enum iris_status iris_trace_open(struct iris_context *ctx, bool capturing)
{
    struct iris_memory_handle handle = {.fd = -1};
    enum iris_status status;

    if (trace_of(ctx) != NULL)
        return IRIS_OK;
    if (capturing)
        return IRIS_FAIL(IRIS_ESTATE, "trace: its buffer cannot be allocated while a graph is "
                                      "captured; trace one call before the capture");
    IRIS_TRY(ctx->ops->memory_create(
        ctx->device, sizeof(struct iris_trace) + CAPACITY * sizeof(struct iris_trace_record),
        &ctx->trace, &handle));
    if (handle.fd >= 0)
        (void)close(handle.fd);
    status = write_head(ctx);
    if (status != IRIS_OK)
        iris_trace_free(ctx);
    return status;
}

void iris_trace_attach(struct iris_context *ctx, struct iris_call_args *call)
{
    call->trace = (uint64_t)(uintptr_t)trace_of(ctx);
    call->traced_call = ctx->traced_calls++;
}

void iris_trace_free(struct iris_context *ctx)
{
    if (trace_of(ctx) != NULL)
        ctx->ops->memory_release(&ctx->trace);
    ctx->trace.data = NULL;
}

enum iris_status iris_trace_clear(struct iris_context *ctx)
{
    enum iris_status status = IRIS_OK;

    IRIS_TRY(iris_context_enter(ctx, "tracing", IRIS_CALL_BRIEF));
    if (trace_of(ctx) != NULL) {
        status = ctx->ops->synchronize(ctx->device);
        if (status == IRIS_OK)
            status = write_head(ctx);
    }
    ctx->traced_calls = 0;
    iris_context_leave(ctx);
    return status;
}

enum iris_status iris_trace_read_info(struct iris_context *ctx, struct iris_trace_info *out)
{
    struct iris_trace head;

    IRIS_TRY(ctx->ops->synchronize(ctx->device));
    IRIS_TRY(ctx->ops->memory_read(ctx->device, &head, trace_of(ctx), sizeof head));
    out->count = head.count < head.capacity ? head.count : head.capacity;
    out->dropped = head.count - out->count;
    out->clock_offset = head.clock_offset;
    out->round_trip = head.round_trip;
    out->ticks_per_second = iris_device_traits(ctx->device)->ticks_per_second;
    return IRIS_OK;
}

enum iris_status iris_trace_read(struct iris_context *ctx, struct iris_trace_record *out,
                                 size_t count)
{
    enum iris_status status = IRIS_OK;

    IRIS_TRY(iris_context_enter(ctx, "tracing", IRIS_CALL_BRIEF));
    if (count > 0)
        status = ctx->ops->memory_read(ctx->device, out, trace_of(ctx) + 1, count * sizeof *out);
    iris_context_leave(ctx);
    return status;
}
