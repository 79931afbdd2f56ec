/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "hazards.h"

#include <stdio.h>
#include <string.h>

#include "effects.h"

/* What lies between two instructions, and how many wait states have to. */
struct hazard {
    uint32_t needed;
    const char *what;
};

static void require(struct hazard *h, uint32_t needed, const char *what)
{
    if (needed > h->needed)
        *h = (struct hazard){needed, what};
}

static bool reads(const struct effects *e, struct registers r)
{
    for (uint32_t i = 0; i < e->reads; ++i)
        if (overlap(e->read[i], r))
            return true;
    return false;
}

static bool writes(const struct effects *e, struct registers r)
{
    for (uint32_t i = 0; i < e->writes; ++i)
        if (overlap(e->write[i], r))
            return true;
    return false;
}

/* ---- kinds ---- */

static bool is_fp32(const struct instruction *mfma)
{
    const size_t length = strlen(mfma->name);
    return strcmp(mfma->name + length - 3, "f32") == 0;
}

/* Of four cycles each: SISchedule.td's latencies of the MFMA instructions. */
static uint32_t passes(const struct instruction *mfma, enum architecture arch)
{
    const bool large = strstr(mfma->name, "_32x32x") != NULL;
    const bool full_rate = arch != ARCH_GFX90A && !is_fp32(mfma);

    if (strstr(mfma->name, "_f8f6f4") != NULL) /* of operands of 8 bits */
        return large ? 16 : 8;
    return (large ? 16 : 8) / (full_rate ? 2 : 1);
}

/* SIInstrInfo's isXDL: on gfx942 and gfx950 MFMA of fp32 are not. */
static bool is_xdl(const struct instruction *mfma, enum architecture arch)
{
    return arch == ARCH_GFX90A || !is_fp32(mfma);
}

static bool is_transcendental(const struct instruction *in)
{
    return strncmp(in->name, "v_rcp_", 6) == 0 || strncmp(in->name, "v_rsq_", 6) == 0;
}

static bool selects_lane(const struct instruction *in)
{
    return strcmp(in->name, "v_readlane_b32") == 0 || strcmp(in->name, "v_writelane_b32") == 0;
}

static bool reads_lane(const struct instruction *in)
{
    return strcmp(in->name, "v_readlane_b32") == 0 || strcmp(in->name, "v_readfirstlane_b32") == 0;
}

static struct registers operand_registers(const struct operand *o)
{
    const uint32_t first = o->kind == OPERAND_SCALAR ? FIRST_SCALAR + o->index : o->index;
    const bool is_register = o->kind == OPERAND_SCALAR || o->kind == OPERAND_VECTOR;

    return (struct registers){(uint16_t)first, is_register ? o->registers : 0};
}

/* ---- after MFMA ---- */

static void after_matrix(const struct instruction *from, const struct instruction *to,
                         enum architecture arch, struct hazard *h)
{
    const struct registers result = from->effects.write[0];
    const struct registers addend = operand_registers(&from->operand[3]);
    const bool xdl = is_xdl(from, arch);
    const uint32_t n = passes(from, arch), later = arch == ARCH_GFX950 ? 1 : 0;
    /* checkMAIHazards90A, checkMAIVALUHazards */
    const uint32_t read = arch == ARCH_GFX90A ? n + 3 : xdl ? n + 3 + later : n + 2;

    if (to->effects.unit == UNIT_MATRIX) {
        const struct registers c = operand_registers(&to->operand[3]);
        const bool same = c.first == result.first && c.count == result.count;
        const bool forwarded = arch != ARCH_GFX90A && is_xdl(to, arch) && !xdl;
        if (overlap(operand_registers(&to->operand[1]), result) ||
            overlap(operand_registers(&to->operand[2]), result))
            require(h, read, "MFMA reads A or B that MFMA writes");
        if (overlap(c, result) && !same && !forwarded)
            require(h,
                    arch == ARCH_GFX90A ? n
                    : xdl               ? n + 1 + later
                                        : n,
                    "MFMA reads a part of C that MFMA writes");
        return;
    }
    if (to->effects.unit != UNIT_VECTOR && to->effects.unit != UNIT_MEMORY &&
        to->effects.unit != UNIT_LDS)
        return;
    if (reads(&to->effects, result))
        require(h, read, "a read of what MFMA writes");
    if (writes(&to->effects, result))
        require(h, read, "a write of what MFMA writes");
    if (addend.count != 0 && xdl && writes(&to->effects, addend))
        require(h, n - 1, "a write of C that MFMA reads");
}

/* ---- after other vector instructions ---- */

static void after_vector_result(const struct instruction *from, const struct instruction *to,
                                enum architecture arch, struct registers r, struct hazard *h)
{
    const bool is_read = reads(&to->effects, r);
    const bool vector = to->effects.unit == UNIT_VECTOR;

    if (is_read && to->effects.unit == UNIT_MATRIX)
        require(h, 2, "MFMA reads what a vector instruction writes"); /* checkMAIHazards90A */
    if (arch == ARCH_GFX90A || !is_read)
        return;
    /* checkVALUHazards */
    if ((vector || to->effects.unit == UNIT_MATRIX) && is_transcendental(from) &&
        !is_transcendental(to))
        require(h, 1, "a read of what v_rcp or v_rsq writes");
    if ((vector || to->effects.unit == UNIT_MATRIX) && from->effects.partial)
        require(h, 1, "a read of what is written in part");
    if (reads_lane(to))
        require(h, 1, "a lane is read that a vector instruction writes");
}

