/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A context's life: meet the ranks, map the control segment, open the device, map the heaps;
 * closing says farewell and stops the threads; the memory goes with the last reference.
 */
#include "context.h"

#include <stdlib.h>
#include <string.h>

#include "base/process.h"
#include "base/wait.h"
#include "kernels/abi/instances.h"
#include "kernels/abi/schedule.h"
#include "runtime/memory/ownership.h"
#include "runtime/memory/workspace.h"
#include "runtime/ops/op_messages.h"
#include "runtime/ops/trace_buffer.h"
#include "topology.h"

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

/* ---- creation ---- */

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
    if (!(o->timeout > 0) || o->timeout > 1e9)
        return IRIS_FAIL(IRIS_EINVAL, "timeout: expected seconds in (0, 1e9], got %g", o->timeout);
    return IRIS_OK;
}

struct create_message {
    uint64_t heap_size;
    int64_t compute_units;
    char backend[16];
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
                                 .compute_units = ctx->ops->compute_units(ctx->device)},
                          all[IRIS_MAX_RANKS];

    strncpy(own.backend, ctx->ops->name, sizeof own.backend - 1);
    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "init", &own, sizeof own, all));
    for (int rank = 1; rank < ctx->world_size; ++rank) {
        if (all[rank].heap_size != all[0].heap_size)
            return IRIS_FAIL(IRIS_EINVAL,
                             "heap_size: expected the same on all ranks, got %llu on rank 0 and "
                             "%llu on rank %d",
                             (unsigned long long)all[0].heap_size,
                             (unsigned long long)all[rank].heap_size, rank);
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
    ctx->heap_size = (options->heap_size + 4095) / 4096 * 4096;
    ctx->local_rank = options->local_rank;
    ctx->num_threads = options->num_threads;
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
                                   ctx->world_size, reserve(ctx), ctx->heap_size, &ctx->heap),
                  fail);
    iris_context_enlist(ctx);
    /* Nobody uses a heap that a peer has not mapped yet. */
    IRIS_TRY_GOTO(status, iris_bootstrap_barrier(ctx->bootstrap, "init done"), fail);
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

/* ---- life ---- */

struct iris_context *iris_context_retain(struct iris_context *ctx)
{
    atomic_fetch_add(&ctx->references, 1);
    return ctx;
}

void iris_context_close(struct iris_context *ctx)
{
    (void)iris_context_depart(ctx, false);
}

bool iris_context_depart(struct iris_context *ctx, bool goes_on)
{
    struct iris_interruptible *suspended;

    if (iris_context_is_inherited(ctx) || !iris_context_enter_to_close(ctx, goes_on))
        return false;
    /* Kernels poll the control segment; their waits are bounded, and end at an interrupt. */
    if (ctx->device != NULL && ctx->heap != NULL &&
        ctx->ops->synchronize(ctx->device) == IRIS_EINTERRUPTED) {
        suspended = iris_wait_suspend();
        (void)ctx->ops->synchronize(ctx->device);
        iris_wait_resume(suspended);
    }
    if (ctx->sent_to != 0)
        iris_messages_drain(ctx);
    iris_bootstrap_depart(ctx->bootstrap, goes_on ? IRIS_PEER_WENT_ON : IRIS_PEER_LEFT);
    ctx->bootstrap = NULL;
    if (ctx->faults_address != 0)
        ctx->ops->host_unregister(ctx->device, ctx->control);
    ctx->faults_address = 0;
    iris_stream_order_destroy(ctx->ops, ctx->device, &ctx->sends);
    iris_stream_order_destroy(ctx->ops, ctx->device, &ctx->receipts);
    iris_trace_free(ctx);
    if (goes_on)
        iris_heap_drop_peers(ctx->heap);
    else
        iris_lifelines_close(&ctx->lifelines);
    if (ctx->ops != NULL)
        ctx->ops->close(ctx->device);
    ctx->device = NULL;
    iris_context_leave(ctx);
    return true;
}

void iris_context_close_now(struct iris_context *ctx)
{
    if (iris_context_is_inherited(ctx) || atomic_load(&ctx->closed))
        return;
    iris_context_interrupt(ctx);
    iris_context_close(ctx);
}

