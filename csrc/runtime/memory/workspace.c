/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Handles, storages, and the collective making of a storage. The board is in board.c.
 */
#include "workspace.h"

#include <stdlib.h>
#include <string.h>

#include "board.h"
#include "kernels/abi/schedule.h"
#include "runtime/context_lock.h"
#include "storage_layout.h"

struct iris_workspace {
    atomic_int references;
    struct iris_context *ctx;
    enum iris_operation operation;
    /* Under ctx->storages_lock: */
    struct iris_storage *storage;
    bool prepared;
    int64_t shape[3];
    enum iris_dtype dtype;
    enum iris_variant variant;
};

struct iris_context *iris_workspace_context(const struct iris_workspace *workspace)
{
    return workspace->ctx;
}

enum iris_operation iris_workspace_operation(const struct iris_workspace *workspace)
{
    return workspace->operation;
}

/* ---- storages; all under storages_lock ---- */

static struct iris_storage *find_storage(struct iris_context *ctx, uint32_t id)
{
    struct iris_storage *storage = ctx->storages;

    while (storage != NULL && storage->id != id)
        storage = storage->next;
    return storage;
}

/* Without a device there is nothing left to destroy. */
static void destroy_side_stream(struct iris_context *ctx, struct iris_side_stream *side)
{
    if (side->stream == NULL || ctx->device == NULL)
        return;
    ctx->ops->stream_destroy(ctx->device, side->stream);
    ctx->ops->event_destroy(ctx->device, side->began);
    ctx->ops->event_destroy(ctx->device, side->ended);
    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
        ctx->ops->event_destroy(ctx->device, side->come[rank]);
}

static void remove_storage(struct iris_context *ctx, struct iris_storage *storage)
{
    struct iris_storage **link = &ctx->storages;

    while (*link != storage)
        link = &(*link)->next;
    *link = storage->next;
    iris_stream_order_destroy(ctx->ops, ctx->device, &storage->order);
    destroy_side_stream(ctx, &storage->side);
    if (storage->blas_workspace.data != NULL)
        ctx->ops->memory_release(&storage->blas_workspace);
    free(storage);
}

static bool is_live(struct iris_context *ctx, struct iris_storage *storage)
{
    const uint64_t generation = iris_heap_generation(ctx->heap);

    if (storage->checked == generation)
        return true;
    if (!iris_heap_is_live(ctx->heap, &storage->block))
        return false;
    storage->checked = generation;
    return true;
}

static void bind(struct iris_workspace *workspace, struct iris_storage *storage)
{
    ++storage->references;
    workspace->storage = storage;
}

/* Lets go of the handle's storage. The block is offered back with the last handle; the record
 * stays while a peer may still name it, that is, until all ranks have offered the block. */
static void unbind(struct iris_workspace *workspace)
{
    struct iris_context *ctx = workspace->ctx;
    struct iris_storage *storage = workspace->storage, *next;

    if (storage == NULL)
        return;
    workspace->storage = NULL;
    workspace->prepared = false;
    if (--storage->references == 0 && !storage->offered && !storage->captured) {
        storage->offered = true;
        iris_heap_free(ctx->heap, &storage->block);
    }
    for (storage = ctx->storages; storage != NULL; storage = next) {
        next = storage->next;
        if (storage->references == 0 && !is_live(ctx, storage))
            remove_storage(ctx, storage);
    }
}

static bool fits(struct iris_context *ctx, struct iris_storage *storage,
                 const struct iris_op_needs *needs)
{
    return storage != NULL && !storage->dirty && is_live(ctx, storage) &&
           iris_room_covers(&storage->room, needs);
}

struct iris_workspace_control *iris_storage_control(const struct iris_context *ctx,
                                                    const struct iris_storage *storage)
{
    return (struct iris_workspace_control *)(iris_heap_base(ctx->heap, ctx->rank) +
                                             storage->block.offset);
}

/* Number of completed calls, of all that the device was given. */
static enum iris_status read_calls(struct iris_context *ctx,
                                   const struct iris_workspace_control *control, uint64_t *out)
{
    IRIS_TRY(iris_context_wait_for_device(ctx));
    return ctx->ops->memory_read(iris_heap_device(ctx->heap), out, &control->calls, sizeof *out);
}

/* ---- making a storage ---- */

