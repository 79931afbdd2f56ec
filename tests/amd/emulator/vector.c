/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Vector instructions. Each computes all 64 lanes and keeps those that the EXEC mask enables.
 */
#include <math.h>
#include <string.h>

#include "machine.h"

/* ---- operands ---- */

static uint32_t selected(uint32_t value, uint8_t select)
{
    switch (select) {
    case SELECT_WORD_0:
        return value & 0xffff;
    case SELECT_WORD_1:
        return value >> 16;
    case SELECT_DWORD:
        return value;
    default:
        return value >> 8 * (select - SELECT_BYTE_0) & 0xff;
    }
}

/* The operand in every lane; `room` is used where it is not a register's own storage. */
static const uint32_t *source32(const struct wave *w, const struct operand *o, uint32_t *room)
{
    if (o->kind == OPERAND_VECTOR && o->select == SELECT_DWORD)
        return w->v[o->index];
    for (int l = 0; l < LANES; ++l)
        room[l] =
            selected(o->kind == OPERAND_VECTOR ? w->v[o->index][l] : scalar32(w, o), o->select);
    return room;
}

static void source64(const struct wave *w, const struct operand *o, uint64_t *out)
{
    if (o->kind == OPERAND_VECTOR) {
        for (int l = 0; l < LANES; ++l)
            out[l] = (uint64_t)w->v[o->index + 1][l] << 32 | w->v[o->index][l];
        return;
    }
    for (int l = 0; l < LANES; ++l)
        out[l] = scalar64(w, o);
}

static void keep32(const struct wave *w, uint32_t *to, const uint32_t *from)
{
    const uint64_t exec = exec_mask(w);

    if (exec == ~UINT64_C(0)) {
        memcpy(to, from, LANES * sizeof *to);
        return;
    }
    for (int l = 0; l < LANES; ++l)
        to[l] = exec >> l & 1 ? from[l] : to[l];
}

static void write32(struct wave *w, const struct instruction *in, uint32_t *value)
{
    const struct operand *o = &in->operand[0];
    uint32_t *to = w->v[o->index];

    if (o->select != SELECT_DWORD) {
        const bool is_word = o->select < SELECT_BYTE_0;
        const int shift =
            is_word ? 16 * (o->select - SELECT_WORD_0) : 8 * (o->select - SELECT_BYTE_0);
        const uint32_t mask = is_word ? 0xffff : 0xff;
        const uint32_t rest = in->bits & BIT_PRESERVE ? ~(mask << shift) : 0;
        for (int l = 0; l < LANES; ++l)
            value[l] = (value[l] & mask) << shift | (to[l] & rest);
    }
    keep32(w, to, value);
}

static void write64(struct wave *w, const struct operand *o, const uint64_t *value)
{
    uint32_t low[LANES], high[LANES];

    for (int l = 0; l < LANES; ++l) {
        low[l] = (uint32_t)value[l];
        high[l] = (uint32_t)(value[l] >> 32);
    }
    keep32(w, w->v[o->index], low);
    keep32(w, w->v[o->index + 1], high);
}

/* A bit per lane; 0 for lanes that are not enabled. */
static void write_mask(struct wave *w, const struct operand *o, uint64_t mask)
{
    set_scalar_pair(w, o->index, mask & exec_mask(w));
}

/* ---- lane by lane, 32 bits ---- */

#define UNARY(name, value)                                                                         \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], r[LANES];                                                              \
        const uint32_t *x = source32(w, &in->operand[1], ra);                                      \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint32_t a = x[l];                                                               \
            r[l] = (value);                                                                        \
        }                                                                                          \
        write32(w, in, r);                                                                         \
    }
#define BINARY(name, value)                                                                        \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES], r[LANES];                                                   \
        const uint32_t *x = source32(w, &in->operand[1], ra);                                      \
        const uint32_t *y = source32(w, &in->operand[2], rb);                                      \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint32_t a = x[l], b = y[l];                                                     \
            r[l] = (value);                                                                        \
        }                                                                                          \
        write32(w, in, r);                                                                         \
    }
