/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Two locks: `allocate_lock` is held through a collective, in which a peer may be waited for;
 * `lock` guards the lists and is held for moments, because freeing happens on threads that must
 * not wait.
 */
#include "heap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "allocator.h"
#include "arena.h"
#include "kernels/abi/abi.h"

struct live_block {
    struct live_block *next;
    struct iris_block block;
    uint32_t offered_by; /* bit per rank, as agreed; this rank's own offer waits in `offers` */
};

/* Frees that the next collective allocation will tell the peers. */
struct offer {
    struct offer *next;
    uint64_t id;
};

struct iris_heap {
    const struct iris_device_ops *ops;
    struct iris_device *device;
    struct iris_bootstrap *bootstrap;
    int rank, world_size;
    uint64_t reserved, nbytes, local_nbytes;
    struct iris_arena *local;
    struct iris_memory memory[IRIS_MAX_RANKS];
    atomic_int memory_references; /* to this rank's */
    pthread_mutex_t allocate_lock;
    pthread_mutex_t lock;
    struct iris_allocator *allocator;
    struct live_block *blocks;
    struct offer *offers, **offers_end;
    uint64_t next_id;
    uint64_t generation; /* blocks that have ceased to exist */
    atomic_ullong used;  /* may be asked for without the lock, in a forked child too */
};

/* One rank's part of a collective allocation. */
enum { OFFERS_PER_MESSAGE = 125 };
struct allocate_message {
    uint64_t nbytes;
    uint32_t offers;
    uint32_t more; /* further offers wait for another round */
    uint64_t ids[OFFERS_PER_MESSAGE];
};

/* Everybody's handles; descriptors in them are this process's to close. */
static enum iris_status exchange_handles(struct iris_heap *heap,
                                         const struct iris_memory_handle *own,
                                         struct iris_memory_handle *all)
{
    int fds[IRIS_MAX_RANKS];

    if (!iris_device_traits(heap->device)->shares_by_fd)
        return iris_bootstrap_all_gather(heap->bootstrap, "heap", own, sizeof *own, all);
    IRIS_TRY(iris_bootstrap_exchange_fds(heap->bootstrap, "heap", own->fd, fds));
    for (int rank = 0; rank < heap->world_size; ++rank)
        all[rank].fd = fds[rank];
    return IRIS_OK;
}

static enum iris_status map_peers(struct iris_heap *heap, const struct iris_memory_handle *own)
{
    struct iris_memory_handle handles[IRIS_MAX_RANKS];
    const size_t nbytes = heap->memory[heap->rank].nbytes;
    enum iris_status status;

    status = exchange_handles(heap, own, handles);
    if (own->fd >= 0)
        close(own->fd);
    IRIS_TRY(status);
    for (int peer = 0; peer < heap->world_size; ++peer) {
        if (peer == heap->rank)
            continue;
        if (status == IRIS_OK)
            status =
                heap->ops->memory_import(heap->device, &handles[peer], nbytes, &heap->memory[peer]);
        else if (handles[peer].fd >= 0)
            close(handles[peer].fd);
    }
    return status;
}

enum iris_status iris_heap_create(const struct iris_device_ops *ops, struct iris_device *device,
                                  struct iris_bootstrap *bootstrap, int rank, int world_size,
                                  uint64_t reserved, uint64_t nbytes, uint64_t local_nbytes,
                                  struct iris_heap **out)
{
    static const struct iris_allocator_text text = {"symmetric heap",
                                                    "free tensors on all ranks or raise heap_size"};
    struct iris_memory_handle own;
    struct iris_heap *heap;
    enum iris_status status;

    IRIS_TRY(iris_alloc_zeroed(sizeof *heap, (void **)&heap));
    heap->ops = ops;
    heap->device = device;
    heap->bootstrap = bootstrap;
    heap->rank = rank;
    heap->world_size = world_size;
    heap->reserved = reserved;
    heap->nbytes = nbytes;
    heap->local_nbytes = local_nbytes;
    heap->next_id = 1;
    heap->offers_end = &heap->offers;
    atomic_init(&heap->memory_references, 1);
    pthread_mutex_init(&heap->allocate_lock, NULL);
    pthread_mutex_init(&heap->lock, NULL);
    IRIS_TRY_GOTO(status,
                  iris_allocator_create(nbytes, IRIS_HEAP_ALIGNMENT, text, &heap->allocator), fail);
    IRIS_TRY_GOTO(status, iris_arena_create(ops, local_nbytes, &heap->local), fail);
    IRIS_TRY_GOTO(
        status,
        ops->memory_create(device, reserved + nbytes + local_nbytes, &heap->memory[rank], &own),
        fail);
    IRIS_TRY_GOTO(status, map_peers(heap, &own), fail);
    *out = heap;
    return IRIS_OK;
fail:
    iris_heap_destroy(heap);
    return status;
}