void iris_context_release(struct iris_context *ctx)
{
    if (ctx == NULL || atomic_fetch_sub(&ctx->references, 1) > 1)
        return;
    if (iris_context_is_inherited(ctx))
        return; /* the parent's; a child frees nothing that another thread may have held locked */
    iris_context_close(ctx);
    iris_context_delist(ctx);
    iris_context_free_workspaces(ctx);
    iris_heap_destroy(ctx->heap);
    iris_control_destroy(ctx->control);
    pthread_mutex_destroy(&ctx->storages_lock);
    pthread_mutex_destroy(&ctx->op_lock);
    free(ctx->run_key);
    free(ctx->kernel_directory);
    free(ctx);
}

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

/* ---- accessors ---- */

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
    return ctx->device != NULL ? ctx->ops->device_id(ctx->device) : 0;
}

int iris_context_compute_units(const struct iris_context *ctx)
{
    return ctx->device != NULL ? ctx->ops->compute_units(ctx->device) : 0;
}

size_t iris_context_heap_size(const struct iris_context *ctx)
{
    return ctx->heap_size;
}

size_t iris_context_heap_used(const struct iris_context *ctx)
{
    return iris_heap_used(ctx->heap);
}

void iris_context_heap_bases(const struct iris_context *ctx, uint64_t *out)
{
    for (int rank = 0; rank < ctx->world_size; ++rank)
        out[rank] = (uint64_t)(uintptr_t)iris_heap_base(ctx->heap, rank);
}

/* ---- barriers ---- */

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

enum iris_status iris_context_launch_barrier(struct iris_context *ctx, void *stream)
{
    struct iris_barrier_args args;
    const struct iris_launch launch = {
        .kernel = IRIS_KERNEL_ID(IRIS_OP_BARRIER, IRIS_VARIANT_NONE, IRIS_DTYPE_U8),
        .work_groups = 1,
        .args = &args,
        .args_nbytes = sizeof args,
        .stream = stream,
    };

    iris_context_call_args(ctx, IRIS_OP_BARRIER, &args.call); /* its control lies at offset 0 */
    return ctx->ops->launch(ctx->device, &launch);
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

enum iris_status iris_context_poll(struct iris_context *ctx, enum iris_operation operation)
{
    const uint32_t reason = IRIS_ABORT_REASON(iris_control_aborted(ctx->control, ctx->rank));

    if (reason == IRIS_ABORT_NONE)
        return IRIS_OK;
    if (reason != IRIS_ABORT_MISMATCH)
        return iris_context_abort_status(ctx, operation);
    /* A synchronous device's call settles it itself, before it returns. */
    return iris_device_traits(ctx->device)->is_gpu
               ? iris_workspace_settle_mismatch(ctx, &ctx->last_op)
               : IRIS_OK;
}

enum iris_status iris_context_device_barrier(struct iris_context *ctx, void *stream)
{
    uint64_t before = 0, after = 1;
    enum iris_status status;
    bool is_gpu;

    IRIS_TRY(iris_context_enter(ctx, "device_barrier", IRIS_CALL_OF_ALL));
    is_gpu = iris_device_traits(ctx->device)->is_gpu;
    IRIS_TRY_GOTO(status, iris_context_poll(ctx, IRIS_OP_BARRIER), done);
    if (!is_gpu)
        IRIS_TRY_GOTO(status, iris_context_barriers(ctx, &before), done);
    IRIS_TRY_GOTO(status, iris_context_launch_barrier(ctx, stream), done);
    if (!is_gpu)
        IRIS_TRY_GOTO(status, iris_context_barriers(ctx, &after), done);
    if (after == before)
        status = iris_context_abort_status(ctx, IRIS_OP_BARRIER);
done:
    iris_context_leave(ctx);
    return status;
}

enum iris_status iris_context_barrier(struct iris_context *ctx, void *stream)
{
    enum iris_status status;

    IRIS_TRY(iris_context_enter(ctx, "barrier", IRIS_CALL_OF_ALL));
    IRIS_TRY_GOTO(status, ctx->ops->stream_synchronize(ctx->device, stream), done);
    if (iris_device_traits(ctx->device)->is_gpu)
        IRIS_TRY_GOTO(status, iris_context_poll(ctx, IRIS_OP_BARRIER), done);
    status =
        iris_error_in_call(iris_bootstrap_barrier(ctx->bootstrap, "barrier"), "barrier", "barrier");
done:
    iris_context_leave(ctx);
    return status;
}
