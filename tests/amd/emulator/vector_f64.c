/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Vector instructions of 64-bit floating point, lane by lane.
 */
#include <math.h>
#include <string.h>

#include "machine.h"

static double source(const struct wave *w, const struct operand *o, int lane)
{
    const uint64_t bits = o->kind == OPERAND_VECTOR
                              ? (uint64_t)w->v[o->index + 1][lane] << 32 | w->v[o->index][lane]
                              : scalar64(w, o);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t source_word(const struct wave *w, const struct operand *o, int lane)
{
    return o->kind == OPERAND_VECTOR ? w->v[o->index][lane] : scalar32(w, o);
}

static void write_value(struct wave *w, const struct operand *o, int lane, double value)
{
    uint64_t bits;

    if ((exec_mask(w) >> lane & 1) == 0)
        return;
    memcpy(&bits, &value, sizeof bits);
    w->v[o->index][lane] = (uint32_t)bits;
    w->v[o->index + 1][lane] = (uint32_t)(bits >> 32);
}

#define A source(w, &in->operand[1], lane)
#define B source(w, &in->operand[2], lane)
#define C source(w, &in->operand[3], lane)
#define WORD source_word(w, &in->operand[1], lane)
#define COMPUTE(name, value)                                                                       \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        for (int lane = 0; lane < LANES; ++lane)                                                   \
            write_value(w, &in->operand[0], lane, (value));                                        \
    }
COMPUTE(v_add_f64, A + B)
COMPUTE(v_mul_f64, A *B)
COMPUTE(v_fma_f64, fma(A, B, C))
COMPUTE(v_cvt_f64_f32, (double)as_float(WORD))
COMPUTE(v_cvt_f64_i32, (double)(int32_t)WORD)

/* False if one is NaN, but for the last, which asks just that. */
#define COMPARE(name, condition)                                                                   \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        uint64_t mask = 0;                                                                         \
        for (int lane = 0; lane < LANES; ++lane)                                                   \
            mask |= (uint64_t)(condition) << lane;                                                 \
        set_scalar_pair(w, in->operand[0].index, mask & exec_mask(w));                             \
    }
COMPARE(v_cmp_ge_f64, A >= B)
COMPARE(v_cmp_le_f64, A <= B)
COMPARE(v_cmp_u_f64, isnan(A) || isnan(B))

const struct operation vector_f64_operations[] = {
    {"v_add_f64", v_add_f64, 3, OPERAND_VECTOR},
    {"v_mul_f64", v_mul_f64, 3, OPERAND_VECTOR},
    {"v_fma_f64", v_fma_f64, 4, OPERAND_VECTOR},
    {"v_cvt_f64_f32", v_cvt_f64_f32, 2, OPERAND_VECTOR},
    {"v_cvt_f64_i32", v_cvt_f64_i32, 2, OPERAND_VECTOR},
    {"v_cmp_ge_f64", v_cmp_ge_f64, 3, OPERAND_SCALAR},
    {"v_cmp_le_f64", v_cmp_le_f64, 3, OPERAND_SCALAR},
    {"v_cmp_u_f64", v_cmp_u_f64, 3, OPERAND_SCALAR},
    {NULL, NULL, 0, OPERAND_NONE},
};