void iris_heap_destroy(struct iris_heap *heap)
{
    if (heap == NULL)
        return;
    for (int peer = 0; peer < heap->world_size; ++peer)
        heap->ops->memory_release(&heap->memory[peer]);
    while (heap->offers != NULL) {
        struct offer *next = heap->offers->next;
        free(heap->offers);
        heap->offers = next;
    }
    while (heap->blocks != NULL) {
        struct live_block *next = heap->blocks->next;
        free(heap->blocks);
        heap->blocks = next;
    }
    iris_allocator_destroy(heap->allocator);
    iris_arena_destroy(heap->local);
    pthread_mutex_destroy(&heap->lock);
    pthread_mutex_destroy(&heap->allocate_lock);
    free(heap);
}

void iris_heap_drop_peers(struct iris_heap *heap)
{
    for (int peer = 0; peer < heap->world_size; ++peer)
        if (peer != heap->rank)
            heap->ops->memory_release(&heap->memory[peer]);
}

bool iris_heap_retain_memory(struct iris_heap *heap)
{
    int references = atomic_load(&heap->memory_references);

    while (references > 0)
        if (atomic_compare_exchange_weak(&heap->memory_references, &references, references + 1))
            return true;
    return false;
}

void iris_heap_release_memory(struct iris_heap *heap)
{
    if (atomic_fetch_sub(&heap->memory_references, 1) == 1)
        heap->ops->memory_release(&heap->memory[heap->rank]);
}

/* Moves waiting offers into a message. */
static void take_offers(struct iris_heap *heap, struct allocate_message *message)
{
    pthread_mutex_lock(&heap->lock);
    while (heap->offers != NULL && message->offers < OFFERS_PER_MESSAGE) {
        struct offer *offer = heap->offers;
        message->ids[message->offers++] = offer->id;
        heap->offers = offer->next;
        free(offer);
    }
    if (heap->offers == NULL)
        heap->offers_end = &heap->offers;
    message->more = heap->offers != NULL;
    pthread_mutex_unlock(&heap->lock);
}

/* Called with `lock` held. */
static enum iris_status apply_offer(struct iris_heap *heap, int rank, uint64_t id)
{
    const uint32_t everybody = (uint32_t)((UINT64_C(1) << heap->world_size) - 1);
    enum iris_status status = IRIS_OK;

    for (struct live_block **link = &heap->blocks; *link != NULL; link = &(*link)->next) {
        struct live_block *live = *link;
        if (live->block.id != id)
            continue;
        live->offered_by |= UINT32_C(1) << rank;
        if (live->offered_by == everybody) {
            *link = live->next;
            ++heap->generation;
            status = iris_allocator_give(heap->allocator, live->block.offset - heap->reserved,
                                         live->block.nbytes);
            free(live);
        }
        break;
    }
    return status;
}

/* Tells the peers this rank's frees and applies everybody's, round by round until none wait. */
static enum iris_status settle_offers(struct iris_heap *heap, uint64_t nbytes,
                                      struct allocate_message *gathered)
{
    bool more = true;

    while (more) {
        struct allocate_message message = {.nbytes = nbytes};
        enum iris_status status = IRIS_OK;

        take_offers(heap, &message);
        IRIS_TRY(iris_bootstrap_all_gather(heap->bootstrap, "allocation", &message, sizeof message,
                                           gathered));
        more = false;
        pthread_mutex_lock(&heap->lock);
        for (int rank = 0; rank < heap->world_size; ++rank) {
            for (uint32_t i = 0; i < gathered[rank].offers && status == IRIS_OK; ++i)
                status = apply_offer(heap, rank, gathered[rank].ids[i]);
            more = more || gathered[rank].more != 0;
        }
        pthread_mutex_unlock(&heap->lock);
        IRIS_TRY(status);
    }
    return IRIS_OK;
}

/* Called with `lock` held. Keeps nothing on failure. */
static enum iris_status take_block(struct iris_heap *heap, uint64_t nbytes, struct iris_block *out)
{
    struct live_block *live;
    enum iris_status status;
    uint64_t offset = 0;

    IRIS_TRY(iris_alloc_zeroed(sizeof *live, (void **)&live));
    IRIS_TRY_GOTO(status, iris_allocator_take(heap->allocator, nbytes, &offset), fail);
    live->block.id = heap->next_id++;
    live->block.offset = heap->reserved + offset;
    live->block.nbytes = nbytes;
    live->next = heap->blocks;
    heap->blocks = live;
    atomic_fetch_add(&heap->used, iris_allocator_rounded(heap->allocator, nbytes));
    *out = live->block;
    return IRIS_OK;
fail:
    free(live);
    return status;
}

