/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The local arena: the end of this rank's heap, out of which the rank allocates without its peers.
 * They reach it as they reach the rest of the heap, but what is where in it only this rank knows.
 *
 * Memory that is given back may still be used by work that was launched before. Where launches
 * return before they are complete, it is therefore set aside, and used again after the device has
 * been waited for, which happens when nothing else is left.
 */
#ifndef IRIS_ARENA_H
#define IRIS_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "device/device.h"

struct iris_arena;

/* Of `nbytes`; 0: nothing fits in. */
enum iris_status iris_arena_create(const struct iris_device_ops *ops, uint64_t nbytes,
                                   struct iris_arena **out);
void iris_arena_destroy(struct iris_arena *arena); /* NULL is fine */

/* An offset in the arena; from any thread. IRIS_EHEAP: no room. `device` is waited for where that
 * makes room, unless `may_wait` is false, as it is while a stream is being captured. */
enum iris_status iris_arena_take(struct iris_arena *arena, struct iris_device *device,
                                 uint64_t nbytes, bool may_wait, uint64_t *offset);
/* Gives back what take returned; never waits. */
void iris_arena_give(struct iris_arena *arena, uint64_t offset, uint64_t nbytes);

/* Bytes that are taken, rounded. */
uint64_t iris_arena_used(const struct iris_arena *arena);
/* The most that can be taken now in one piece, without a wait. */
uint64_t iris_arena_room(struct iris_arena *arena);

#endif
