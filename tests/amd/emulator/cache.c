/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024 };

struct cache {
    uint64_t clock;
    struct line *bucket[BUCKETS];
};

struct cache *cache_new(void)
{
    return calloc(1, sizeof(struct cache));
}

void cache_free(struct cache *cache)
{
    for (int i = 0; cache != NULL && i < BUCKETS; ++i)
        while (cache->bucket[i] != NULL) {
            struct line *line = cache->bucket[i];
            cache->bucket[i] = line->next;
            free(line);
        }
    free(cache);
}

static struct line **place(struct cache *cache, uint64_t tag)
{
    struct line **at = &cache->bucket[tag % BUCKETS];
    while (*at != NULL && (*at)->tag != tag)
        at = &(*at)->next;
    return at;
}

struct line *cache_find(struct cache *cache, uint64_t address)
{
    return *place(cache, address / LINE_NBYTES);
}

struct line *cache_line(struct cache *cache, uint64_t address)
{
    struct line **at = place(cache, address / LINE_NBYTES);
    if (*at == NULL) {
        *at = calloc(1, sizeof **at);
        if (*at == NULL)
            abort();
        (*at)->tag = address / LINE_NBYTES;
    }
    return *at;
}

void cache_drop(struct cache *cache, uint64_t address)
{
    struct line **at = place(cache, address / LINE_NBYTES), *line = *at;
    if (line == NULL)
        return;
    *at = line->next;
    free(line);
}

uint64_t cache_clock(const struct cache *cache)
{
    return cache->clock;
}

void cache_store(struct cache *cache, uint64_t address, const void *from, uint32_t nbytes)
{
    struct line *line = cache_line(cache, address);
    const uint32_t first = (uint32_t)(address % LINE_NBYTES);

    memcpy(line->data + first, from, nbytes);
    memset(line->valid + first, true, nbytes);
    memset(line->dirty + first, true, nbytes);
    ++cache->clock;
    if (line->dirtied == 0)
        line->dirtied = cache->clock;
}

static void write_line(struct line *line)
{
    uint8_t *memory = (uint8_t *)(uintptr_t)(line->tag * LINE_NBYTES);

    for (int i = 0; i < LINE_NBYTES; ++i)
        if (line->dirty[i])
            __atomic_store_n(memory + i, line->data[i], __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memset(line->dirty, false, sizeof line->dirty);
    line->dirtied = 0;
}

#define FOR_EACH_DIRTY_LINE(cache, line)                                                           \
    for (int i = 0; i < BUCKETS; ++i)                                                              \
        for (struct line *line = (cache)->bucket[i]; line != NULL; line = line->next)              \
            if (line->dirtied != 0)

void cache_write_back(struct cache *cache, uint64_t clock)
{
    FOR_EACH_DIRTY_LINE(cache, line)
    if (line->dirtied <= clock)
        write_line(line);
}

void cache_evict(struct cache *cache, uint32_t one_in, uint32_t *random)
{
    FOR_EACH_DIRTY_LINE(cache, line)
    if (next_random(random) % one_in == 0)
        write_line(line);
}

void cache_invalidate(struct cache *cache)
{
    for (int i = 0; i < BUCKETS; ++i)
        for (struct line **at = &cache->bucket[i]; *at != NULL;) {
            struct line *line = *at;
            if (line->dirtied == 0) {
                *at = line->next;
                free(line);
                continue;
            }
            memcpy(line->valid, line->dirty, sizeof line->valid);
            at = &line->next;
        }
}