static enum iris_status allocate_locked(struct iris_heap *heap, uint64_t nbytes,
                                        struct iris_block *out)
{
    struct allocate_message gathered[IRIS_MAX_RANKS];
    enum iris_status status;

    /* A block's end must come after this rank's last store to a peer's, be it only a signal. */
    IRIS_TRY(heap->ops->synchronize(heap->device));
    IRIS_TRY(settle_offers(heap, nbytes, gathered));
    for (int rank = 1; rank < heap->world_size; ++rank)
        if (gathered[rank].nbytes != gathered[0].nbytes)
            return IRIS_FAIL(IRIS_EINVAL,
                             "allocation: expected the same size on all ranks, got %llu bytes on "
                             "rank 0 and %llu on rank %d",
                             (unsigned long long)gathered[0].nbytes,
                             (unsigned long long)gathered[rank].nbytes, rank);
    pthread_mutex_lock(&heap->lock);
    status = take_block(heap, nbytes, out);
    pthread_mutex_unlock(&heap->lock);
    return status;
}

enum iris_status iris_heap_allocate(struct iris_heap *heap, uint64_t nbytes, struct iris_block *out)
{
    enum iris_status status;

    pthread_mutex_lock(&heap->allocate_lock);
    status = allocate_locked(heap, nbytes, out);
    pthread_mutex_unlock(&heap->allocate_lock);
    return status;
}

void iris_heap_free(struct iris_heap *heap, const struct iris_block *block)
{
    struct offer *offer = malloc(sizeof *offer);

    pthread_mutex_lock(&heap->lock);
    atomic_fetch_sub(&heap->used, iris_allocator_rounded(heap->allocator, block->nbytes));
    /* Out of host memory: the block stays taken, which is safe. */
    if (offer != NULL) {
        offer->next = NULL;
        offer->id = block->id;
        *heap->offers_end = offer;
        heap->offers_end = &offer->next;
    }
    pthread_mutex_unlock(&heap->lock);
}

bool iris_heap_is_live(struct iris_heap *heap, const struct iris_block *block)
{
    const struct live_block *live;

    pthread_mutex_lock(&heap->lock);
    for (live = heap->blocks; live != NULL && live->block.id != block->id; live = live->next)
        ;
    pthread_mutex_unlock(&heap->lock);
    return live != NULL;
}

uint64_t iris_heap_generation(struct iris_heap *heap)
{
    uint64_t generation;

    pthread_mutex_lock(&heap->lock);
    generation = heap->generation;
    pthread_mutex_unlock(&heap->lock);
    return generation;
}

char *iris_heap_base(const struct iris_heap *heap, int rank)
{
    return heap->memory[rank].data;
}

uint64_t iris_heap_used(const struct iris_heap *heap)
{
    return atomic_load(&heap->used);
}

struct iris_device *iris_heap_device(const struct iris_heap *heap)
{
    return heap->memory[heap->rank].device;
}

enum iris_memory_kind iris_heap_memory_kind(const struct iris_heap *heap)
{
    return heap->memory[heap->rank].kind;
}

/* Whether the range lies in the first `room` bytes after the reserved ones. */
static bool is_within(const struct iris_heap *heap, const void *data, size_t nbytes, uint64_t room)
{
    const uintptr_t base = (uintptr_t)iris_heap_base(heap, heap->rank);
    const uintptr_t begin = base + heap->reserved, address = (uintptr_t)data;

    return base != 0 && address >= begin && address - begin <= room &&
           nbytes <= room - (address - begin) && (nbytes > 0 || address < begin + room);
}

bool iris_heap_is_reachable(const struct iris_heap *heap, const void *data, size_t nbytes)
{
    return is_within(heap, data, nbytes, heap->nbytes + heap->local_nbytes);
}

bool iris_heap_is_symmetric(const struct iris_heap *heap, const void *data, size_t nbytes)
{
    return is_within(heap, data, nbytes, heap->nbytes);
}

enum iris_status iris_heap_allocate_local(struct iris_heap *heap, uint64_t nbytes, bool may_wait,
                                          struct iris_block *out)
{
    uint64_t offset;

    IRIS_TRY(iris_arena_take(heap->local, iris_heap_device(heap), nbytes, may_wait, &offset));
    *out = (struct iris_block){0, heap->reserved + heap->nbytes + offset, nbytes};
    return IRIS_OK;
}

void iris_heap_free_local(struct iris_heap *heap, const struct iris_block *block)
{
    iris_arena_give(heap->local, block->offset - heap->reserved - heap->nbytes, block->nbytes);
}

uint64_t iris_heap_local_used(const struct iris_heap *heap)
{
    return iris_arena_used(heap->local);
}

uint64_t iris_heap_local_room(const struct iris_heap *heap)
{
    return iris_arena_room(heap->local);
}
