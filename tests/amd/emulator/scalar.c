/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Scalar instructions: arithmetic on s registers with the condition bit SCC, branches, the wave's
 * own state.
 */
#include <time.h>

#include "checks.h"
#include "direct.h"
#include "dispatch.h"
#include "machine.h"
#include "memory.h"

/* ---- operand 0 = f(operand 1, operand 2), and what becomes of SCC ---- */

#define BINARY_32(name, value, condition)                                                          \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        const uint32_t a = scalar32(w, &in->operand[1]), b = scalar32(w, &in->operand[2]);         \
        const uint32_t r = (value);                                                                \
        (void)a, (void)b;                                                                          \
        w->s[in->operand[0].index] = r;                                                            \
        w->scc = (condition);                                                                      \
    }
#define BINARY_64(name, value, condition)                                                          \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        const uint64_t a = scalar64(w, &in->operand[1]), b = scalar64(w, &in->operand[2]);         \
        const uint64_t r = (value);                                                                \
        (void)a, (void)b;                                                                          \
        set_scalar_pair(w, in->operand[0].index, r);                                               \
        w->scc = (condition);                                                                      \
    }
#define UNARY_32(name, value, condition)                                                           \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        const uint32_t a = scalar32(w, &in->operand[1]), r = (value);                              \
        w->s[in->operand[0].index] = r;                                                            \
        w->scc = (condition);                                                                      \
    }
#define UNARY_64(name, value, condition)                                                           \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        const uint64_t a = scalar64(w, &in->operand[1]), r = (value);                              \
        set_scalar_pair(w, in->operand[0].index, r);                                               \
        w->scc = (condition);                                                                      \
    }
#define KEEP w->scc

BINARY_32(s_add_u32, a + b, r < a)
BINARY_32(s_addc_u32, a + b + w->scc, ((uint64_t)a + b + w->scc) >> 32 != 0)
BINARY_32(s_sub_u32, a - b, b > a)
BINARY_32(s_subb_u32, a - b - w->scc, (uint64_t)b + w->scc > a)
BINARY_32(s_add_i32, a + b, (~(a ^ b) & (a ^ r)) >> 31 != 0)
BINARY_32(s_sub_i32, a - b, ((a ^ b) & (a ^ r)) >> 31 != 0)
BINARY_32(s_mul_i32, a *b, KEEP)
BINARY_32(s_mul_hi_u32, (uint32_t)((uint64_t)a * b >> 32), KEEP)
BINARY_32(s_and_b32, a &b, r != 0)
BINARY_32(s_or_b32, a | b, r != 0)
BINARY_32(s_xor_b32, a ^ b, r != 0)
BINARY_32(s_andn2_b32, a & ~b, r != 0)
BINARY_32(s_lshl_b32, a << (b & 31), r != 0)
BINARY_32(s_lshr_b32, a >> (b & 31), r != 0)
BINARY_32(s_ashr_i32, (uint32_t)((int32_t)a >> (b & 31)), r != 0)
BINARY_32(s_min_u32, a < b ? a : b, a < b)
BINARY_32(s_max_u32, a > b ? a : b, a > b)
BINARY_32(s_min_i32, (int32_t)a < (int32_t)b ? a : b, (int32_t)a < (int32_t)b)
BINARY_32(s_max_i32, (int32_t)a > (int32_t)b ? a : b, (int32_t)a > (int32_t)b)
BINARY_32(s_cselect_b32, w->scc ? a : b, KEEP)
BINARY_32(s_lshl3_add_u32, (a << 3) + b, ((uint64_t)a << 3) + b > UINT32_MAX)
UNARY_32(s_mov_b32, a, KEEP)
UNARY_32(s_sext_i32_i16, (uint32_t)(int32_t)(int16_t)a, KEEP)
UNARY_32(s_movk_i32, (uint32_t)(int32_t)(int16_t)a, KEEP) /* 16 bits, sign-extended */
UNARY_32(s_not_b32, ~a, r != 0)
UNARY_32(s_brev_b32, reversed(a), KEEP)
UNARY_32(s_abs_i32, (int32_t)a < 0 ? 0 - a : a, r != 0)

