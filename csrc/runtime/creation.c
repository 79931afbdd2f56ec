/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a context begins: meet the ranks, map the control segment, open the device, map the heaps.
 */
#include <string.h>

#include "base/process.h"
#include "context.h"
#include "context_lock.h"
#include "kernels/abi/instances.h"
#include "kernels/abi/schedule.h"
#include "runtime/memory/ownership.h"
#include "runtime/memory/workspace.h"
#include "runtime/ops/op_messages.h"
#include "runtime/ops/trace_buffer.h"
#include "topology.h"

/* What a context holds for others, in the order in which it is let go. */
static const struct iris_context_part parts[] = {
    {.at_farewell = iris_messages_drain},
    {.at_close = iris_trace_free},
    {.at_end = iris_context_delist},
    {.at_end = iris_context_free_workspaces},
};

/* On the monitor thread. The control segment may not exist yet; then nobody waits in a kernel. */
static void peer_departed(void *arg, int rank, enum iris_departure departure)
{
    struct iris_context *ctx = arg;
    struct iris_control *control = __atomic_load_n(&ctx->control, __ATOMIC_ACQUIRE);

    if (control == NULL)
        return;
    if (departure == IRIS_PEER_DIED)
        return iris_control_abort(control, ctx->rank, IRIS_ABORT_WORD(IRIS_ABORT_PEER_DIED, rank));
    if (departure == IRIS_PEER_INTERRUPTED)
        return iris_control_abort(control, ctx->rank,
                                  IRIS_ABORT_WORD(IRIS_ABORT_INTERRUPTED, rank));
    if (departure == IRIS_PEER_WENT_ON)
        return iris_control_abort(control, ctx->rank, IRIS_ABORT_WORD(IRIS_ABORT_WENT_ON, rank));
    iris_control_abort(
        control, ctx->rank,
        IRIS_ABORT_WORD_AT(IRIS_ABORT_PEER_LEFT, rank, iris_control_posted(control, rank)));
}

static enum iris_status check_options(const struct iris_context_options *o)
{
    if (o->world_size < 1 || o->world_size > IRIS_MAX_RANKS)
        return IRIS_FAIL(IRIS_EINVAL, "world_size: expected 1 to %d, got %d", IRIS_MAX_RANKS,
                         o->world_size);
    if (o->rank < 0 || o->rank >= o->world_size)
        return IRIS_FAIL(IRIS_EINVAL, "rank: expected 0 to %d (world_size - 1), got %d",
                         o->world_size - 1, o->rank);
    if (o->heap_size == 0 || o->heap_size > (size_t)1 << 46)
        return IRIS_FAIL(IRIS_EINVAL, "heap_size: expected 1 to %llu bytes, got %zu", 1ULL << 46,
                         o->heap_size);
    if (o->local_size > (size_t)1 << 46)
        return IRIS_FAIL(IRIS_EINVAL, "local_size: expected 0 to %llu bytes, got %zu", 1ULL << 46,
                         o->local_size);
    if (!(o->timeout > 0) || o->timeout > 1e9)
        return IRIS_FAIL(IRIS_EINVAL, "timeout: expected seconds in (0, 1e9], got %g", o->timeout);
    return IRIS_OK;
}

struct create_message {
    uint64_t heap_size, local_size;
    int64_t compute_units;
    char backend[16];
    bool has_blas;
};

/* Lanes of a channel: on a GPU each lane of each message of an exchange has a work-group, and all
 * of them, one to and one from every peer and one within the rank, are resident at once. */
static int32_t lanes_for(const struct iris_context *ctx, int64_t compute_units)
{
    const int64_t messages = iris_device_traits(ctx->device)->is_gpu ? 2 * ctx->world_size - 1 : 1;
    const int64_t lanes = compute_units / messages;

    if (lanes > IRIS_CHANNEL_LANES)
        return IRIS_CHANNEL_LANES;
    return lanes > 0 ? (int32_t)lanes : 1;
}

static enum iris_status agree_on_options(struct iris_context *ctx)
{
    struct create_message own = {.heap_size = ctx->heap_size,
                                 .local_size = ctx->local_size,
                                 .compute_units = ctx->ops->compute_units(ctx->device)},
                          all[IRIS_MAX_RANKS];

    own.has_blas = ctx->ops->has_blas != NULL && ctx->ops->has_blas(ctx->device);
    ctx->has_blas = own.has_blas;
    strncpy(own.backend, ctx->ops->name, sizeof own.backend - 1);
    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "init", &own, sizeof own, all));
    for (int rank = 0; rank < ctx->world_size; ++rank)
        ctx->has_blas = ctx->has_blas && all[rank].has_blas;
    for (int rank = 1; rank < ctx->world_size; ++rank) {
        if (all[rank].heap_size != all[0].heap_size)
            return IRIS_FAIL(IRIS_EINVAL,
                             "heap_size: expected the same on all ranks, got %llu on rank 0 and "
                             "%llu on rank %d",
                             (unsigned long long)all[0].heap_size,
                             (unsigned long long)all[rank].heap_size, rank);
        if (all[rank].local_size != all[0].local_size)
            return IRIS_FAIL(IRIS_EINVAL,
                             "local_size: expected the same on all ranks, got %llu on rank 0 and "
                             "%llu on rank %d",
                             (unsigned long long)all[0].local_size,
                             (unsigned long long)all[rank].local_size, rank);
        if (strcmp(all[rank].backend, all[0].backend) != 0)
            return IRIS_FAIL(IRIS_EINVAL,
                             "backend: expected the same on all ranks, got '%s' on rank 0 and '%s' "
                             "on rank %d",
                             all[0].backend, all[rank].backend, rank);
        if (all[rank].compute_units < all[0].compute_units)
            all[0].compute_units = all[rank].compute_units;
    }
    ctx->channel_lanes = lanes_for(ctx, all[0].compute_units);
    return IRIS_OK;
}

