/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The symmetric heap: one range of device memory per rank, mapped by all, and blocks in it that lie
 * at the same offset on every rank.
 *
 * Blocks are allocated collectively and freed alone. A rank may drop a block while a peer still
 * writes to it, and ranks drop blocks in different orders (a garbage collector's order), so a
 * freed block is only *offered*: each collective allocation carries the ranks' new offers along,
 * and a block's bytes return to the free list when all ranks have offered it. All ranks thus apply
 * the same frees at the same point, their free lists are equal, and so are the offsets.
 *
 * Behind the blocks lies the rank's local arena (arena.h). So an address in the heap is one of two
 * kinds: *reachable* is all that peers may be told to write to, *symmetric* only what has the same
 * meaning at the same offset on every rank.
 */
#ifndef IRIS_HEAP_H
#define IRIS_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "device/device.h"
#include "runtime/bootstrap/bootstrap.h"

struct iris_heap;

/* A block's identity and place, equal on all ranks. */
struct iris_block {
    uint64_t id; /* 0: none */
    uint64_t offset;
    uint64_t nbytes; /* as asked for */
};

/* Collective. `reserved` bytes at offset 0 are the caller's and zeroed; `nbytes` more are for
 * blocks, and then `local_nbytes` for the local arena. The device and the bootstrap must outlive
 * all but destroy. */
enum iris_status iris_heap_create(const struct iris_device_ops *ops, struct iris_device *device,
                                  struct iris_bootstrap *bootstrap, int rank, int world_size,
                                  uint64_t reserved, uint64_t nbytes, uint64_t local_nbytes,
                                  struct iris_heap **out);
/* Unmaps everything. Accepts NULL and a half-built heap. */
void iris_heap_destroy(struct iris_heap *heap);

/* After its context has been closed a heap may give its memory back before it is destroyed: the
 * peers' is unmapped by drop_peers; this rank's by the last release, of which there is one more
 * than there were retained. From then on retain returns false, the base addresses are NULL, and
 * nothing but free and the accessors may be called. */
void iris_heap_drop_peers(struct iris_heap *heap);
bool iris_heap_retain_memory(struct iris_heap *heap);
void iris_heap_release_memory(struct iris_heap *heap);

/* Collective; serialised among the rank's threads. See iris_allocation_create for the errors. */
enum iris_status iris_heap_allocate(struct iris_heap *heap, uint64_t nbytes,
                                    struct iris_block *out);
/* Offers the block. Never waits for a peer. */
void iris_heap_free(struct iris_heap *heap, const struct iris_block *block);

/* Not collective; from any thread that has retained the memory. A block of the local arena, whose
 * id is 0. See iris_arena_take. Such a block is freed by free_local, which never waits. */
enum iris_status iris_heap_allocate_local(struct iris_heap *heap, uint64_t nbytes, bool may_wait,
                                          struct iris_block *out);
void iris_heap_free_local(struct iris_heap *heap, const struct iris_block *block);
uint64_t iris_heap_local_used(const struct iris_heap *heap);
uint64_t iris_heap_local_room(const struct iris_heap *heap);

/* Whether the block still exists: it has not been freed by all ranks. The answer changes only
 * inside a collective allocation, and in the same one on all ranks; `iris_heap_generation` changes
 * whenever any block's does. */
bool iris_heap_is_live(struct iris_heap *heap, const struct iris_block *block);
uint64_t iris_heap_generation(struct iris_heap *heap);

char *iris_heap_base(const struct iris_heap *heap, int rank);
/* Bytes of this rank's blocks that it has not freed, rounded. */
uint64_t iris_heap_used(const struct iris_heap *heap);
/* The device that the heap's memory keeps, also when the context is closed. NULL on the cpu, whose
 * functions do not look at it. */
struct iris_device *iris_heap_device(const struct iris_heap *heap);
/* Of this rank's. */
enum iris_memory_kind iris_heap_memory_kind(const struct iris_heap *heap);
/* Of this rank's memory: whether peers may write there when told where it is; and whether it is
 * besides a part of the symmetric heap, at the same offset on all ranks. */
bool iris_heap_is_reachable(const struct iris_heap *heap, const void *data, size_t nbytes);
bool iris_heap_is_symmetric(const struct iris_heap *heap, const void *data, size_t nbytes);

#endif