struct make_message {
    struct iris_op_needs room;
    uint64_t calls;
};

static struct make_message maximum(const struct make_message *all, int world_size)
{
    struct make_message m = all[0];

    for (int rank = 1; rank < world_size; ++rank) {
        iris_room_raise(&m.room, &all[rank].room);
        if (all[rank].calls > m.calls)
            m.calls = all[rank].calls;
    }
    return m;
}

static enum iris_status prepare_memory(struct iris_context *ctx, const struct iris_storage *storage,
                                       uint64_t calls)
{
    struct iris_workspace_control *control = iris_storage_control(ctx, storage);
    char *const base = (char *)iris_heap_base(ctx->heap, ctx->rank);

    IRIS_TRY(ctx->ops->memory_set(ctx->device, NULL, control, 0,
                                  storage->bare_offset - storage->block.offset));
    if (storage->room.bare > 0)
        IRIS_TRY(ctx->ops->memory_set(ctx->device, NULL, base + storage->bare_offset,
                                      (uint8_t)IRIS_EMPTY_WORD,
                                      storage->data_offset - storage->bare_offset));
    if (storage->room.product_flags_count > 0)
        IRIS_TRY(
            ctx->ops->memory_set(ctx->device, NULL, base + storage->product_control_offset, 0,
                                 storage->product_data_offset - storage->product_control_offset));
    IRIS_TRY(ctx->ops->synchronize(ctx->device));
    IRIS_TRY(ctx->ops->memory_write(ctx->device, &control->calls, &calls, sizeof calls));
    /* Nobody signals into a peer's control before the peer has zeroed it. */
    return iris_bootstrap_barrier(ctx->bootstrap, "workspace ready");
}

/* Collective: all ranks are here, with equal descriptions. A handle that grows brings its room and
 * its count of calls along; the largest of all ranks' counts. */
static enum iris_status make_storage(struct iris_workspace *workspace,
                                     const struct iris_op_needs *needs, struct iris_storage **out)
{
    struct iris_context *ctx = workspace->ctx;
    const struct iris_storage *old = workspace->storage;
    struct make_message own = {*needs, 0}, all[IRIS_MAX_RANKS];
    struct iris_storage *storage;
    enum iris_status status;

    if (old != NULL) {
        IRIS_TRY(read_calls(ctx, iris_storage_control(ctx, old), &own.calls));
        iris_room_raise(&own.room, &old->room);
    }
    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "workspace", &own, sizeof own, all));
    own = maximum(all, ctx->world_size);

    IRIS_TRY(iris_alloc_zeroed(sizeof *storage, (void **)&storage));
    storage->room = own.room;
    const uint64_t nbytes = iris_storage_lay_out(storage);
    /* The old storage goes first, so that growing does not need room for both. */
    pthread_mutex_lock(&ctx->storages_lock);
    unbind(workspace);
    pthread_mutex_unlock(&ctx->storages_lock);
    IRIS_TRY_GOTO(status, iris_heap_allocate(ctx->heap, nbytes, &storage->block), fail);
    iris_storage_put_at(storage, storage->block.offset);
    pthread_mutex_lock(&ctx->storages_lock);
    storage->id = 1 + ctx->storage_ids++ % IRIS_MAX_STORAGE_ID;
    storage->next = ctx->storages;
    ctx->storages = storage;
    bind(workspace, storage);
    pthread_mutex_unlock(&ctx->storages_lock);
    IRIS_TRY(prepare_memory(ctx, storage, own.calls));
    *out = storage;
    return IRIS_OK;
fail:
    free(storage);
    return status;
}

/* ---- choosing the storage of a call ---- */

/* Takes up the storage that the claim names. */
static enum iris_status adopt(struct iris_workspace *workspace, uint32_t id,
                              const struct iris_op_needs *needs, struct iris_storage **out)
{
    struct iris_context *ctx = workspace->ctx;
    struct iris_storage *storage;
    enum iris_status status = IRIS_OK;

    pthread_mutex_lock(&ctx->storages_lock);
    storage = find_storage(ctx, id);
    if (!fits(ctx, storage, needs)) {
        status = IRIS_FAIL(IRIS_EDRIVER,
                           "workspace: storage %u, which a peer uses, is not known "
                           "to this rank",
                           id);
    } else if (workspace->storage != storage) {
        ++storage->references; /* unbind may drop the last handle of the one before */
        unbind(workspace);
        --storage->references;
        bind(workspace, storage);
    }
    pthread_mutex_unlock(&ctx->storages_lock);
    *out = storage;
    return status;
}

