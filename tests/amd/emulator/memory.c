/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Both modes of memory; memory.h says what they allow.
 */
#include "memory.h"

#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "dispatch.h"

struct pending_store {
    struct pending_store *next;
    uint64_t address, sequence;
    uint32_t nbytes;
    bool past_l2;
    uint8_t data[16];
};

static struct device *device_of(const struct wave *w)
{
    return w->group->dispatch->device;
}

static struct cache *l2_of(const struct wave *w)
{
    struct device *device = device_of(w);
    return device->l2[w->group->index % device->dies];
}

static bool by_chance(const struct wave *w, uint32_t one_in)
{
    return next_random(&device_of(w)->random) % one_in == 0;
}

/* ---- memory itself: single copies of aligned words of up to eight bytes, so that a peer never
 * sees half of one; of longer accesses it sees any part first ---- */

enum { WORD_NBYTES = 8 };

static void read_memory(uint64_t address, void *to, uint32_t nbytes)
{
    const void *from = (const void *)(uintptr_t)address;

    if (nbytes == 4 && address % 4 == 0) {
        const uint32_t value = __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE);
        memcpy(to, &value, sizeof value);
    } else if (nbytes == 8 && address % 8 == 0) {
        const uint64_t value = __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE);
        memcpy(to, &value, sizeof value);
    } else if (nbytes > WORD_NBYTES && address % WORD_NBYTES == 0) {
        read_memory(address + WORD_NBYTES, (uint8_t *)to + WORD_NBYTES, nbytes - WORD_NBYTES);
        read_memory(address, to, WORD_NBYTES);
    } else {
        memcpy(to, from, nbytes);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    }
}

static void write_memory(uint64_t address, const void *from, uint32_t nbytes)
{
    void *to = (void *)(uintptr_t)address;

    if (nbytes == 4 && address % 4 == 0) {
        uint32_t value;
        memcpy(&value, from, sizeof value);
        __atomic_store_n((uint32_t *)to, value, __ATOMIC_RELEASE);
    } else if (nbytes == 8 && address % 8 == 0) {
        uint64_t value;
        memcpy(&value, from, sizeof value);
        __atomic_store_n((uint64_t *)to, value, __ATOMIC_RELEASE);
    } else if (nbytes > WORD_NBYTES && address % WORD_NBYTES == 0) {
        /* In the same order as it is read: either half may be found new and the other old. */
        write_memory(address + WORD_NBYTES, (const uint8_t *)from + WORD_NBYTES,
                     nbytes - WORD_NBYTES);
        write_memory(address, from, WORD_NBYTES);
    } else {
        __atomic_thread_fence(__ATOMIC_RELEASE);
        memcpy(to, from, nbytes);
    }
}

/* ---- pending stores ---- */

/* The stores of a group that wait, per hash of their line: most loads need not look. */
static uint32_t *waiting(const struct work_group *group, uint64_t address)
{
    return &group->dispatch->waiting[group->index][address / LINE_NBYTES % WAITING_BUCKETS];
}

static void drop_bytes(struct cache *cache, uint64_t address, uint32_t nbytes)
{
    struct line *line = cache_find(cache, address);
    if (line == NULL)
        return;
    memset(line->valid + address % LINE_NBYTES, false, nbytes);
    memset(line->dirty + address % LINE_NBYTES, false, nbytes);
}

static void let_go(struct wave *w, const struct pending_store *store)
{
    if (store->past_l2) {
        drop_bytes(l2_of(w), store->address, store->nbytes);
        write_memory(store->address, store->data, store->nbytes);
    } else {
        cache_store(l2_of(w), store->address, store->data, store->nbytes);
    }
    --*waiting(w->group, store->address);
}

