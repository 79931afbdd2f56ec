/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which graph a stream is being captured into, and whether it still exists.
 */
#include <stdlib.h>

#include "runtime/context.h"

struct iris_capture_watch {
    atomic_int references; /* the caller's, and the driver's until it has told */
    atomic_bool ended;
};

enum iris_status iris_context_capture(const struct iris_context *ctx, void *stream, uint64_t *id)
{
    IRIS_TRY(iris_context_check(ctx));
    *id = 0;
    return ctx->ops->stream_capture != NULL ? ctx->ops->stream_capture(ctx->device, stream, id)
                                            : IRIS_OK;
}

void iris_capture_watch_free(struct iris_capture_watch *watch)
{
    if (watch != NULL && atomic_fetch_sub(&watch->references, 1) == 1)
        free(watch);
}

/* From a thread of the driver's. */
static void note_end(void *arg)
{
    struct iris_capture_watch *watch = arg;

    atomic_store(&watch->ended, true);
    iris_capture_watch_free(watch);
}

enum iris_status iris_capture_watch_create(const struct iris_context *ctx, void *stream,
                                           struct iris_capture_watch **out)
{
    struct iris_capture_watch *watch;

    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(iris_alloc_zeroed(sizeof *watch, (void **)&watch));
    atomic_init(&watch->references, 2);
    if (ctx->ops->stream_capture_watch == NULL ||
        !ctx->ops->stream_capture_watch(ctx->device, stream, note_end, watch))
        atomic_store(&watch->references, 1);
    *out = watch;
    return IRIS_OK;
}

bool iris_capture_watch_has_ended(const struct iris_capture_watch *watch)
{
    return atomic_load(&watch->ended);
}