BINARY_64(s_and_b64, a &b, r != 0)
BINARY_64(s_or_b64, a | b, r != 0)
BINARY_64(s_xor_b64, a ^ b, r != 0)
BINARY_64(s_andn2_b64, a & ~b, r != 0)
BINARY_64(s_orn2_b64, a | ~b, r != 0)
BINARY_64(s_nor_b64, ~(a | b), r != 0)
BINARY_64(s_cselect_b64, w->scc ? a : b, KEEP)
UNARY_64(s_mov_b64, a, KEEP)
UNARY_64(s_not_b64, ~a, r != 0)

/* Shifts of pairs: the distance is one register. */
#define SHIFT_64(name, value)                                                                      \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        const uint64_t a = scalar64(w, &in->operand[1]);                                           \
        const uint32_t b = scalar32(w, &in->operand[2]) & 63;                                      \
        const uint64_t r = (value);                                                                \
        set_scalar_pair(w, in->operand[0].index, r);                                               \
        w->scc = r != 0;                                                                           \
    }
SHIFT_64(s_lshl_b64, a << b)
SHIFT_64(s_lshr_b64, a >> b)
SHIFT_64(s_ashr_i64, (uint64_t)((int64_t)a >> b))

/* The field of bits 22:16 of operand 2 bits from bit 4:0 of it on. */
static uint32_t unsigned_field(uint32_t a, uint32_t field)
{
    const uint32_t width = field >> 16 & 127;

    return width == 0 ? 0 : a >> (field & 31) & (UINT32_MAX >> (width < 32 ? 32 - width : 0));
}

BINARY_32(s_bfe_u32, unsigned_field(a, b), r != 0)

/* The same of 64 bits, from bit 5:0 of operand 2 on, with its sign. */
static void s_bfe_i64(struct wave *w, const struct instruction *in)
{
    const uint64_t a = scalar64(w, &in->operand[1]);
    const uint32_t field = scalar32(w, &in->operand[2]);
    const uint32_t first = field & 63, asked = field >> 16 & 127;
    const uint32_t width = asked < 64 - first ? asked : 64 - first;
    const uint64_t r =
        width == 0 ? 0 : (uint64_t)((int64_t)(a << (64 - first - width)) >> (64 - width));

    set_scalar_pair(w, in->operand[0].index, r);
    w->scc = r != 0;
}

static void s_bcnt1_i32_b64(struct wave *w, const struct instruction *in)
{
    const uint32_t r = (uint32_t)__builtin_popcountll(scalar64(w, &in->operand[1]));
    w->s[in->operand[0].index] = r;
    w->scc = r != 0;
}

static void s_addk_i32(struct wave *w, const struct instruction *in)
{
    uint32_t *d = &w->s[in->operand[0].index];
    const uint32_t a = *d, b = (uint32_t)(int32_t)(int16_t)scalar32(w, &in->operand[1]), r = a + b;
    *d = r;
    w->scc = (~(a ^ b) & (a ^ r)) >> 31 != 0;
}

static void s_mulk_i32(struct wave *w, const struct instruction *in)
{
    w->s[in->operand[0].index] *= (uint32_t)(int32_t)(int16_t)scalar32(w, &in->operand[1]);
}

static void s_bitset1_b32(struct wave *w, const struct instruction *in)
{
    w->s[in->operand[0].index] |= UINT32_C(1) << (scalar32(w, &in->operand[1]) & 31);
}

/* ---- comparisons ---- */

#define COMPARE(name, type, fetch, operation)                                                      \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        w->scc = (type)fetch(w, &in->operand[0]) operation(type) fetch(w, &in->operand[1]);        \
    }
COMPARE(s_cmp_eq_u32, uint32_t, scalar32, ==)
COMPARE(s_cmp_lg_u32, uint32_t, scalar32, !=)
COMPARE(s_cmp_gt_u32, uint32_t, scalar32, >)
COMPARE(s_cmp_ge_u32, uint32_t, scalar32, >=)
COMPARE(s_cmp_lt_u32, uint32_t, scalar32, <)
COMPARE(s_cmp_le_u32, uint32_t, scalar32, <=)
/* Operand 1 is 16 bits, not sign-extended. */

/* A constant of 16 bits has a sign. */
static uint32_t scalar_or_short(const struct wave *w, const struct operand *o)
{
    return o->kind == OPERAND_CONSTANT ? (uint32_t)(int32_t)(int16_t)o->low : scalar32(w, o);
}