/* Those of the wave that `leaves` holds for, in order. */
#define LET_GO_IF(w, leaves)                                                                       \
    do {                                                                                           \
        struct pending_store **at = &(w)->first_pending;                                           \
        (w)->last_pending = NULL;                                                                  \
        while (*at != NULL) {                                                                      \
            struct pending_store *store = *at;                                                     \
            if (leaves) {                                                                          \
                let_go(w, store);                                                                  \
                *at = store->next;                                                                 \
                free(store);                                                                       \
            } else {                                                                               \
                (w)->last_pending = store;                                                         \
                at = &store->next;                                                                 \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* Accesses of a group to one line stay in order. */
static void settle_line(struct wave *w, uint64_t address)
{
    if (*waiting(w->group, address) == 0)
        return;
    for (uint32_t i = 0; i < w->group->waves; ++i) {
        struct wave *other = &w->group->wave[i];
        LET_GO_IF(other, store->address / LINE_NBYTES == address / LINE_NBYTES);
    }
}

static void store_later(struct wave *w, uint64_t address, const void *from, uint32_t nbytes,
                        uint32_t bits)
{
    const struct device *device = device_of(w);
    const bool past_l2 = device->gfx90a ? by_chance(w, 2) : (bits & BITS_SYSTEM) == BITS_SYSTEM;
    struct pending_store *store = malloc(sizeof *store);

    if (store == NULL)
        abort();
    settle_line(w, address);
    cache_drop(w->group->l1, address);
    *store = (struct pending_store){
        .address = address, .sequence = w->issued, .nbytes = nbytes, .past_l2 = past_l2};
    memcpy(store->data, from, nbytes);
    ++*waiting(w->group, address);
    /* What goes past L2 mostly goes at once: signals are early, data is late. */
    if (past_l2 && !by_chance(w, 4)) {
        let_go(w, store);
        free(store);
        w->yields = true;
        return;
    }
    if (w->last_pending != NULL)
        w->last_pending->next = store;
    else
        w->first_pending = store;
    w->last_pending = store;
}

/* ---- loads through the caches ---- */

static void load_past_l2(struct wave *w, uint64_t address, uint8_t *to, uint32_t nbytes)
{
    const struct line *line = cache_find(l2_of(w), address);

    read_memory(address, to, nbytes);
    for (uint32_t i = 0; line != NULL && i < nbytes; ++i)
        if (line->dirty[address % LINE_NBYTES + i])
            to[i] = line->data[address % LINE_NBYTES + i];
}

/* The line, with a copy of memory in what it does not hold. */
static const struct line *filled_line(struct cache *cache, uint64_t address)
{
    struct line *line = cache_line(cache, address);
    uint8_t memory[LINE_NBYTES];

    if (memchr(line->valid, 0, sizeof line->valid) != NULL) {
        for (int i = 0; i < LINE_NBYTES; i += 8)
            read_memory(line->tag * LINE_NBYTES + (uint64_t)i, memory + i, 8);
        for (int i = 0; i < LINE_NBYTES; ++i)
            line->data[i] = line->valid[i] ? line->data[i] : memory[i];
        memset(line->valid, true, sizeof line->valid);
    }
    return line;
}

static void load_l2(struct wave *w, uint64_t address, uint8_t *to, uint32_t nbytes)
{
    struct device *device = device_of(w);
    const struct line *line = filled_line(l2_of(w), address);

    memcpy(to, line->data + address % LINE_NBYTES, nbytes);
    device->history[device->remembered++ % HISTORY] = line->tag * LINE_NBYTES;
}

static void load_l1(struct wave *w, uint64_t address, uint8_t *to, uint32_t nbytes)
{
    struct line *line = cache_line(w->group->l1, address);

    if (!line->valid[0]) {
        load_l2(w, line->tag * LINE_NBYTES, line->data, LINE_NBYTES);
        memset(line->valid, true, sizeof line->valid);
    }
    memcpy(to, line->data + address % LINE_NBYTES, nbytes);
}

static void load_cached(struct wave *w, uint64_t address, uint8_t *to, uint32_t nbytes,
                        uint32_t bits)
{
    const bool gfx90a = device_of(w)->gfx90a;
    const bool past_l1 = gfx90a ? bits & BIT_SC0 : bits & BIT_SC1;
    const bool past_l2 = gfx90a ? past_l1 : (bits & BITS_SYSTEM) == BITS_SYSTEM;
    const uint64_t line = address / LINE_NBYTES * LINE_NBYTES;

    settle_line(w, address);
    if (past_l2 || !region_has(line, LINE_NBYTES))
        load_past_l2(w, address, to, nbytes);
    else if (past_l1)
        load_l2(w, address, to, nbytes);
    else
        load_l1(w, address, to, nbytes);
}

/* ---- what instructions call ---- */

/* Calls `access` for the parts of [address, address + nbytes) that lie in one line. */
#define FOR_EACH_LINE(part_address, part_at, part_nbytes, access)                                  \
    for (uint32_t part_at = 0, part_nbytes; part_at < nbytes; part_at += part_nbytes) {            \
        const uint64_t part_address = address + part_at;                                           \
        const uint32_t rest = LINE_NBYTES - (uint32_t)(part_address % LINE_NBYTES);                \
        part_nbytes = nbytes - part_at < rest ? nbytes - part_at : rest;                           \
        access;                                                                                    \
    }

static bool may_access(struct wave *w, uint64_t address, uint32_t nbytes)
{
    if (region_has(address, nbytes))
        return true;
    fault(w, "%u bytes at %#llx are no memory of the device", nbytes, (unsigned long long)address);
    return false;
}

void memory_load(struct wave *w, uint64_t address, void *to, uint32_t nbytes, uint32_t bits)
{
    memset(to, 0, nbytes);
    if (!may_access(w, address, nbytes))
        return;
    if (!device_of(w)->adversarial) {
        read_memory(address, to, nbytes);
        return;
    }
    FOR_EACH_LINE(at, i, n, load_cached(w, at, (uint8_t *)to + i, n, bits))
}

void memory_store(struct wave *w, uint64_t address, const void *from, uint32_t nbytes,
                  uint32_t bits)
{
    if (!may_access(w, address, nbytes))
        return;
    ++w->group->dispatch->progress;
    if (!device_of(w)->adversarial) {
        write_memory(address, from, nbytes);
        return;
    }
    FOR_EACH_LINE(at, i, n, store_later(w, at, (const uint8_t *)from + i, n, bits))
}

void memory_load_scalar(struct wave *w, uint64_t address, void *to, uint32_t nbytes)
{
    memset(to, 0, nbytes);
    if (may_access(w, address, nbytes))
        memcpy(to, (const void *)(uintptr_t)address, nbytes);
}

static uint64_t applied(enum atomic kind, uint64_t before, uint64_t value, uint64_t expected)
{
    switch (kind) {
    case ATOMIC_ADD:
        return before + value;
    case ATOMIC_OR:
        return before | value;
    case ATOMIC_SWAP:
        return value;
    default:
        return before == expected ? value : before;
    }
}

static uint64_t atomic_in_memory(enum atomic kind, uint64_t address, uint64_t value,
                                 uint64_t expected, uint32_t nbytes)
{
    uint64_t before = 0;

    if (nbytes == 4) {
        uint32_t *word = (uint32_t *)(uintptr_t)address, seen = *word;
        while (!__atomic_compare_exchange_n(word, &seen,
                                            (uint32_t)applied(kind, seen, value, expected), false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
        return seen;
    }
    uint64_t *word = (uint64_t *)(uintptr_t)address;
    before = *word;
    while (!__atomic_compare_exchange_n(word, &before, applied(kind, before, value, expected),
                                        false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return before;
}

uint64_t memory_atomic(struct wave *w, enum atomic kind, uint64_t address, uint64_t value,
                       uint64_t expected, uint32_t nbytes, uint32_t bits)
{
    const struct device *device = device_of(w);
    uint64_t before = 0, after;

    if (address % nbytes != 0) {
        fault(w, "an atomic access of %u bytes at %#llx", nbytes, (unsigned long long)address);
        return 0;
    }
    if (!may_access(w, address, nbytes))
        return 0;
    ++w->group->dispatch->progress;
    if (!device->adversarial)
        return atomic_in_memory(kind, address, value, expected, nbytes);
    settle_line(w, address);
    cache_drop(w->group->l1, address);
    if (device->gfx90a || bits & BIT_SC1) {
        load_past_l2(w, address, (uint8_t *)&before, nbytes);
        if (cache_find(l2_of(w), address) != NULL) {
            /* this die's own stores to the word come before */
            write_memory(address, &before, nbytes);
            drop_bytes(l2_of(w), address, nbytes);
        }
        return atomic_in_memory(kind, address, value, expected, nbytes);
    }
    load_l2(w, address, (uint8_t *)&before, nbytes);
    after = applied(kind, before, value, expected);
    cache_store(l2_of(w), address, &after, nbytes);
    return before;
}

void memory_issued(struct wave *w)
{
    ++w->issued;
}

void memory_wait(struct wave *w, uint32_t outstanding)
{
    if (!device_of(w)->adversarial || w->issued < outstanding)
        return;
    const uint64_t complete = w->issued - outstanding;
    LET_GO_IF(w, store->sequence <= complete);
    if (w->write_back_issued != 0 && w->write_back_issued <= complete) {
        cache_write_back(l2_of(w), w->write_back_until);
        w->write_back_issued = 0;
    }
}

void memory_write_back(struct wave *w)
{
    if (!device_of(w)->adversarial)
        return;
    LET_GO_IF(w, true);
    w->write_back_until = cache_clock(l2_of(w));
    w->write_back_issued = w->issued;
}

void memory_invalidate_l1(struct wave *w)
{
    if (device_of(w)->adversarial)
        cache_invalidate(w->group->l1);
}

void memory_invalidate_l2(struct wave *w)
{
    if (device_of(w)->adversarial)
        cache_invalidate(l2_of(w));
}

void memory_stir(struct wave *w)
{
    if (!device_of(w)->adversarial)
        return;
    const bool rests = w->state == WAVE_ENDED || w->state == WAVE_AT_BARRIER;
    if (by_chance(w, rests ? 64 : 16))
        LET_GO_IF(w, by_chance(w, 4));
    if (device_of(w)->evicts && by_chance(w, 16))
        cache_evict(l2_of(w), 8, &device_of(w)->random);
}

void memory_idle(struct device *device)
{
    for (uint32_t die = 0; device->evicts && device->adversarial && die < device->dies; ++die)
        cache_evict(device->l2[die], 4, &device->random);
}

/* ---- launches and devices ---- */

bool memory_begin(struct work_group *group)
{
    if (!group->dispatch->device->adversarial)
        return true;
    group->l1 = cache_new();
    return group->l1 != NULL;
}

void memory_end(struct work_group *group)
{
    for (uint32_t i = 0; group->l1 != NULL && i < group->waves; ++i)
        LET_GO_IF(&group->wave[i], true);
    cache_free(group->l1);
    group->l1 = NULL;
}

bool memory_open(struct device *device)
{
    bool made = true;

    for (uint32_t die = 0; device->adversarial && die < device->dies; ++die) {
        device->l2[die] = cache_new();
        made = made && device->l2[die] != NULL;
    }
    return made;
}

void memory_close(struct device *device)
{
    for (uint32_t die = 0; die < MAX_DIES; ++die)
        cache_free(device->l2[die]);
}

void memory_release(struct device *device)
{
    for (uint32_t die = 0; device->adversarial && die < device->dies; ++die)
        cache_write_back(device->l2[die], UINT64_MAX);
}

void memory_acquire(struct device *device)
{
    const uint64_t known = device->remembered < HISTORY ? device->remembered : HISTORY;

    memory_release(device);
    for (uint32_t die = 0; device->adversarial && die < device->dies; ++die) {
        cache_invalidate(device->l2[die]);
        for (uint64_t i = 0; i < known; ++i)
            if (region_has(device->history[i], LINE_NBYTES))
                (void)filled_line(device->l2[die], device->history[i]);
    }
}