#define TERNARY(name, value)                                                                       \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES], rc[LANES], r[LANES];                                        \
        const uint32_t *x = source32(w, &in->operand[1], ra);                                      \
        const uint32_t *y = source32(w, &in->operand[2], rb);                                      \
        const uint32_t *z = source32(w, &in->operand[3], rc);                                      \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint32_t a = x[l], b = y[l], c = z[l];                                           \
            r[l] = (value);                                                                        \
        }                                                                                          \
        write32(w, in, r);                                                                         \
    }

/* The field of `width` bits from bit `first` on. */
static inline uint32_t field(uint32_t a, uint32_t first, uint32_t width)
{
    return a >> (first & 31) & ((UINT32_C(1) << (width & 31)) - 1);
}

/* The same, its uppermost bit its sign. */
static inline uint32_t signed_field(uint32_t a, uint32_t first, uint32_t width)
{
    const uint32_t bits = field(a, first, width), sign = UINT32_C(1) << (width & 31) >> 1;
    return (bits ^ sign) - sign;
}

/* Byte i is the byte that byte i of `selects` names: 0 to 3 of b, 4 to 7 of a, 12 zero, from 13 on
 * ones. Those between, signs, are not known here. */
static inline uint32_t permuted(uint32_t a, uint32_t b, uint32_t selects)
{
    const uint64_t both = (uint64_t)a << 32 | b;
    uint32_t r = 0;

    for (int i = 0; i < 4; ++i) {
        const uint32_t which = selects >> 8 * i & 0xff;
        const uint32_t byte = which < 8     ? (uint32_t)(both >> 8 * which) & 0xff
                              : which >= 13 ? 0xff
                                            : 0;
        r |= byte << 8 * i;
    }
    return r;
}

UNARY(v_mov_b32, a)
UNARY(v_not_b32, ~a)
UNARY(v_bfrev_b32, reversed(a))
BINARY(v_add_u32, a + b)
BINARY(v_sub_u32, a - b)
BINARY(v_subrev_u32, b - a)
BINARY(v_and_b32, a &b)
BINARY(v_or_b32, a | b)
BINARY(v_xor_b32, a ^ b)
BINARY(v_lshlrev_b32, b << (a & 31))
BINARY(v_lshrrev_b32, b >> (a & 31))
BINARY(v_ashrrev_i32, (uint32_t)((int32_t)b >> (a & 31)))
BINARY(v_mul_lo_u32, a *b)
BINARY(v_mul_hi_u32, (uint32_t)((uint64_t)a * b >> 32))
BINARY(v_mul_u32_u24, (a & 0xffffff) * (b & 0xffffff))
BINARY(v_min_u32, a < b ? a : b)
BINARY(v_max_u32, a > b ? a : b)
BINARY(v_min_i32, (int32_t)a < (int32_t)b ? a : b)
BINARY(v_max_i32, (int32_t)a > (int32_t)b ? a : b)
/* Of 16 bits: the upper half of the result is zero. */
BINARY(v_add_u16, (a + b) & 0xffff)
BINARY(v_lshrrev_b16, (b & 0xffff) >> (a & 15))
TERNARY(v_add3_u32, a + b + c)
TERNARY(v_or3_b32, a | b | c)
TERNARY(v_and_or_b32, (a & b) | c)
TERNARY(v_lshl_or_b32, a << (b & 31) | c)
TERNARY(v_lshl_add_u32, (a << (b & 31)) + c)
TERNARY(v_add_lshl_u32, (a + b) << (c & 31))
TERNARY(v_xad_u32, (a ^ b) + c)
TERNARY(v_mad_u32_u24, (a & 0xffffff) * (b & 0xffffff) + c)
TERNARY(v_mad_i32_i24, (uint32_t)((int32_t)(a << 8) >> 8) * (uint32_t)((int32_t)(b << 8) >> 8) + c)
TERNARY(v_bfe_u32, field(a, b, c))
TERNARY(v_bfe_i32, signed_field(a, b, c))
TERNARY(v_perm_b32, permuted(a, b, c))
TERNARY(v_alignbit_b32, (uint32_t)(((uint64_t)a << 32 | b) >> (c & 31)))

