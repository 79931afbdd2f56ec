/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Vector instructions with two results of 32 bits, or of two elements side by side, lane by lane.
 * Of the first, bit i of the word selects the half of source i for the low one, bit 8 + i for the
 * high one.
 */
#include <math.h>

#include "machine.h"

static uint32_t half_of(const struct wave *w, const struct operand *o, bool high, int lane)
{
    if (o->kind == OPERAND_VECTOR)
        return w->v[o->index + high][lane];
    return o->kind == OPERAND_SCALAR ? w->s[o->index + high] : high ? o->high : o->low;
}

/* Source i + 1 as it is selected for the low or the high result. */
static uint32_t source(const struct wave *w, const struct instruction *in, int i, bool high,
                       int lane)
{
    const uint32_t selects = high ? in->word >> 8 : in->word;

    return half_of(w, &in->operand[i + 1], selects >> i & 1, lane);
}

static void write_pair(struct wave *w, const struct operand *o, int lane, uint32_t low,
                       uint32_t high)
{
    if ((exec_mask(w) >> lane & 1) == 0)
        return;
    w->v[o->index][lane] = low;
    w->v[o->index + 1][lane] = high;
}

#define A as_float(source(w, in, 0, high, lane))
#define B as_float(source(w, in, 1, high, lane))
#define C as_float(source(w, in, 2, high, lane))
#define PACKED(name, value)                                                                        \
    static uint32_t name##_half(const struct wave *w, const struct instruction *in, bool high,     \
                                int lane)                                                          \
    {                                                                                              \
        return as_bits(value);                                                                     \
    }                                                                                              \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        for (int lane = 0; lane < LANES; ++lane)                                                   \
            write_pair(w, &in->operand[0], lane, name##_half(w, in, false, lane),                  \
                       name##_half(w, in, true, lane));                                            \
    }
PACKED(v_pk_add_f32, A + B)
PACKED(v_pk_mul_f32, A *B)
PACKED(v_pk_fma_f32, fmaf(A, B, C))

/* The low result from source 0, the high one from source 1. */
static void v_pk_mov_b32(struct wave *w, const struct instruction *in)
{
    for (int lane = 0; lane < LANES; ++lane)
        write_pair(w, &in->operand[0], lane, source(w, in, 0, false, lane),
                   source(w, in, 1, false, lane));
}

static uint32_t half_bits(float value)
{
    const _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}

/* To nearest, ties to even; NaN stays one. */
static uint32_t bfloat16_bits(float value)
{
    const uint32_t bits = as_bits(value);

    if (isnan(value))
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* ---- two elements of a word (gfx950) ---- */

#define PAIR(name, convert)                                                                        \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        for (int l = 0; l < LANES; ++l) {                                                          \
            const uint32_t low = convert(as_float(half_of(w, &in->operand[1], false, l)));         \
            const uint32_t high = convert(as_float(half_of(w, &in->operand[2], false, l)));        \
            if (exec_mask(w) >> l & 1)                                                             \
                w->v[in->operand[0].index][l] = low | high << 16;                                  \
        }                                                                                          \
    }
PAIR(v_cvt_pk_f16_f32, half_bits)
PAIR(v_cvt_pk_bf16_f32, bfloat16_bits)

/* ---- mixed: source i is fp32 or, where bit 8 + i of the word is set, fp16 in the half that bit i
 * selects ---- */

static float mixed_source(const struct wave *w, const struct instruction *in, int i, int lane)
{
    const uint32_t bits = half_of(w, &in->operand[1 + i], false, lane);
    const uint16_t half = (uint16_t)(in->word >> i & 1 ? bits >> 16 : bits);
    _Float16 value;

    if ((in->word >> (8 + i) & 1) == 0)
        return as_float(bits);
    memcpy(&value, &half, sizeof value);
    return (float)value;
}

/* The low half of the result; the other one stays. */
static void v_fma_mixlo_f16(struct wave *w, const struct instruction *in)
{
    for (int l = 0; l < LANES; ++l) {
        const float sum =
            fmaf(mixed_source(w, in, 0, l), mixed_source(w, in, 1, l), mixed_source(w, in, 2, l));
        uint32_t *to = &w->v[in->operand[0].index][l];
        if (exec_mask(w) >> l & 1)
            *to = (*to & 0xffff0000u) | half_bits(sum);
    }
}

const struct operation vector_packed_operations[] = {
    {"v_pk_add_f32", v_pk_add_f32, 3, OPERAND_VECTOR},
    {"v_pk_mul_f32", v_pk_mul_f32, 3, OPERAND_VECTOR},
    {"v_pk_fma_f32", v_pk_fma_f32, 4, OPERAND_VECTOR},
    {"v_pk_mov_b32", v_pk_mov_b32, 3, OPERAND_VECTOR},
    {"v_cvt_pk_f16_f32", v_cvt_pk_f16_f32, 3, OPERAND_VECTOR},
    {"v_cvt_pk_bf16_f32", v_cvt_pk_bf16_f32, 3, OPERAND_VECTOR},
    {"v_fma_mixlo_f16", v_fma_mixlo_f16, 4, OPERAND_VECTOR},
    {NULL, NULL, 0, OPERAND_NONE},
};
