/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * An offset allocator: hands out ranges of [0, nbytes) and takes them back; touches no memory of
 * the range itself. Manages the symmetric heap and the local arena. First fit over an
 * address-ordered, coalescing free list, so its state depends only on which ranges are taken, not
 * on the order in which others were given back: ranks that apply the same allocations and frees get
 * the same offsets. Not thread-safe.
 */
#ifndef IRIS_ALLOCATOR_H
#define IRIS_ALLOCATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct iris_allocator;

/* What messages call the memory, and what they say to do when there is no room: static texts. */
struct iris_allocator_text {
    const char *name, *advice;
};

/* Offsets and sizes are multiples of `alignment`, a power of two. */
enum iris_status iris_allocator_create(uint64_t nbytes, uint64_t alignment,
                                       struct iris_allocator_text text,
                                       struct iris_allocator **out);
void iris_allocator_destroy(struct iris_allocator *allocator); /* NULL is fine */

/* IRIS_EHEAP with asked, free and heap_size when no free range is large enough; IRIS_ENOMEM when
 * the host is out of memory. nbytes 0 takes the smallest range. */
enum iris_status iris_allocator_take(struct iris_allocator *allocator, uint64_t nbytes,
                                     uint64_t *offset);
/* Gives back what take returned; `nbytes` as it was asked for. */
enum iris_status iris_allocator_give(struct iris_allocator *allocator, uint64_t offset,
                                     uint64_t nbytes);

/* What a range of `nbytes` really takes. */
uint64_t iris_allocator_rounded(const struct iris_allocator *allocator, uint64_t nbytes);
uint64_t iris_allocator_free_bytes(const struct iris_allocator *allocator);
/* Of the largest range that can be taken. */
uint64_t iris_allocator_largest(const struct iris_allocator *allocator);

#endif