/* Also the end of creation: nobody uses a heap that a peer has not mapped yet. */
static enum iris_status agree_on_memory(struct iris_context *ctx)
{
    const enum iris_memory_kind own = iris_heap_memory_kind(ctx->heap);
    enum iris_memory_kind all[IRIS_MAX_RANKS];

    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "init done", &own, sizeof own, all));
    ctx->has_packets = true;
    for (int rank = 0; rank < ctx->world_size; ++rank)
        if (all[rank] != IRIS_MEMORY_COHERENT && all[rank] != IRIS_MEMORY_UNCACHED)
            ctx->has_packets = false;
    return IRIS_OK;
}

/* What lies at offset 0 of the heap, before the blocks: the device barrier's control, zeros that
 * nobody writes, then the channels to the peers. */
static uint64_t reserve(struct iris_context *ctx)
{
    const uint64_t lanes =
        ctx->world_size > 1 ? (uint64_t)ctx->world_size * (uint64_t)ctx->channel_lanes : 0;

    ctx->zeros_offset = iris_round_up(sizeof(struct iris_workspace_control), IRIS_HEAP_ALIGNMENT);
    ctx->channels_offset = iris_round_up(ctx->zeros_offset + IRIS_HEAP_ALIGNMENT, 4096);
    return ctx->channels_offset +
           iris_round_up(lanes * (sizeof(struct iris_channel_lane) +
                                  (uint64_t)IRIS_CHANNEL_SLOTS * IRIS_CHANNEL_CHUNK),
                         4096);
}

static enum iris_status connect_ranks(struct iris_context *ctx,
                                      const struct iris_context_options *options)
{
    const struct iris_bootstrap_options bootstrap = {
        .run_key = options->run_key,
        .rank = options->rank,
        .world_size = options->world_size,
        .timeout_ns = ctx->timeout_ns,
        .on_departure = peer_departed,
        .on_departure_arg = ctx,
        .check_meeting = options->check_meeting,
        .check_meeting_arg = options->check_meeting_arg,
    };
    struct iris_control *control = NULL;

    IRIS_TRY(iris_bootstrap_create(&bootstrap, &ctx->bootstrap));
    IRIS_TRY(agree_on_options(ctx));
    IRIS_TRY(iris_lifelines_create(ctx->bootstrap, ctx->rank, ctx->world_size, &ctx->lifelines));
    IRIS_TRY(iris_control_create(ctx->bootstrap, ctx->rank, ctx->world_size, &control));
    __atomic_store_n(&ctx->control, control, __ATOMIC_RELEASE);
    IRIS_TRY(ctx->ops->host_register(ctx->device, control, sizeof *control, &ctx->faults_address));
    return iris_topology_check(ctx);
}

static enum iris_status copy_text(const char *text, char **out)
{
    IRIS_TRY(iris_alloc_zeroed(strlen(text) + 1, (void **)out));
    memcpy(*out, text, strlen(text));
    return IRIS_OK;
}

enum iris_status iris_context_create(const struct iris_context_options *options,
                                     struct iris_context **out)
{
    const struct iris_device_options device = {
        .local_rank = options->local_rank,
        .local_world_size = options->world_size,
        .num_threads = options->num_threads,
        .kernel_directory = options->kernel_directory,
    };
    struct iris_context *ctx;
    enum iris_status status;

    IRIS_TRY(check_options(options));
    IRIS_TRY(iris_alloc_zeroed(sizeof *ctx, (void **)&ctx));
    atomic_init(&ctx->references, 1);
    ctx->generation = iris_process_generation();
    ctx->rank = options->rank;
    ctx->world_size = options->world_size;
    ctx->timeout_ns = (uint64_t)(options->timeout * 1e9);
    ctx->debug = options->debug;
    ctx->heap_size = iris_round_up(options->heap_size, 4096);
    ctx->local_size = iris_round_up(options->local_size, 4096);
    ctx->local_rank = options->local_rank;
    ctx->num_threads = options->num_threads;
    ctx->parts = parts;
    ctx->part_count = sizeof parts / sizeof parts[0];
    iris_lifelines_init(&ctx->lifelines);
    pthread_mutex_init(&ctx->op_lock, NULL);
    pthread_mutex_init(&ctx->storages_lock, NULL);
    iris_context_begin_interruptible(ctx);
    IRIS_TRY_GOTO(status,
                  copy_text(options->run_key != NULL ? options->run_key : "", &ctx->run_key), fail);
    IRIS_TRY_GOTO(status,
                  copy_text(options->kernel_directory != NULL ? options->kernel_directory : "",
                            &ctx->kernel_directory),
                  fail);
    IRIS_TRY_GOTO(status, iris_device_find(options->backend, &ctx->ops), fail);
    IRIS_TRY_GOTO(status, ctx->ops->open(&device, &ctx->device), fail);
    IRIS_TRY_GOTO(status, connect_ranks(ctx, options), fail);
    IRIS_TRY_GOTO(status,
                  iris_heap_create(ctx->ops, ctx->device, ctx->bootstrap, ctx->rank,
                                   ctx->world_size, reserve(ctx), ctx->heap_size, ctx->local_size,
                                   &ctx->heap),
                  fail);
    iris_context_enlist(ctx);
    IRIS_TRY_GOTO(status, agree_on_memory(ctx), fail);
    iris_context_end_interruptible();
    *out = ctx;
    return IRIS_OK;
fail:
    {
        struct iris_error saved;
        iris_error_in_call(status, "init", "init");
        iris_context_end_interruptible();
        iris_error_save(&saved);
        iris_context_release(ctx);
        iris_error_restore(&saved);
        return status;
    }
}