/* Bits of the mask below this lane. */
BINARY(v_mbcnt_lo_u32_b32,
       (uint32_t)__builtin_popcount(a &(l < 32 ? (UINT32_C(1) << l) - 1 : UINT32_MAX)) + b)
BINARY(v_mbcnt_hi_u32_b32,
       (uint32_t)__builtin_popcount(a &(l < 32 ? 0 : (UINT32_C(1) << (l - 32)) - 1)) + b)

/* gfx950: any function of three bits, its value for (a, b, c) at bit 4a + 2b + c of a table. */
static inline uint32_t looked_up(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t r = 0;
    for (int i = 0; i < 8; ++i)
        if (table >> i & 1)
            r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}
TERNARY(v_bitop3_b32, looked_up(a, b, c, in->word))

/* ---- floating point ---- */

static inline uint32_t half_bits(float value)
{
    const _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}

static inline float half_value(uint32_t bits)
{
    const uint16_t low = (uint16_t)bits;
    _Float16 half;
    memcpy(&half, &low, sizeof half);
    return (float)half;
}

/* Towards zero, saturated; 0 for NaN. */
static inline uint32_t to_unsigned(float value)
{
    if (!(value > 0.0f))
        return 0;
    return value >= 4294967296.0f ? UINT32_MAX : (uint32_t)value;
}

#define FA as_float(a)
#define FB as_float(b)
#define FC as_float(c)
UNARY(v_trunc_f32, as_bits(truncf(FA)))
/* The hardware's is within one unit in the last place of the quotient. */
UNARY(v_rcp_f32, as_bits(1.0f / FA))
UNARY(v_rsq_f32, as_bits((float)(1.0 / sqrt((double)FA))))
UNARY(v_cvt_f32_u32, as_bits((float)a))
UNARY(v_cvt_f32_i32, as_bits((float)(int32_t)a))
UNARY(v_cvt_u32_f32, to_unsigned(FA))
UNARY(v_cvt_f32_f16, as_bits(half_value(a)))
UNARY(v_cvt_f16_f32, half_bits(FA))
BINARY(v_add_f32, as_bits(FA + FB))
BINARY(v_sub_f32, as_bits(FA - FB))
BINARY(v_mul_f32, as_bits(FA *FB))
BINARY(v_pack_b32_f16, (a & 0xffff) | b << 16)
TERNARY(v_fma_f32, as_bits(fmaf(FA, FB, FC)))
/* operand 2 is the literal: a * K + c. fmamk rounds once, madmk twice. */
TERNARY(v_fmamk_f32, as_bits(fmaf(FA, FB, FC)))
TERNARY(v_madmk_f32, as_bits(FA *FB + FC))

/* The destination is the third source. */
#define ACCUMULATING(name, value)                                                                  \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES], r[LANES];                                                   \
        const uint32_t *x = source32(w, &in->operand[1], ra);                                      \
        const uint32_t *y = source32(w, &in->operand[2], rb);                                      \
        const uint32_t *z = w->v[in->operand[0].index];                                            \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint32_t a = x[l], b = y[l], c = z[l];                                           \
            r[l] = (value);                                                                        \
        }                                                                                          \
        write32(w, in, r);                                                                         \
    }
ACCUMULATING(v_fmac_f32, as_bits(fmaf(FA, FB, FC)))
ACCUMULATING(v_mac_f32, as_bits(FA *FB + FC))

/* ---- carries ---- */

/* operand 0 = low 32 bits, operand 1 = carries, of f(a, b, carry in). */
#define CARRYING(name, value, carry_in)                                                            \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES], r[LANES];                                                   \
        const uint32_t *x = source32(w, &in->operand[2], ra);                                      \
        const uint32_t *y = source32(w, &in->operand[3], rb);                                      \
        const uint64_t carries = carry_in ? scalar64(w, &in->operand[4]) : 0;                      \
        uint64_t out = 0;                                                                          \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint64_t a = x[l], b = y[l], c = carries >> l & 1;                               \
            const uint64_t sum = (value);                                                          \
            (void)c;                                                                               \
            r[l] = (uint32_t)sum;                                                                  \
            out |= (sum >> 32 & 1) << l;                                                           \
        }                                                                                          \
        write32(w, in, r);                                                                         \
        write_mask(w, &in->operand[1], out);                                                       \
    }
