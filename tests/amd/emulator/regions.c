/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The regions of this process's memory that kernels may address.
 */
#include <pthread.h>

#include "memory.h"

enum { MAX_REGIONS = 1024 };

struct region {
    uint64_t first, end;
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct region regions[MAX_REGIONS];
static int count;
static uint32_t generation = 1; /* changes when a region goes */

bool region_add(const void *data, size_t nbytes)
{
    const uint64_t first = (uint64_t)(uintptr_t)data;
    bool added;

    pthread_rwlock_wrlock(&lock);
    added = count < MAX_REGIONS;
    if (added)
        regions[count++] = (struct region){first, first + nbytes};
    pthread_rwlock_unlock(&lock);
    return added;
}

bool region_remove(const void *data)
{
    bool found = false;

    pthread_rwlock_wrlock(&lock);
    for (int i = 0; i < count && !found; ++i)
        if (regions[i].first == (uint64_t)(uintptr_t)data) {
            regions[i] = regions[--count];
            __atomic_fetch_add(&generation, 1, __ATOMIC_RELEASE);
            found = true;
        }
    pthread_rwlock_unlock(&lock);
    return found;
}

bool region_has(uint64_t address, uint64_t nbytes)
{
    /* Neighbouring lanes mostly stay in one region. */
    static __thread struct region last;
    static __thread uint32_t seen;

    if (seen == __atomic_load_n(&generation, __ATOMIC_ACQUIRE) && address >= last.first &&
        address + nbytes <= last.end)
        return true;
    pthread_rwlock_rdlock(&lock);
    seen = generation;
    last = (struct region){0, 0};
    for (int i = 0; i < count; ++i)
        if (address >= regions[i].first && address + nbytes <= regions[i].end)
            last = regions[i];
    pthread_rwlock_unlock(&lock);
    return last.end != 0;
}