bool iris_workspace_has_room(struct iris_workspace *workspace, const struct iris_op_desc *desc)
{
    struct iris_context *ctx = workspace->ctx;
    const struct iris_op_needs needs = iris_op_desc_needs(desc, ctx->world_size, false);
    bool room;

    pthread_mutex_lock(&ctx->storages_lock);
    room = workspace->prepared && fits(ctx, workspace->storage, &needs);
    pthread_mutex_unlock(&ctx->storages_lock);
    return room;
}

enum iris_status iris_workspace_acquire(struct iris_workspace *workspace,
                                        const struct iris_op_desc *desc, bool capturing,
                                        struct iris_storage **out)
{
    struct iris_context *ctx = workspace->ctx;
    const struct iris_op_needs needs = iris_op_desc_needs(desc, ctx->world_size, false);
    const struct iris_op_needs of_all = iris_op_desc_needs(desc, ctx->world_size, true);
    struct iris_board_offer offer = {.signature = iris_op_desc_signature(desc),
                                     .stages = desc->local.stages_results};
    struct iris_board_verdict verdict;
    struct iris_storage *storage;

    pthread_mutex_lock(&ctx->storages_lock);
    storage = workspace->storage;
    if (!workspace->prepared || !fits(ctx, storage, &needs))
        storage = NULL;
    /* While a graph is captured nothing could be made: a peer that needs more has no graph. */
    offer.suits_all = capturing || fits(ctx, storage, &of_all);
    pthread_mutex_unlock(&ctx->storages_lock);

    offer.storage_id = storage != NULL ? storage->id : 0;
    IRIS_TRY(iris_board_settle(ctx, &offer, &verdict));
    if (verdict.kind == IRIS_BOARD_DIFFER)
        return iris_workspace_settle_mismatch(ctx, desc);
    if (verdict.kind == IRIS_BOARD_MAKE) {
        IRIS_TRY(make_storage(workspace, &needs, &storage));
        iris_board_claim_made(ctx, offer.signature, storage->id);
    } else if (storage == NULL || storage->id != verdict.storage_id) {
        IRIS_TRY(adopt(workspace, verdict.storage_id, &needs, &storage));
    }
    iris_workspace_note_call(workspace, desc);
    *out = storage;
    return IRIS_OK;
}

/* ---- ranks that called different things ---- */

struct description {
    char text[IRIS_OP_TEXT_NBYTES];
    uint64_t barriers; /* device barriers this rank has completed */
};

/* A broken call may have been ended inside the device barrier, with some ranks' arrival signalled
 * and some ranks through. All go on from the furthest, with nobody's arrival seen. Nobody is in a
 * kernel now. */
static enum iris_status restart_barrier(struct iris_context *ctx, const struct description *all)
{
    struct iris_workspace_control *control =
        (struct iris_workspace_control *)iris_heap_base(ctx->heap, ctx->rank);
    uint64_t barriers = 0;

    for (int rank = 0; rank < ctx->world_size; ++rank)
        barriers = all[rank].barriers > barriers ? all[rank].barriers : barriers;
    IRIS_TRY(ctx->ops->memory_set(ctx->device, NULL, control->arrived, 0, sizeof control->arrived));
    IRIS_TRY(ctx->ops->synchronize(ctx->device));
    return ctx->ops->memory_write(ctx->device, &control->calls, &barriers, sizeof barriers);
}

static void forget_claimed_storage(struct iris_context *ctx)
{
    struct iris_storage *storage;

    pthread_mutex_lock(&ctx->storages_lock);
    storage = find_storage(ctx, iris_board_claimed(ctx));
    if (storage != NULL)
        storage->dirty = true;
    pthread_mutex_unlock(&ctx->storages_lock);
}

