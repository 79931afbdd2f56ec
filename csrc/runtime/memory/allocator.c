/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The free list: ranges in address order, no two of them adjacent.
 */
#include "allocator.h"

#include <stdlib.h>

struct range {
    struct range *next;
    uint64_t offset;
    uint64_t nbytes;
};

struct iris_allocator {
    uint64_t nbytes;
    uint64_t alignment;
    uint64_t free_bytes;
    struct range *free;
    struct iris_allocator_text text;
};

static enum iris_status new_range(uint64_t offset, uint64_t nbytes, struct range *next,
                                  struct range **out)
{
    struct range *range;

    IRIS_TRY(iris_alloc_zeroed(sizeof *range, (void **)&range));
    range->offset = offset;
    range->nbytes = nbytes;
    range->next = next;
    *out = range;
    return IRIS_OK;
}

enum iris_status iris_allocator_create(uint64_t nbytes, uint64_t alignment,
                                       struct iris_allocator_text text, struct iris_allocator **out)
{
    struct iris_allocator *allocator;
    enum iris_status status;

    IRIS_TRY(iris_alloc_zeroed(sizeof *allocator, (void **)&allocator));
    allocator->nbytes = nbytes / alignment * alignment;
    allocator->alignment = alignment;
    allocator->free_bytes = allocator->nbytes;
    allocator->text = text;
    if (allocator->nbytes > 0)
        IRIS_TRY_GOTO(status, new_range(0, allocator->nbytes, NULL, &allocator->free), fail);
    *out = allocator;
    return IRIS_OK;
fail:
    iris_allocator_destroy(allocator);
    return status;
}

void iris_allocator_destroy(struct iris_allocator *allocator)
{
    if (allocator == NULL)
        return;
    while (allocator->free != NULL) {
        struct range *next = allocator->free->next;
        free(allocator->free);
        allocator->free = next;
    }
    free(allocator);
}

uint64_t iris_allocator_rounded(const struct iris_allocator *allocator, uint64_t nbytes)
{
    const uint64_t mask = allocator->alignment - 1;

    if (nbytes == 0)
        return allocator->alignment;
    /* Saturates instead of wrapping to a small number: then no range is large enough. */
    return nbytes > UINT64_MAX - mask ? UINT64_MAX : (nbytes + mask) & ~mask;
}

uint64_t iris_allocator_free_bytes(const struct iris_allocator *allocator)
{
    return allocator->free_bytes;
}

uint64_t iris_allocator_largest(const struct iris_allocator *allocator)
{
    uint64_t largest = 0;

    for (const struct range *range = allocator->free; range != NULL; range = range->next)
        if (range->nbytes > largest)
            largest = range->nbytes;
    return largest;
}

/* The size with which the same takes and gives would have led to a range for this one: first fit
 * places all that came before where it is, and this one at the end. */
static uint64_t size_needed(const struct iris_allocator *allocator, uint64_t nbytes)
{
    enum { STEP = 4096 }; /* of heap_size */
    const uint64_t wanted = iris_allocator_rounded(allocator, nbytes);
    uint64_t used = allocator->nbytes;

    for (const struct range *range = allocator->free; range != NULL; range = range->next)
        if (range->offset + range->nbytes == allocator->nbytes)
            used = range->offset;
    return wanted > UINT64_MAX - used - STEP ? UINT64_MAX
                                             : (used + wanted + STEP - 1) / STEP * STEP;
}

static enum iris_status exhausted(const struct iris_allocator *allocator, uint64_t nbytes)
{
    const uint64_t needed = size_needed(allocator, nbytes);
    struct iris_error *error;

    IRIS_FAIL(IRIS_EHEAP,
              "%s: asked for %llu bytes, %llu of %llu are free, the largest free range has %llu; "
              "%s, to %llu or more, in iris_c.init() (of a group, in ctx.group())",
              allocator->text.name, (unsigned long long)nbytes,
              (unsigned long long)allocator->free_bytes, (unsigned long long)allocator->nbytes,
              (unsigned long long)iris_allocator_largest(allocator), allocator->text.advice,
              (unsigned long long)needed);
    error = iris_error_last();
    error->asked = nbytes;
    error->free = allocator->free_bytes;
    error->heap_size = allocator->nbytes;
    error->needed = needed;
    return IRIS_EHEAP;
}

enum iris_status iris_allocator_take(struct iris_allocator *allocator, uint64_t nbytes,
                                     uint64_t *offset)
{
    const uint64_t wanted = iris_allocator_rounded(allocator, nbytes);

    for (struct range **link = &allocator->free; *link != NULL; link = &(*link)->next) {
        struct range *range = *link;
        if (range->nbytes < wanted)
            continue;
        *offset = range->offset;
        range->offset += wanted;
        range->nbytes -= wanted;
        allocator->free_bytes -= wanted;
        if (range->nbytes == 0) {
            *link = range->next;
            free(range);
        }
        return IRIS_OK;
    }
    return exhausted(allocator, nbytes);
}

enum iris_status iris_allocator_give(struct iris_allocator *allocator, uint64_t offset,
                                     uint64_t nbytes)
{
    const uint64_t size = iris_allocator_rounded(allocator, nbytes);
    struct range *before = NULL, *after = allocator->free, *range;

    while (after != NULL && after->offset < offset) {
        before = after;
        after = after->next;
    }
    if (before != NULL && before->offset + before->nbytes == offset) {
        before->nbytes += size;
        range = before;
    } else {
        IRIS_TRY(new_range(offset, size, after, &range));
        if (before != NULL)
            before->next = range;
        else
            allocator->free = range;
    }
    allocator->free_bytes += size;
    if (after != NULL && range->offset + range->nbytes == after->offset) {
        range->nbytes += after->nbytes;
        range->next = after->next;
        free(after);
    }
    return IRIS_OK;
}
