/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "checks.h"

#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "effects.h"

/* lgkmcnt counts to 15: a wave with more outstanding stands still. */
enum { MAX_LDS_OUTSTANDING = 16, MAX_ACCESSES = 2 * LANES };

enum counter { COUNTER_MEMORY, COUNTER_LDS, COUNTER_SCALAR, COUNTERS };

struct lds_access {
    uint64_t number; /* of its instruction; 0: none */
    uint32_t count;
    bool is_write;
    struct {
        uint32_t address, nbytes;
    } part[MAX_ACCESSES];
};

struct checks {
    uint64_t issued[COUNTERS], complete[COUNTERS];
    /* The last instruction of each kind that writes the register. */
    uint32_t writer[COUNTERS][ALL_REGISTERS];
    uint32_t barriers;
    struct lds_access lds[MAX_LDS_OUTSTANDING];
};

/* Of one byte: who accessed it since which barrier. */
struct byte {
    uint32_t written_at, read_at; /* barriers passed, plus one; 0: never */
    uint16_t readers;             /* bit i: wave i */
    uint8_t writer;
};

bool checks_begin(struct work_group *group)
{
    const struct dispatch *dispatch = group->dispatch;
    const uint32_t lds = dispatch->kernel->lds_nbytes + dispatch->dynamic_lds;

    if (!dispatch->device->checks)
        return true;
    group->races = calloc(lds + 1, sizeof(struct byte));
    for (uint32_t i = 0; i < group->waves; ++i) {
        group->wave[i].checks = calloc(1, sizeof(struct checks));
        if (group->wave[i].checks == NULL)
            return false;
    }
    return group->races != NULL;
}

void checks_end(struct work_group *group)
{
    for (uint32_t i = 0; group->wave != NULL && i < group->waves; ++i)
        free(group->wave[i].checks);
    free(group->races);
    group->races = NULL;
}

/* ---- waits ---- */

static const char *const wait_names[COUNTERS] = {"vmcnt", "lgkmcnt", "lgkmcnt(0)"};

static bool is_idle(const struct checks *c)
{
    return memcmp(c->issued, c->complete, sizeof c->issued) == 0;
}

/* False if one of the registers will be written by an instruction that is not complete. `but` is a
 * counter whose instructions do not matter. */
static bool is_there(struct wave *w, struct registers r, int but, const char *what)
{
    const struct checks *c = w->checks;
    char name[8];

    for (int k = 0; k < COUNTERS; ++k)
        for (uint32_t i = r.first; k != but && i < (uint32_t)r.first + r.count; ++i)
            if (c->writer[k][i] > c->complete[k]) {
                fault(w, "it %s %s before %s has been waited for", what, register_name(i, name),
                      wait_names[k]);
                return false;
            }
    return true;
}

static int counter_of(const struct instruction *in)
{
    switch (in->effects.unit) {
    case UNIT_MEMORY:
        return COUNTER_MEMORY;
    case UNIT_LDS:
        return COUNTER_LDS;
    case UNIT_SCALAR_MEMORY:
        return COUNTER_SCALAR;
    default:
        return -1;
    }
}

bool checks_issue(struct wave *w, const struct instruction *in)
{
    struct checks *c = w->checks;
    const struct effects *e = &in->effects;
    const int counter = counter_of(in);
    /* Scalar loads complete in any order, so that two of one register leave either's value. */
    const int in_order = counter == COUNTER_SCALAR ? -1 : counter;

    if (!is_idle(c)) {
        for (uint32_t i = 0; i < e->reads; ++i)
            if (!is_there(w, e->read[i], -1, "reads"))
                return false;
        for (uint32_t i = 0; i < e->writes; ++i)
            if (!is_there(w, e->write[i], in_order, "writes"))
                return false;
    }
    if (counter < 0)
        return true;
    ++c->issued[counter];
    for (uint32_t i = 0; i < e->writes; ++i)
        for (uint32_t k = 0; k < e->write[i].count; ++k)
            c->writer[counter][e->write[i].first + k] = (uint32_t)c->issued[counter];
    if (counter == COUNTER_LDS) {
        struct lds_access *access = &c->lds[c->issued[counter] % MAX_LDS_OUTSTANDING];
        access->number = c->issued[counter];
        access->count = 0;
    }
    return true;
}