enum iris_status iris_workspace_settle_mismatch(struct iris_context *ctx,
                                                const struct iris_op_desc *desc)
{
    struct description own = {{0}, 0}, all[IRIS_MAX_RANKS];
    const uint32_t word = IRIS_ABORT_WORD_AT(IRIS_ABORT_MISMATCH, ctx->rank, ctx->op_number);

    /* All hosts have come to this call; kernels may still be in those before it, which the number
     * in the word lets them finish. */
    IRIS_TRY(iris_board_wait_all(ctx));
    for (int rank = 0; rank < ctx->world_size; ++rank)
        iris_control_abort(ctx->control, rank, word);
    iris_op_desc_format(desc, own.text);
    IRIS_TRY(iris_context_barriers(ctx, &own.barriers));
    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "description", &own, sizeof own, all));
    /* All ranks are here, so no kernel waits and all have set what abort words they set. */
    if (IRIS_ABORT_REASON(iris_control_aborted(ctx->control, ctx->rank)) == IRIS_ABORT_MISMATCH)
        iris_control_clear_abort(ctx->control, ctx->rank);
    forget_claimed_storage(ctx);
    IRIS_TRY(restart_barrier(ctx, all));
    IRIS_TRY(iris_bootstrap_barrier(ctx->bootstrap, "description"));
    for (int rank = 1; rank < ctx->world_size; ++rank)
        if (strcmp(all[rank].text, all[0].text) != 0)
            return IRIS_FAIL(IRIS_EINVAL,
                             "the ranks called different operations: expected one on all, rank 0 "
                             "called %s, rank %d called %s",
                             all[0].text, rank, all[rank].text);
    return IRIS_FAIL(IRIS_EINVAL, "the ranks called %s with different tile orders", all[0].text);
}

/* ---- handles ---- */

static enum iris_status new_workspace(struct iris_context *ctx, enum iris_operation operation,
                                      struct iris_workspace **out)
{
    struct iris_workspace *workspace;

    IRIS_TRY(iris_alloc_zeroed(sizeof *workspace, (void **)&workspace));
    atomic_init(&workspace->references, 1);
    workspace->ctx = ctx;
    workspace->operation = operation;
    *out = workspace;
    return IRIS_OK;
}

static void unreference(struct iris_workspace *workspace)
{
    struct iris_context *ctx = workspace->ctx;

    if (atomic_fetch_sub(&workspace->references, 1) > 1)
        return;
    pthread_mutex_lock(&ctx->storages_lock);
    unbind(workspace);
    pthread_mutex_unlock(&ctx->storages_lock);
    free(workspace);
}

/* A caller's reference also keeps the context; the context's own does not, or neither would ever
 * go. */
enum iris_status iris_workspace_create(struct iris_context *ctx, enum iris_operation operation,
                                       struct iris_workspace **out)
{
    IRIS_TRY(iris_context_check(ctx));
    if (!iris_operation_has_workspace(operation))
        return IRIS_FAIL(IRIS_EINVAL,
                         "operation: expected the name of one that keeps buffers between its "
                         "calls, got '%s'",
                         iris_operation_name(operation));
    IRIS_TRY(new_workspace(ctx, operation, out));
    iris_context_retain(ctx);
    return IRIS_OK;
}

struct iris_workspace *iris_workspace_retain(struct iris_workspace *workspace)
{
    iris_context_retain(workspace->ctx);
    atomic_fetch_add(&workspace->references, 1);
    return workspace;
}

void iris_workspace_release(struct iris_workspace *workspace)
{
    struct iris_context *ctx;

    if (workspace == NULL)
        return;
    ctx = workspace->ctx;
    if (!iris_context_is_inherited(ctx))
        unreference(workspace);
    iris_context_release(ctx);
}

enum iris_status iris_context_workspace(struct iris_context *ctx, enum iris_operation operation,
                                        struct iris_workspace **out)
{
    enum iris_status status;

    IRIS_TRY(iris_context_check_process(ctx));
    status = IRIS_OK;
    pthread_mutex_lock(&ctx->storages_lock);
    if (ctx->workspaces[operation] == NULL)
        status = new_workspace(ctx, operation, &ctx->workspaces[operation]);
    *out = ctx->workspaces[operation];
    pthread_mutex_unlock(&ctx->storages_lock);
    return status;
}

void iris_context_free_workspaces(struct iris_context *ctx)
{
    for (int operation = 0; operation < IRIS_OP_COUNT; ++operation)
        if (ctx->workspaces[operation] != NULL)
            unreference(ctx->workspaces[operation]);
    while (ctx->storages != NULL)
        remove_storage(ctx, ctx->storages);
}