static void after_vector_scalar(const struct instruction *to, enum architecture arch,
                                struct registers r, struct hazard *h)
{
    const struct registers exec = {FIRST_SCALAR + EXEC, 2};

    if (overlap(r, exec) && to->effects.unit == UNIT_MATRIX) /* checkMAIHazards90A */
        require(h, 4, "MFMA after a vector instruction writes EXEC");
    if (overlap(r, exec) && arch != ARCH_GFX90A && (reads_lane(to) || selects_lane(to)))
        require(h, 4, "a lane is read or written after a vector instruction writes EXEC");
    if (selects_lane(to) && overlap(operand_registers(&to->operand[2]), r)) /* checkRWLaneHazards */
        require(h, 4, "a lane's number that a vector instruction writes");
    if (!reads(&to->effects, r))
        return;
    if (to->effects.unit == UNIT_MEMORY) /* checkVMEMHazards */
        require(h, 5, "a memory access reads a scalar that a vector instruction writes");
    if (to->effects.unit == UNIT_VECTOR && arch != ARCH_GFX90A) /* checkVALUHazards */
        require(h, 2, "a vector instruction reads a scalar that a vector instruction writes");
}

/* ---- all ---- */

bool hazards_wide_store(const struct instruction *in)
{
    return strncmp(in->name, "global_store", 12) == 0 && in->operand[1].registers > 2;
}

static bool goes_to_lds(const struct instruction *in)
{
    return strncmp(in->name, "global_load_lds_", 16) == 0;
}

static struct hazard hazard_between(const struct instruction *from, const struct instruction *to,
                                    enum architecture arch)
{
    const bool vector = to->effects.unit == UNIT_VECTOR || to->effects.unit == UNIT_MATRIX;
    const struct registers m0 = {FIRST_SCALAR + M0, 1};
    struct hazard h = {0, ""};

    if (from->effects.unit == UNIT_MATRIX)
        after_matrix(from, to, arch, &h);
    for (uint32_t i = 0; from->effects.unit == UNIT_VECTOR && i < from->effects.writes; ++i) {
        const struct registers r = from->effects.write[i];
        if (is_scalar(r))
            after_vector_scalar(to, arch, r, &h);
        else
            after_vector_result(from, to, arch, r, &h);
    }
    /* checkReadM0Hazards */
    if (from->effects.unit == UNIT_SCALAR && goes_to_lds(to) && writes(&from->effects, m0))
        require(&h, 1, "a load to LDS reads m0 that a scalar instruction writes");
    /* checkVALUHazards: createsVALUHazard */
    if (vector && hazards_wide_store(from) &&
        writes(&to->effects, operand_registers(&from->operand[1])))
        require(&h, arch == ARCH_GFX90A ? 1 : 2,
                "a write of what a store of more than 8 bytes reads");
    return h;
}

/* The most wait states that anything after it can need. */
static uint32_t reach(const struct instruction *from)
{
    if (from->effects.unit == UNIT_MATRIX)
        return 20;
    if (hazards_wide_store(from))
        return 2;
    if (from->effects.unit == UNIT_SCALAR)
        return 1;
    return from->effects.unit == UNIT_VECTOR ? 5 : 0;
}

struct search {
    const struct instruction *code, *from;
    uint32_t first, end;
    enum architecture arch;
    char *message;
    size_t message_nbytes;
};

/* The mask whose lanes a branch asks for: s_and_saveexec_b64 _, mask; s_cbranch_execz. */
static struct registers skipped_mask(const struct search *search, uint32_t at)
{
    const struct instruction *before = &search->code[at > search->first ? at - 1 : at];

    if (strcmp(search->code[at].name, "s_cbranch_execz") == 0 &&
        strcmp(before->name, "s_and_saveexec_b64") == 0)
        return operand_registers(&before->operand[1]);
    return (struct registers){0, 0};
}

/* What follows, from code[at] on, `states` wait states after search->from. `empty` is a mask that
 * has left no lane enabled on the way here: the next s_and_saveexec_b64 with it leaves none either,
 * so that the branch after it jumps. */
static bool follows_well(const struct search *search, uint32_t at, uint32_t states,
                         struct registers empty)
{
    const uint32_t limit = reach(search->from);

    for (; at < search->end && states < limit; ++at) {
        const struct instruction *to = &search->code[at];
        const struct hazard h = hazard_between(search->from, to, search->arch);
        if (h.needed > states) {
            (void)snprintf(search->message, search->message_nbytes,
                           "%s at %#x: %u wait states after %s at %#x, of which %u are there: %s",
                           to->name, to->address, h.needed, search->from->name,
                           search->from->address, states, h.what);
            return false;
        }
        states += wait_states(to);
        if (to->ends)
            return true;
        for (uint32_t i = 0; i < to->effects.writes; ++i)
            if (overlap(to->effects.write[i], empty))
                empty.count = 0;
        const struct registers mask = skipped_mask(search, at);
        if (to->jumps && !follows_well(search, to->target, states, mask.count != 0 ? mask : empty))
            return false;
        if (to->jumps && (to->always || (mask.count != 0 && mask.first == empty.first &&
                                         mask.count == empty.count)))
            return true;
    }
    return true;
}

bool hazards_absent(const struct instruction *code, uint32_t first, uint32_t end,
                    enum architecture arch, char *message, size_t message_nbytes)
{
    struct search search = {code, NULL, first, end, arch, message, message_nbytes};

    for (uint32_t i = first; i < end; ++i) {
        search.from = &code[i];
        if (reach(search.from) != 0 && !follows_well(&search, i + 1, 0, (struct registers){0, 0}))
            return false;
    }
    return true;
}