COMPARE(s_cmpk_gt_i32, int32_t, scalar_or_short, >)
COMPARE(s_cmpk_lt_i32, int32_t, scalar_or_short, <)
COMPARE(s_cmpk_gt_u32, uint32_t, scalar32, >)
COMPARE(s_cmpk_lt_u32, uint32_t, scalar32, <)
COMPARE(s_cmp_eq_i32, int32_t, scalar32, ==)
COMPARE(s_cmp_lg_i32, int32_t, scalar32, !=)
COMPARE(s_cmp_gt_i32, int32_t, scalar32, >)
COMPARE(s_cmp_ge_i32, int32_t, scalar32, >=)
COMPARE(s_cmp_lt_i32, int32_t, scalar32, <)
COMPARE(s_cmp_le_i32, int32_t, scalar32, <=)
COMPARE(s_cmp_eq_u64, uint64_t, scalar64, ==)
COMPARE(s_cmp_lg_u64, uint64_t, scalar64, !=)

static bool tested_bit(const struct wave *w, const struct instruction *in)
{
    return scalar32(w, &in->operand[0]) >> (scalar32(w, &in->operand[1]) & 31) & 1;
}

static void s_bitcmp1_b32(struct wave *w, const struct instruction *in)
{
    w->scc = tested_bit(w, in);
}

static void s_bitcmp0_b32(struct wave *w, const struct instruction *in)
{
    w->scc = !tested_bit(w, in);
}

/* ---- the lane mask ---- */

#define SAVE_EXEC(name, value)                                                                     \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        const uint64_t a = scalar64(w, &in->operand[1]), e = exec_mask(w);                         \
        set_scalar_pair(w, in->operand[0].index, e);                                               \
        set_scalar_pair(w, EXEC, (value));                                                         \
        w->scc = exec_mask(w) != 0;                                                                \
    }
SAVE_EXEC(s_and_saveexec_b64, a &e)
SAVE_EXEC(s_or_saveexec_b64, a | e)
SAVE_EXEC(s_andn2_saveexec_b64, a & ~e)

/* ---- control ---- */

#define BRANCH(name, condition)                                                                    \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        if (condition)                                                                             \
            w->pc = in->target;                                                                    \
    }
BRANCH(s_branch, true)
BRANCH(s_cbranch_scc0, !w->scc)
BRANCH(s_cbranch_scc1, w->scc)
BRANCH(s_cbranch_vccz, scalar_pair(w, VCC) == 0)
BRANCH(s_cbranch_vccnz, scalar_pair(w, VCC) != 0)
BRANCH(s_cbranch_execz, exec_mask(w) == 0)
BRANCH(s_cbranch_execnz, exec_mask(w) != 0)

static void nothing(struct wave *w, const struct instruction *in)
{
    (void)w, (void)in;
}

static void s_waitcnt(struct wave *w, const struct instruction *in)
{
    memory_wait(w, in->word);
    direct_wait(w, in->word);
    checks_wait(w, (int32_t)in->word, in->offset[0]);
}

static void s_barrier(struct wave *w, const struct instruction *in)
{
    (void)in;
    w->state = WAVE_AT_BARRIER;
}

static void s_sleep(struct wave *w, const struct instruction *in)
{
    (void)in;
    w->state = WAVE_SLEEPS;
}

static void s_endpgm(struct wave *w, const struct instruction *in)
{
    (void)in;
    w->state = WAVE_ENDED;
}

/* The constant clock, in ticks of the architecture's rate. */
static void s_memrealtime(struct wave *w, const struct instruction *in)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    const uint64_t per_tick = 1000000000u / w->group->dispatch->device->clock_rate;
    set_scalar_pair(w, in->operand[0].index, ns / per_tick);
}

static void s_load(struct wave *w, const struct instruction *in, uint32_t words)
{
    const uint64_t address = scalar64(w, &in->operand[1]) + scalar32(w, &in->operand[2]);

    if (checks_scalar_load(w, address & ~UINT64_C(3), words * 4))
        memory_load_scalar(w, address & ~UINT64_C(3), &w->s[in->operand[0].index], words * 4);
}

#define S_LOAD(name, words)                                                                        \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        s_load(w, in, words);                                                                      \
    }
S_LOAD(s_load_dword, 1)
S_LOAD(s_load_dwordx2, 2)
S_LOAD(s_load_dwordx4, 4)
S_LOAD(s_load_dwordx8, 8)