CARRYING(v_add_co_u32, a + b, false)
CARRYING(v_sub_co_u32, a - b, false)
CARRYING(v_subrev_co_u32, b - a, false)
CARRYING(v_addc_co_u32, a + b + c, true)
CARRYING(v_subb_co_u32, a - b - c, true)
CARRYING(v_subbrev_co_u32, b - a - c, true)

/* ---- 64 bits ---- */

#define WIDE_MULTIPLY_ADD(name, type, wide, widest)                                                \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES];                                                             \
        uint64_t c[LANES], r[LANES], out = 0;                                                      \
        const uint32_t *a = source32(w, &in->operand[2], ra);                                      \
        const uint32_t *b = source32(w, &in->operand[3], rb);                                      \
        source64(w, &in->operand[4], c);                                                           \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const widest sum = (widest)((wide)(type)a[l] * (wide)(type)b[l]) + (widest)(wide)c[l]; \
            r[l] = (uint64_t)sum;                                                                  \
            out |= (uint64_t)(sum >> 64 & 1) << l;                                                 \
        }                                                                                          \
        write64(w, &in->operand[0], r);                                                            \
        write_mask(w, &in->operand[1], out);                                                       \
    }
WIDE_MULTIPLY_ADD(v_mad_u64_u32, uint32_t, uint64_t, unsigned __int128)
WIDE_MULTIPLY_ADD(v_mad_i64_i32, int32_t, int64_t, __int128)

/* The distance is operand 1, the value operand 2. */
#define SHIFT(name, value)                                                                         \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES];                                                                        \
        uint64_t x[LANES], r[LANES];                                                               \
        const uint32_t *distance = source32(w, &in->operand[1], ra);                               \
        source64(w, &in->operand[2], x);                                                           \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint64_t a = x[l];                                                               \
            const uint32_t b = distance[l] & 63;                                                   \
            r[l] = (value);                                                                        \
        }                                                                                          \
        write64(w, &in->operand[0], r);                                                            \
    }
SHIFT(v_lshlrev_b64, a << b)
SHIFT(v_lshrrev_b64, a >> b)
SHIFT(v_ashrrev_i64, (uint64_t)((int64_t)a >> b))

static void v_lshl_add_u64(struct wave *w, const struct instruction *in)
{
    uint32_t rb[LANES];
    uint64_t a[LANES], c[LANES];
    const uint32_t *b = source32(w, &in->operand[2], rb);

    source64(w, &in->operand[1], a);
    source64(w, &in->operand[3], c);
    for (int l = 0; l < LANES; ++l)
        a[l] = (a[l] << (b[l] & 7)) + c[l];
    write64(w, &in->operand[0], a);
}

static void v_mov_b64(struct wave *w, const struct instruction *in)
{
    uint64_t a[LANES];

    source64(w, &in->operand[1], a);
    write64(w, &in->operand[0], a);
}

/* ---- across lanes, and masks ---- */

static void v_cndmask_b32(struct wave *w, const struct instruction *in)
{
    uint32_t ra[LANES], rb[LANES], r[LANES];
    const uint32_t *a = source32(w, &in->operand[1], ra), *b = source32(w, &in->operand[2], rb);
    const uint64_t mask = scalar64(w, &in->operand[3]);

    for (int l = 0; l < LANES; ++l)
        r[l] = mask >> l & 1 ? b[l] : a[l];
    write32(w, in, r);
}

/* Of the first enabled lane, of lane 0 when none is. */
static void v_readfirstlane_b32(struct wave *w, const struct instruction *in)
{
    const uint64_t exec = exec_mask(w);
    uint32_t room[LANES];

    w->s[in->operand[0].index] =
        source32(w, &in->operand[1], room)[exec != 0 ? __builtin_ctzll(exec) : 0];
}