static void complete(struct checks *c, enum counter k, uint32_t outstanding)
{
    if (c->issued[k] > outstanding && c->issued[k] - outstanding > c->complete[k])
        c->complete[k] = c->issued[k] - outstanding;
}

void checks_wait(struct wave *w, int32_t vmcnt, int32_t lgkmcnt)
{
    struct checks *c = w->checks;

    if (c == NULL)
        return;
    if (vmcnt >= 0)
        complete(c, COUNTER_MEMORY, (uint32_t)vmcnt);
    if (lgkmcnt >= 0)
        complete(c, COUNTER_LDS, (uint32_t)lgkmcnt);
    if (lgkmcnt == 0)
        complete(c, COUNTER_SCALAR, 0);
}

/* ---- races ---- */

/* Marks the bytes; false with a fault if another wave has accessed one since the last barrier. */
static bool mark(struct wave *w, uint32_t address, uint32_t nbytes, const uint8_t *written,
                 bool is_write)
{
    const uint32_t now = w->checks->barriers + 1, number = (uint32_t)(w - w->group->wave);
    struct byte *bytes = (struct byte *)w->group->races + address;

    for (uint32_t i = 0; i < nbytes; ++i) {
        struct byte *b = &bytes[i];
        const bool same = written != NULL && w->group->lds[address + i] == written[i];
        const bool after_write = b->written_at == now && b->writer != number;
        const bool after_read = b->read_at == now && (b->readers & ~(1u << number)) != 0;
        if (!same && (after_write || (is_write && after_read))) {
            fault(w, "wave %u %s byte %#x of LDS, which wave %u %s, with no barrier between",
                  number, is_write ? "writes" : "reads", address + i,
                  after_write ? b->writer : (uint32_t)__builtin_ctz(b->readers & ~(1u << number)),
                  after_write ? "writes" : "reads");
            return false;
        }
        if (is_write && !same) {
            b->written_at = now;
            b->writer = (uint8_t)number;
        } else if (!is_write) {
            b->readers = (uint16_t)((b->read_at == now ? b->readers : 0) | 1u << number);
            b->read_at = now;
        }
    }
    return true;
}

void checks_lds(struct wave *w, uint32_t address, uint32_t nbytes, const void *written)
{
    struct checks *c = w->checks;

    if (c == NULL || !mark(w, address, nbytes, written, written != NULL))
        return;
    struct lds_access *access = &c->lds[c->issued[COUNTER_LDS] % MAX_LDS_OUTSTANDING];
    access->is_write = written != NULL;
    access->part[access->count].address = address;
    access->part[access->count++].nbytes = nbytes;
}

void checks_direct(struct wave *w, uint32_t address, uint32_t nbytes)
{
    if (w->checks != NULL)
        (void)mark(w, address, nbytes, NULL, true);
}

void checks_barrier(struct wave *w)
{
    struct checks *c = w->checks;

    if (c == NULL)
        return;
    ++c->barriers;
    for (uint32_t i = 0; i < MAX_LDS_OUTSTANDING; ++i)
        for (uint32_t k = 0; c->lds[i].number > c->complete[COUNTER_LDS] && k < c->lds[i].count;
             ++k)
            if (!mark(w, c->lds[i].part[k].address, c->lds[i].part[k].nbytes, NULL,
                      c->lds[i].is_write))
                return;
}

/* ---- scalar loads ---- */

static bool within(uint64_t address, uint32_t nbytes, const void *first, uint64_t size)
{
    const uint64_t start = (uint64_t)(uintptr_t)first;
    return address >= start && address + nbytes <= start + size;
}

bool checks_scalar_load(struct wave *w, uint64_t address, uint32_t nbytes)
{
    const struct dispatch *d = w->group->dispatch;

    /* A load may reach beyond the last argument, to the segment's end. */
    if (w->checks == NULL ||
        within(address, nbytes, d->kernarg, (uint64_t)(d->kernel->kernarg_nbytes + 63) / 64 * 64) ||
        within(address, nbytes, d->packet, sizeof *d->packet) ||
        within(address, nbytes, d->program->image, d->program->image_nbytes))
        return true;
    fault(w, "a scalar load of %u bytes that are neither arguments nor constants", nbytes);
    return false;
}
