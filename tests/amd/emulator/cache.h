/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A cache of unlimited size: lines with a valid and a dirty bit for every byte.
 */
#ifndef EMULATOR_CACHE_H
#define EMULATOR_CACHE_H

#include <stdbool.h>
#include <stdint.h>

enum { LINE_NBYTES = 128 };

struct line {
    struct line *next;
    uint64_t tag;     /* address / LINE_NBYTES */
    uint64_t dirtied; /* clock of the oldest dirty byte's store; 0: none */
    bool valid[LINE_NBYTES], dirty[LINE_NBYTES];
    uint8_t data[LINE_NBYTES];
};

struct cache;

struct cache *cache_new(void);
void cache_free(struct cache *cache);

/* NULL if there is none. */
struct line *cache_find(struct cache *cache, uint64_t address);
struct line *cache_line(struct cache *cache, uint64_t address);
void cache_drop(struct cache *cache, uint64_t address);

/* Counts stores. */
uint64_t cache_clock(const struct cache *cache);
/* Bytes of one line. */
void cache_store(struct cache *cache, uint64_t address, const void *from, uint32_t nbytes);
/* Writes lines to memory that have been dirty since `clock` or before. */
void cache_write_back(struct cache *cache, uint64_t clock);
/* The same of one in so many dirty lines, by chance. */
void cache_evict(struct cache *cache, uint32_t one_in, uint32_t *random);
/* Drops all copies that are not dirty. */
void cache_invalidate(struct cache *cache);

/* A small generator; `state` is not 0. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
