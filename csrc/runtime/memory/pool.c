/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The local arenas as torch's CUDAPluggableAllocator sees them: exported functions.
 *
 * torch hands an allocating function the size, the device and the stream, but not the pool that it
 * allocates for. So each context whose arena is to be a pool has an allocating function of its own,
 * one of IRIS_MAX_POOLS. Freeing finds the allocation by its address; it keeps the context's memory
 * alive, so that it may come at any time, also after the context has been closed.
 *
 * torch's allocator calls with its lock held, on any thread, with or without the GIL: nothing here
 * waits for either, nor runs handlers of signals. It divides what it gets, and knows which streams
 * use it.
 */
#include <stdlib.h>

#include "base/process.h"
#include "runtime/context.h"
#include "runtime/memory/ownership.h"

enum { MAX_POOLS = 32 };

/* What torch has been given. */
struct segment {
    struct segment *next;
    struct iris_allocation *allocation;
};

static struct segment *segments; /* under the process's lock */

enum iris_status iris_context_pool(struct iris_context *ctx, int *out)
{
    IRIS_TRY(iris_context_check(ctx));
    return iris_context_number_pool(ctx, MAX_POOLS, out);
}

static struct iris_allocation *allocate(struct iris_context *ctx, size_t nbytes, void *stream)
{
    struct iris_allocation *allocation;
    struct segment *segment;

    if (iris_alloc_zeroed(sizeof *segment, (void **)&segment) != IRIS_OK)
        return NULL;
    if (iris_allocation_create_local(ctx, nbytes, stream, &allocation) != IRIS_OK) {
        free(segment);
        return NULL;
    }
    segment->allocation = allocation;
    iris_process_lock();
    segment->next = segments;
    segments = segment;
    iris_process_unlock();
    return allocation;
}

/* NULL: there is no room, which torch reports as OutOfMemoryError. */
static void *give(int number, size_t nbytes, int device, void *stream)
{
    struct iris_context *ctx = iris_context_of_pool(number);
    struct iris_allocation *allocation = NULL;
    struct iris_error saved;

    if (ctx == NULL)
        return NULL;
    iris_error_save(&saved);
    if (device == iris_context_device_id(ctx))
        allocation = allocate(ctx, nbytes, stream);
    iris_error_restore(&saved);
    iris_context_release(ctx); /* the allocation has a reference of its own */
    return allocation != NULL ? iris_allocation_data(allocation) : NULL;
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void iris_c_pool_free(void *address, size_t nbytes, int device, void *stream);

EXPORTED void iris_c_pool_free(void *address, size_t nbytes, int device, void *stream)
{
    struct segment *found = NULL;

    (void)nbytes;
    (void)device;
    (void)stream;
    iris_process_lock();
    for (struct segment **link = &segments; *link != NULL; link = &(*link)->next) {
        if (iris_allocation_data((*link)->allocation) == address) {
            found = *link;
            *link = found->next;
            break;
        }
    }
    iris_process_unlock();
    if (found == NULL)
        return;
    iris_allocation_release(found->allocation);
    free(found);
}

#define POOL(number)                                                                               \
    EXPORTED void *iris_c_pool_allocate_##number(size_t nbytes, int device, void *stream);         \
    EXPORTED void *iris_c_pool_allocate_##number(size_t nbytes, int device, void *stream)          \
    {                                                                                              \
        return give(number, nbytes, device, stream);                                               \
    }
POOL(1)
POOL(2)
POOL(3)
POOL(4)
POOL(5)
POOL(6)
POOL(7)
POOL(8)
POOL(9)
POOL(10)
POOL(11)
POOL(12)
POOL(13)
POOL(14)
POOL(15)
POOL(16)
POOL(17)
POOL(18)
POOL(19)
POOL(20)
POOL(21)
POOL(22)
POOL(23)
POOL(24)
POOL(25)
POOL(26)
POOL(27)
POOL(28)
POOL(29)
POOL(30)
POOL(31)
POOL(32)
