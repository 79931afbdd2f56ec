/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One lock, held for moments; the device is waited for without it.
 */
#include "arena.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "allocator.h"
#include "base/wait.h"

/* What torch's allocator expects of the memory it divides. */
enum { ARENA_ALIGNMENT = 512 };

/* A range that launched work may still use. */
struct aside {
    struct aside *next;
    uint64_t offset, nbytes;
};

struct iris_arena {
    const struct iris_device_ops *ops;
    pthread_mutex_t lock;
    struct iris_allocator *allocator;
    struct aside *aside;
    atomic_ullong used;
};

enum iris_status iris_arena_create(const struct iris_device_ops *ops, uint64_t nbytes,
                                   struct iris_arena **out)
{
    static const struct iris_allocator_text text = {"local arena",
                                                    "free tensors or raise local_size"};
    struct iris_arena *arena;
    enum iris_status status;

    IRIS_TRY(iris_alloc_zeroed(sizeof *arena, (void **)&arena));
    arena->ops = ops;
    pthread_mutex_init(&arena->lock, NULL);
    IRIS_TRY_GOTO(status, iris_allocator_create(nbytes, ARENA_ALIGNMENT, text, &arena->allocator),
                  fail);
    *out = arena;
    return IRIS_OK;
fail:
    iris_arena_destroy(arena);
    return status;
}

static void free_list(struct aside *aside)
{
    while (aside != NULL) {
        struct aside *next = aside->next;
        free(aside);
        aside = next;
    }
}

void iris_arena_destroy(struct iris_arena *arena)
{
    if (arena == NULL)
        return;
    free_list(arena->aside);
    iris_allocator_destroy(arena->allocator);
    pthread_mutex_destroy(&arena->lock);
    free(arena);
}

/* Out of host memory: the range stays taken, which is safe. Called with the lock held. */
static void give_now(struct iris_arena *arena, uint64_t offset, uint64_t nbytes)
{
    struct iris_error saved;

    iris_error_save(&saved);
    (void)iris_allocator_give(arena->allocator, offset, nbytes);
    iris_error_restore(&saved);
}

static enum iris_status take(struct iris_arena *arena, uint64_t nbytes, uint64_t *offset)
{
    enum iris_status status;

    pthread_mutex_lock(&arena->lock);
    status = iris_allocator_take(arena->allocator, nbytes, offset);
    pthread_mutex_unlock(&arena->lock);
    return status;
}

/* Makes what was set aside before this call free to take. false: there was nothing, or the device
 * could not be waited for. */
static bool settle(struct iris_arena *arena, struct iris_device *device)
{
    struct iris_interruptible *suspended;
    struct aside *settled;
    enum iris_status status;

    pthread_mutex_lock(&arena->lock);
    settled = arena->aside;
    arena->aside = NULL;
    pthread_mutex_unlock(&arena->lock);
    if (settled == NULL)
        return false;
    suspended = iris_wait_suspend(); /* no signal handler runs inside another library's allocator */
    status = arena->ops->synchronize(device);
    iris_wait_resume(suspended);
    pthread_mutex_lock(&arena->lock);
    if (status == IRIS_OK) {
        for (const struct aside *range = settled; range != NULL; range = range->next)
            give_now(arena, range->offset, range->nbytes);
    } else {
        struct aside **end = &arena->aside;

        while (*end != NULL)
            end = &(*end)->next;
        *end = settled;
        settled = NULL;
    }
    pthread_mutex_unlock(&arena->lock);
    free_list(settled);
    return status == IRIS_OK;
}

enum iris_status iris_arena_take(struct iris_arena *arena, struct iris_device *device,
                                 uint64_t nbytes, bool may_wait, uint64_t *offset)
{
    enum iris_status status = take(arena, nbytes, offset);
    struct iris_error saved;

    if (status == IRIS_EHEAP && may_wait) {
        iris_error_save(&saved);
        if (settle(arena, device))
            status = take(arena, nbytes, offset);
        else
            iris_error_restore(&saved);
    }
    if (status == IRIS_OK)
        atomic_fetch_add(&arena->used, iris_allocator_rounded(arena->allocator, nbytes));
    return status;
}

void iris_arena_give(struct iris_arena *arena, uint64_t offset, uint64_t nbytes)
{
    /* Launches of the cpu are complete on return. */
    const bool at_once = arena->ops->stream_is_capturing == NULL;
    struct aside *aside = at_once ? NULL : malloc(sizeof *aside);

    pthread_mutex_lock(&arena->lock);
    if (at_once) {
        give_now(arena, offset, nbytes);
    } else if (aside != NULL) { /* else the range stays taken */
        *aside = (struct aside){arena->aside, offset, nbytes};
        arena->aside = aside;
    }
    atomic_fetch_sub(&arena->used, iris_allocator_rounded(arena->allocator, nbytes));
    pthread_mutex_unlock(&arena->lock);
}

uint64_t iris_arena_used(const struct iris_arena *arena)
{
    return atomic_load(&arena->used);
}

uint64_t iris_arena_room(struct iris_arena *arena)
{
    uint64_t room;

    pthread_mutex_lock(&arena->lock);
    room = iris_allocator_largest(arena->allocator);
    pthread_mutex_unlock(&arena->lock);
    return room;
}