/* One lane, enabled or not. */
static void v_readlane_b32(struct wave *w, const struct instruction *in)
{
    w->s[in->operand[0].index] = w->v[in->operand[1].index][scalar32(w, &in->operand[2]) % LANES];
}

static void v_writelane_b32(struct wave *w, const struct instruction *in)
{
    w->v[in->operand[0].index][scalar32(w, &in->operand[2]) % LANES] = scalar32(w, &in->operand[1]);
}

#define COMPARE_32(name, type, operation)                                                          \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES];                                                             \
        const uint32_t *a = source32(w, &in->operand[1], ra);                                      \
        const uint32_t *b = source32(w, &in->operand[2], rb);                                      \
        uint64_t mask = 0;                                                                         \
        for (int l = 0; l < LANES; ++l)                                                            \
            mask |= (uint64_t)((type)a[l] operation(type) b[l]) << l;                              \
        write_mask(w, &in->operand[0], mask);                                                      \
    }
#define COMPARE_64(name, type, operation)                                                          \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint64_t a[LANES], b[LANES], mask = 0;                                                     \
        source64(w, &in->operand[1], a);                                                           \
        source64(w, &in->operand[2], b);                                                           \
        for (int l = 0; l < LANES; ++l)                                                            \
            mask |= (uint64_t)((type)a[l] operation(type) b[l]) << l;                              \
        write_mask(w, &in->operand[0], mask);                                                      \
    }
#define COMPARISONS(X)                                                                             \
    X(lt, <)                                                                                       \
    X(eq, ==)                                                                                      \
    X(le, <=)                                                                                      \
    X(gt, >)                                                                                       \
    X(ne, !=)                                                                                      \
    X(ge, >=)
