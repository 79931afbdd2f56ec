/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "effects.h"

#include <stdio.h>
#include <string.h>

#include "machine.h"

static bool starts(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool starts_with_one(const char *name, const char *const *prefixes)
{
    for (; *prefixes != NULL; ++prefixes)
        if (starts(name, *prefixes))
            return true;
    return false;
}

static enum unit unit_of(const char *name)
{
    static const char *const control[] = {"s_waitcnt", "s_nop",   "s_barrier", "s_branch",
                                          "s_cbranch", "s_sleep", "s_endpgm",  NULL};
    static const char *const memory[] = {"global_", "buffer_load_", "buffer_wbl2", NULL};
    static const char *const scalar_memory[] = {"s_load_", "s_memrealtime", NULL};

    if (starts_with_one(name, control))
        return UNIT_NONE;
    if (starts_with_one(name, scalar_memory))
        return UNIT_SCALAR_MEMORY;
    if (starts(name, "s_"))
        return UNIT_SCALAR;
    if (starts(name, "v_mfma_"))
        return UNIT_MATRIX;
    if (starts(name, "v_"))
        return UNIT_VECTOR;
    if (starts(name, "ds_"))
        return UNIT_LDS;
    /* Invalidates are counted by nothing, write-backs are. */
    return starts_with_one(name, memory) ? UNIT_MEMORY : UNIT_NONE;
}

static uint32_t destinations(const struct instruction *in)
{
    static const char *const none[] = {"s_cmp",    "s_bitcmp", "global_store", "global_load_lds_",
                                       "ds_write", NULL};
    static const char *const two[] = {"v_add_co_",     "v_sub_co_",     "v_subrev_co_",
                                      "v_addc_co_",    "v_subb_co_",    "v_subbrev_co_",
                                      "v_mad_u64_u32", "v_mad_i64_i32", NULL};

    if (in->operands == 0 || starts_with_one(in->name, none))
        return 0;
    if (starts(in->name, "global_atomic"))
        return in->bits & BIT_SC0 ? 1 : 0;
    return starts_with_one(in->name, two) ? 2 : 1;
}

static bool reads_destination(const struct instruction *in)
{
    static const char *const names[] = {"v_fmac_", "v_mac_",  "v_fma_mixlo_", "v_writelane_",
                                        "s_addk_", "s_mulk_", "s_bitset1_",   NULL};

    return (in->bits & BIT_PRESERVE) != 0 || starts_with_one(in->name, names);
}

static struct registers registers_of(const struct operand *o)
{
    const uint32_t first = o->kind == OPERAND_SCALAR ? FIRST_SCALAR + o->index : o->index;

    if (o->kind != OPERAND_SCALAR && o->kind != OPERAND_VECTOR)
        return (struct registers){0, 0};
    return (struct registers){(uint16_t)first, o->registers};
}

static void add(struct registers *list, uint8_t *count, struct registers r)
{
    if (r.count != 0)
        list[(*count)++] = r;
}

struct effects effects_of(const struct instruction *in)
{
    const struct registers exec = {FIRST_SCALAR + EXEC, 2}, vcc = {FIRST_SCALAR + VCC, 2};
    const uint32_t written = destinations(in);
    struct effects e = {.unit = (uint8_t)unit_of(in->name)};

    for (uint32_t i = 0; i < in->operands; ++i) {
        const struct registers r = registers_of(&in->operand[i]);
        if (i < written)
            add(e.write, &e.writes, r);
        if (i >= written || (i == 0 && reads_destination(in)))
            add(e.read, &e.reads, r);
    }
    if (strstr(in->name, "saveexec") != NULL) {
        add(e.write, &e.writes, exec);
        add(e.read, &e.reads, exec);
    }
    if (starts(in->name, "s_cbranch_vcc"))
        add(e.read, &e.reads, vcc);
    if (starts(in->name, "s_cbranch_exec"))
        add(e.read, &e.reads, exec);
    e.partial = written > 0 && in->operand[0].select != SELECT_DWORD;
    return e;
}

const char *register_name(uint32_t number, char text[8])
{
    const char kind = number >= FIRST_SCALAR ? 's' : number >= FIRST_ACCUMULATOR ? 'a' : 'v';
    const uint32_t first = kind == 's' ? FIRST_SCALAR : kind == 'a' ? FIRST_ACCUMULATOR : 0;

    (void)snprintf(text, 8, "%c%u", kind, (number - first) % 1000);
    return text;
}