#define ROW(name, operands) {#name, name, operands, operands > 1 ? OPERAND_SCALAR : OPERAND_NONE}
#define COMPARISON(name) {#name, name, 2, OPERAND_NONE}
const struct operation scalar_operations[] = {
    ROW(s_add_u32, 3),
    ROW(s_addc_u32, 3),
    ROW(s_sub_u32, 3),
    ROW(s_subb_u32, 3),
    ROW(s_add_i32, 3),
    ROW(s_sub_i32, 3),
    ROW(s_mul_i32, 3),
    ROW(s_mul_hi_u32, 3),
    ROW(s_and_b32, 3),
    ROW(s_or_b32, 3),
    ROW(s_xor_b32, 3),
    ROW(s_andn2_b32, 3),
    ROW(s_lshl_b32, 3),
    ROW(s_lshr_b32, 3),
    ROW(s_ashr_i32, 3),
    ROW(s_min_u32, 3),
    ROW(s_max_u32, 3),
    ROW(s_min_i32, 3),
    ROW(s_max_i32, 3),
    ROW(s_cselect_b32, 3),
    ROW(s_lshl3_add_u32, 3),
    ROW(s_mov_b32, 2),
    ROW(s_sext_i32_i16, 2),
    ROW(s_movk_i32, 2),
    ROW(s_not_b32, 2),
    ROW(s_brev_b32, 2),
    ROW(s_abs_i32, 2),
    ROW(s_and_b64, 3),
    ROW(s_or_b64, 3),
    ROW(s_xor_b64, 3),
    ROW(s_andn2_b64, 3),
    ROW(s_orn2_b64, 3),
    ROW(s_nor_b64, 3),
    ROW(s_cselect_b64, 3),
    ROW(s_mov_b64, 2),
    ROW(s_not_b64, 2),
    ROW(s_lshl_b64, 3),
    ROW(s_lshr_b64, 3),
    ROW(s_ashr_i64, 3),
    ROW(s_bfe_u32, 3),
    ROW(s_bfe_i64, 3),
    ROW(s_bcnt1_i32_b64, 2),
    ROW(s_addk_i32, 2),
    ROW(s_mulk_i32, 2),
    ROW(s_bitset1_b32, 2),
    COMPARISON(s_cmp_eq_u32),
    COMPARISON(s_cmp_lg_u32),
    COMPARISON(s_cmp_gt_u32),
    COMPARISON(s_cmp_ge_u32),
    COMPARISON(s_cmp_lt_u32),
    COMPARISON(s_cmp_le_u32),
    COMPARISON(s_cmpk_gt_i32),
    COMPARISON(s_cmpk_lt_i32),
    COMPARISON(s_cmpk_gt_u32),
    COMPARISON(s_cmpk_lt_u32),
    COMPARISON(s_cmp_eq_i32),
    COMPARISON(s_cmp_lg_i32),
    COMPARISON(s_cmp_gt_i32),
    COMPARISON(s_cmp_ge_i32),
    COMPARISON(s_cmp_lt_i32),
    COMPARISON(s_cmp_le_i32),
    COMPARISON(s_cmp_eq_u64),
    COMPARISON(s_cmp_lg_u64),
    COMPARISON(s_bitcmp0_b32),
    COMPARISON(s_bitcmp1_b32),
    ROW(s_and_saveexec_b64, 2),
    ROW(s_or_saveexec_b64, 2),
    ROW(s_andn2_saveexec_b64, 2),
    ROW(s_branch, 0),
    ROW(s_cbranch_scc0, 0),
    ROW(s_cbranch_scc1, 0),
    ROW(s_cbranch_vccz, 0),
    ROW(s_cbranch_vccnz, 0),
    ROW(s_cbranch_execz, 0),
    ROW(s_cbranch_execnz, 0),
    {"s_nop", nothing, 0, OPERAND_NONE},
    ROW(s_waitcnt, 0),
    ROW(s_barrier, 0),
    ROW(s_sleep, 0),
    ROW(s_endpgm, 0),
    {"s_memrealtime", s_memrealtime, 1, OPERAND_SCALAR},
    ROW(s_load_dword, 3),
    ROW(s_load_dwordx2, 3),
    ROW(s_load_dwordx4, 3),
    ROW(s_load_dwordx8, 3),
    {NULL, NULL, 0, OPERAND_NONE},
};