#define DEFINE(relation, operation)                                                                \
    COMPARE_32(v_cmp_##relation##_u32, uint32_t, operation)                                        \
    COMPARE_32(v_cmp_##relation##_i32, int32_t, operation)                                         \
    COMPARE_64(v_cmp_##relation##_u64, uint64_t, operation)                                        \
    COMPARE_64(v_cmp_##relation##_i64, int64_t, operation)
COMPARISONS(DEFINE)

/* False if one is NaN, but for the last, which asks just that. */
#define COMPARE_FLOAT(name, condition)                                                             \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint32_t ra[LANES], rb[LANES];                                                             \
        const uint32_t *x = source32(w, &in->operand[1], ra);                                      \
        const uint32_t *y = source32(w, &in->operand[2], rb);                                      \
        uint64_t mask = 0;                                                                         \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const float a = as_float(x[l]), b = as_float(y[l]);                                    \
            mask |= (uint64_t)(condition) << l;                                                    \
        }                                                                                          \
        write_mask(w, &in->operand[0], mask);                                                      \
    }
COMPARE_FLOAT(v_cmp_ge_f32, a >= b)
COMPARE_FLOAT(v_cmp_le_f32, a <= b)
COMPARE_FLOAT(v_cmp_u_f32, isnan(a) || isnan(b))

#define ROW(name, operands) {#name, name, operands, OPERAND_VECTOR}
#define MASK_ROWS(relation, operation)                                                             \
    {"v_cmp_" #relation "_u32", v_cmp_##relation##_u32, 3, OPERAND_SCALAR},                        \
        {"v_cmp_" #relation "_i32", v_cmp_##relation##_i32, 3, OPERAND_SCALAR},                    \
        {"v_cmp_" #relation "_u64", v_cmp_##relation##_u64, 3, OPERAND_SCALAR},                    \
        {"v_cmp_" #relation "_i64", v_cmp_##relation##_i64, 3, OPERAND_SCALAR},
const struct operation vector_operations[] = {
    COMPARISONS(MASK_ROWS) ROW(v_mov_b32, 2),
    {"v_cmp_ge_f32", v_cmp_ge_f32, 3, OPERAND_SCALAR},
    {"v_cmp_le_f32", v_cmp_le_f32, 3, OPERAND_SCALAR},
    {"v_cmp_u_f32", v_cmp_u_f32, 3, OPERAND_SCALAR},
    ROW(v_pack_b32_f16, 3),
    ROW(v_not_b32, 2),
    ROW(v_bfrev_b32, 2),
    {"v_accvgpr_read_b32", v_mov_b32, 2, OPERAND_VECTOR},
    {"v_accvgpr_write_b32", v_mov_b32, 2, OPERAND_VECTOR},
    {"v_accvgpr_mov_b32", v_mov_b32, 2, OPERAND_VECTOR},
    ROW(v_add_u32, 3),
    ROW(v_add_u16, 3),
    ROW(v_lshrrev_b16, 3),
    ROW(v_sub_u32, 3),
    ROW(v_subrev_u32, 3),
    ROW(v_and_b32, 3),
    ROW(v_or_b32, 3),
    ROW(v_xor_b32, 3),
    ROW(v_lshlrev_b32, 3),
    ROW(v_lshrrev_b32, 3),
    ROW(v_ashrrev_i32, 3),
    ROW(v_mul_lo_u32, 3),
    ROW(v_mul_hi_u32, 3),
    ROW(v_mul_u32_u24, 3),
    ROW(v_min_u32, 3),
    ROW(v_max_u32, 3),
    ROW(v_min_i32, 3),
    ROW(v_max_i32, 3),
    ROW(v_add3_u32, 4),
    ROW(v_or3_b32, 4),
    ROW(v_and_or_b32, 4),
    ROW(v_lshl_or_b32, 4),
    ROW(v_lshl_add_u32, 4),
    ROW(v_add_lshl_u32, 4),
    ROW(v_xad_u32, 4),
    ROW(v_mad_u32_u24, 4),
    ROW(v_mad_i32_i24, 4),
    ROW(v_bfe_u32, 4),
    ROW(v_bfe_i32, 4),
    ROW(v_alignbit_b32, 4),
    ROW(v_perm_b32, 4),
    ROW(v_mbcnt_lo_u32_b32, 3),
    ROW(v_mbcnt_hi_u32_b32, 3),
    ROW(v_bitop3_b32, 4),
    ROW(v_trunc_f32, 2),
    ROW(v_rcp_f32, 2),
    ROW(v_rsq_f32, 2),
    {"v_rcp_iflag_f32", v_rcp_f32, 2, OPERAND_VECTOR},
    ROW(v_cvt_f32_u32, 2),
    ROW(v_cvt_f32_i32, 2),
    ROW(v_cvt_u32_f32, 2),
    ROW(v_cvt_f32_f16, 2),
    ROW(v_cvt_f16_f32, 2),
    ROW(v_add_f32, 3),
    ROW(v_sub_f32, 3),
    ROW(v_mul_f32, 3),
    ROW(v_fma_f32, 4),
    ROW(v_fmamk_f32, 4),
    ROW(v_madmk_f32, 4),
    ROW(v_fmac_f32, 3),
    ROW(v_mac_f32, 3),
    ROW(v_add_co_u32, 4),
    ROW(v_sub_co_u32, 4),
    ROW(v_subrev_co_u32, 4),
    ROW(v_addc_co_u32, 5),
    ROW(v_subb_co_u32, 5),
    ROW(v_subbrev_co_u32, 5),
    ROW(v_mad_u64_u32, 5),
    ROW(v_mad_i64_i32, 5),
    ROW(v_lshlrev_b64, 3),
    ROW(v_lshrrev_b64, 3),
    ROW(v_ashrrev_i64, 3),
    ROW(v_lshl_add_u64, 4),
    ROW(v_mov_b64, 2),
    ROW(v_cndmask_b32, 4),
    {"v_readfirstlane_b32", v_readfirstlane_b32, 2, OPERAND_SCALAR},
    {"v_readlane_b32", v_readlane_b32, 3, OPERAND_SCALAR},
    ROW(v_writelane_b32, 3),
    {NULL, NULL, 0, OPERAND_NONE},
};