void iris_workspace_note_call(struct iris_workspace *workspace, const struct iris_op_desc *desc)
{
    pthread_mutex_lock(&workspace->ctx->storages_lock);
    workspace->prepared = true;
    workspace->shape[0] = desc->M;
    workspace->shape[1] = desc->N;
    workspace->shape[2] = iris_op_desc_k(desc);
    workspace->dtype = desc->dtype;
    workspace->variant = desc->variant;
    pthread_mutex_unlock(&workspace->ctx->storages_lock);
}

/* Signal value of the last completed call; see NOTE [signal values] in sync.h. */
static uint32_t call_counter(uint64_t calls)
{
    return calls == 0 ? 0 : (uint32_t)(1 + (calls - 1) % INT32_MAX);
}

enum iris_status iris_workspace_info(struct iris_workspace *workspace,
                                     struct iris_workspace_info *out)
{
    struct iris_context *ctx = workspace->ctx;
    struct iris_workspace_info info = {.operation = workspace->operation,
                                       .world_size = ctx->world_size};
    const struct iris_workspace_control *control = NULL; /* which outlives the storage's record */
    const struct iris_storage *storage;
    enum iris_status status;
    uint64_t calls = 0;

    IRIS_TRY(iris_context_check_process(ctx));
    pthread_mutex_lock(&ctx->storages_lock);
    memcpy(info.shape, workspace->shape, sizeof info.shape);
    info.dtype = workspace->dtype;
    info.variant = workspace->variant;
    info.prepared = workspace->prepared && !atomic_load(&ctx->closed);
    storage = workspace->storage;
    if (storage != NULL) {
        info.nbytes = storage->block.nbytes;
        control = iris_storage_control(ctx, storage);
    }
    pthread_mutex_unlock(&ctx->storages_lock);
    /* The memory of a context that has gone on with its survivors may have been given back. */
    if (control != NULL && iris_heap_retain_memory(ctx->heap)) {
        status = read_calls(ctx, control, &calls);
        iris_heap_release_memory(ctx->heap);
        IRIS_TRY(status);
    }
    info.call_counter = call_counter(calls);
    *out = info;
    return IRIS_OK;
}

bool iris_workspace_is_inherited(const struct iris_workspace *workspace)
{
    return iris_context_is_inherited(workspace->ctx);
}

enum iris_status iris_workspace_reset(struct iris_workspace *workspace)
{
    IRIS_TRY(iris_context_check_process(workspace->ctx));
    pthread_mutex_lock(&workspace->ctx->storages_lock);
    workspace->prepared = false;
    pthread_mutex_unlock(&workspace->ctx->storages_lock);
    return IRIS_OK;
}

enum iris_status iris_workspace_clear(struct iris_workspace *workspace)
{
    IRIS_TRY(iris_context_check_process(workspace->ctx));
    pthread_mutex_lock(&workspace->ctx->storages_lock);
    unbind(workspace);
    workspace->prepared = false;
    pthread_mutex_unlock(&workspace->ctx->storages_lock);
    return IRIS_OK;
}

enum iris_status iris_workspace_set_calls(struct iris_workspace *workspace, uint64_t calls)
{
    struct iris_context *ctx = workspace->ctx;
    struct iris_storage *storage;
    struct iris_device *device;
    enum iris_status status;

    IRIS_TRY(iris_context_check_process(ctx));
    pthread_mutex_lock(&ctx->storages_lock);
    storage = workspace->storage;
    pthread_mutex_unlock(&ctx->storages_lock);
    if (storage == NULL)
        return IRIS_FAIL(IRIS_EINVAL, "workspace: it holds no buffers yet; call the operation or "
                                      "its preamble first");
    if (!iris_heap_retain_memory(ctx->heap))
        return IRIS_FAIL(IRIS_ESTATE, "context: it is closed");
    device = iris_heap_device(ctx->heap);
    status = iris_context_wait_for_device(ctx);
    if (status == IRIS_OK)
        status = ctx->ops->memory_write(device, &iris_storage_control(ctx, storage)->calls, &calls,
                                        sizeof calls);
    iris_heap_release_memory(ctx->heap);
    return status;
}
