/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "direct.h"

#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "dispatch.h"
#include "memory.h"

enum { NBYTES = 16 };

struct direct_load {
    struct direct_load *next;
    uint64_t sequence, lanes;
    uint32_t address; /* in LDS, of lane 0 */
    uint8_t data[LANES][NBYTES];
};

static bool has_lane(const struct direct_load *load, uint32_t lane)
{
    return load->lanes >> lane & 1;
}

static void arrive(struct wave *w, struct direct_load *load)
{
    for (uint32_t l = 0; l < LANES; ++l)
        if (has_lane(load, l)) {
            checks_direct(w, load->address + NBYTES * l, NBYTES);
            memcpy(w->group->lds + load->address + NBYTES * l, load->data[l], NBYTES);
        }
    free(load);
}

void direct_wait(struct wave *w, uint32_t outstanding)
{
    while (w->first_direct != NULL && w->issued >= outstanding &&
           w->first_direct->sequence <= w->issued - outstanding) {
        struct direct_load *load = w->first_direct;
        w->first_direct = load->next;
        arrive(w, load);
    }
}

void direct_end(struct work_group *group)
{
    for (uint32_t i = 0; group->wave != NULL && i < group->waves; ++i)
        while (group->wave[i].first_direct != NULL) {
            struct direct_load *load = group->wave[i].first_direct;
            group->wave[i].first_direct = load->next;
            free(load);
        }
}

/* To LDS at m0 and the instruction's offset, lane after lane; from a scalar base and an offset in a
 * vector register. */
static void global_load_lds_dwordx4(struct wave *w, const struct instruction *in)
{
    const struct dispatch *dispatch = w->group->dispatch;
    const uint32_t room = dispatch->kernel->lds_nbytes + dispatch->dynamic_lds;
    const uint32_t first = w->s[M0] + (uint32_t)in->offset[0];
    struct direct_load *load;

    if (in->operand[1].kind != OPERAND_SCALAR) {
        fault(w, "an address that the emulator does not know");
        return;
    }
    if (first % NBYTES != 0 || first > room || room - first < NBYTES * LANES) {
        fault(w, "%u bytes at %#x of %u bytes of LDS", NBYTES * LANES, first, room);
        return;
    }
    load = calloc(1, sizeof *load);
    if (load == NULL)
        abort();
    memory_issued(w);
    load->sequence = w->issued;
    load->lanes = exec_mask(w);
    load->address = first;
    for (uint32_t l = 0; l < LANES; ++l)
        if (has_lane(load, l)) {
            checks_direct(w, first + NBYTES * l, NBYTES);
            memory_load(w,
                        scalar64(w, &in->operand[1]) + w->v[in->operand[0].index][l] +
                            (uint64_t)(int64_t)in->offset[0],
                        load->data[l], NBYTES, in->bits);
        }
    if (load->sequence % 2 != 0) {
        arrive(w, load);
        return;
    }
    if (w->first_direct == NULL)
        w->first_direct = load;
    else
        w->last_direct->next = load;
    w->last_direct = load;
}

const struct operation direct_operations[] = {
    {"global_load_lds_dwordx4", global_load_lds_dwordx4, 2, OPERAND_VECTOR},
    {NULL, NULL, 0, OPERAND_NONE},
};
