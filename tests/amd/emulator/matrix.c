/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * MFMA: D (n x n, fp32) = A (n x k) @ B (k x n) + C, by a whole wave, whatever its EXEC mask. With
 * G = 64 / n groups of n lanes:
 *
 *     A    lane l holds row l mod n, its elements k from (l / n) (k / G) on
 *     B    lane l holds column l mod n, the same elements
 *     C, D lane l, register r hold column l mod n, row (r / 4) 4 G + 4 (l / n) + r mod 4
 *
 * Products are added in the order of k in fp32, each rounded once; the hardware's order and
 * rounding inside an instruction are not documented. On gfx90a fp16 and bf16 inputs and all results
 * that are subnormal count as zero, as AMD documents for MI200. fp8 (4 bits of exponent, 3 of
 * mantissa) and bf8 (5 and 2) have two encodings: gfx942 reads the FNUZ ones, without infinities
 * and -0, gfx950 those of the OCP. v_mfma_*_f8f6f4 names the formats of A and B in cbsz and blgp;
 * which elements of k a lane holds of it is not documented alike everywhere, and a product does not
 * depend on it as long as A and B agree.
 */
#include <math.h>
#include <string.h>

#include "dispatch.h"
#include "machine.h"

enum element { ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16, ELEMENT_FP8, ELEMENT_BF8 };
enum { MAX_SIZE = 32, MAX_K = 128 };

static uint32_t element_nbytes(enum element element)
{
    return element == ELEMENT_F32 ? 4 : element == ELEMENT_F16 || element == ELEMENT_BF16 ? 2 : 1;
}

static float flushed(float value)
{
    return fpclassify(value) == FP_SUBNORMAL ? copysignf(0.0f, value) : value;
}

/* FNUZ: the exponent's bias is greater by one, and the only NaN is what else were -0. OCP: bf8 has
 * the infinities and NaNs of an IEEE format, fp8 one NaN of each sign and no infinity. */
static float float8_value(uint32_t bits, bool bf8, bool fnuz)
{
    const int mantissa_bits = bf8 ? 2 : 3;
    const int bias = (bf8 ? 15 : 7) + (fnuz ? 1 : 0),
              exponent = (int)(bits & 0x7f) >> mantissa_bits;
    const int mantissa = (int)bits & ((1 << mantissa_bits) - 1);
    const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;

    if (fnuz && bits == 0x80)
        return NAN;
    if (!fnuz && bf8 && exponent == 31)
        return mantissa == 0 ? sign * INFINITY : NAN;
    if (!fnuz && !bf8 && (bits & 0x7f) == 0x7f)
        return NAN;
    if (exponent == 0)
        return sign * ldexpf((float)mantissa, 1 - bias - mantissa_bits);
    return sign * ldexpf((float)(mantissa | 1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static float element_value(uint32_t bits, enum element element, bool flushes, bool fnuz)
{
    if (element == ELEMENT_FP8 || element == ELEMENT_BF8)
        return float8_value(bits & 0xff, element == ELEMENT_BF8, fnuz);

    if (element == ELEMENT_F16) {
        const uint16_t low = (uint16_t)bits;
        _Float16 half;
        if (flushes && (low & 0x7c00) == 0)
            return 0.0f;
        memcpy(&half, &low, sizeof half);
        return (float)half;
    }
    if (element == ELEMENT_BF16)
        bits <<= 16;
    const float value = as_float(bits);
    return flushes && element == ELEMENT_BF16 ? flushed(value) : value;
}

/* One operand as a matrix [k][lane mod n]. */
static void gather(const struct wave *w, const struct operand *o, enum element element, int n,
                   int k, float out[MAX_K][MAX_SIZE])
{
    const struct device *device = w->group->dispatch->device;
    const uint32_t nbytes = element_nbytes(element);
    const int groups = LANES / n, per_lane = k / groups;

    for (int l = 0; l < LANES; ++l)
        for (int i = 0; i < per_lane; ++i) {
            const uint32_t at = (uint32_t)i * nbytes;
            const uint32_t bits = w->v[o->index + at / 4][l] >> (8 * (at % 4));
            out[l / n * per_lane + i][l % n] =
                element_value(bits, element, device->flushes_subnormals, device->fnuz);
        }
}

static void multiply(struct wave *w, const struct instruction *in, enum element of_a,
                     enum element of_b, int n, int k)
{
    const struct operand *d = &in->operand[0], *c = &in->operand[3];
    const int groups = LANES / n, registers = n * n / LANES;
    const bool flushes = w->group->dispatch->device->flushes_subnormals;
    float a[MAX_K][MAX_SIZE], b[MAX_K][MAX_SIZE], row[MAX_SIZE];

    if (in->operand[1].kind != OPERAND_VECTOR || in->operand[2].kind != OPERAND_VECTOR) {
        fault(w, "a matrix operand that is not in vector registers");
        return;
    }
    gather(w, &in->operand[1], of_a, n, k, a);
    gather(w, &in->operand[2], of_b, n, k, b);
    for (int r = 0; r < registers; ++r)
        for (int group = 0; group < groups; ++group) {
            const int i = r / 4 * 4 * groups + 4 * group + r % 4;
            for (int j = 0; j < n; ++j) {
                const uint32_t bits = c->kind == OPERAND_VECTOR
                                          ? w->v[c->index + (uint32_t)r][group * n + j]
                                          : c->low;
                memcpy(&row[j], &bits, sizeof row[j]);
            }
            for (int step = 0; step < k; ++step)
                for (int j = 0; j < n; ++j)
                    row[j] = fmaf(a[step][i], b[step][j], row[j]);
            for (int j = 0; j < n; ++j) {
                const float value = flushes ? flushed(row[j]) : row[j];
                memcpy(&w->v[d->index + (uint32_t)r][group * n + j], &value, sizeof value);
            }
        }
}

/* X(name, name on gfx90a, elements of A and of B, n, k) */
#define INSTRUCTIONS(X)                                                                            \
    X(v_mfma_f32_32x32x2_f32, "v_mfma_f32_32x32x2f32", ELEMENT_F32, ELEMENT_F32, 32, 2)            \
    X(v_mfma_f32_16x16x4_f32, "v_mfma_f32_16x16x4f32", ELEMENT_F32, ELEMENT_F32, 16, 4)            \
    X(v_mfma_f32_32x32x8_f16, "v_mfma_f32_32x32x8f16", ELEMENT_F16, ELEMENT_F16, 32, 8)            \
    X(v_mfma_f32_16x16x16_f16, "v_mfma_f32_16x16x16f16", ELEMENT_F16, ELEMENT_F16, 16, 16)         \
    X(v_mfma_f32_32x32x8_bf16, "v_mfma_f32_32x32x8bf16_1k", ELEMENT_BF16, ELEMENT_BF16, 32, 8)     \
    X(v_mfma_f32_16x16x16_bf16, "v_mfma_f32_16x16x16bf16_1k", ELEMENT_BF16, ELEMENT_BF16, 16, 16)  \
    X(v_mfma_f32_32x32x16_f16, "", ELEMENT_F16, ELEMENT_F16, 32, 16)                               \
    X(v_mfma_f32_16x16x32_f16, "", ELEMENT_F16, ELEMENT_F16, 16, 32)                               \
    X(v_mfma_f32_32x32x16_bf16, "", ELEMENT_BF16, ELEMENT_BF16, 32, 16)                            \
    X(v_mfma_f32_16x16x32_bf16, "", ELEMENT_BF16, ELEMENT_BF16, 16, 32)                            \
    X(v_mfma_f32_32x32x16_fp8_fp8, "", ELEMENT_FP8, ELEMENT_FP8, 32, 16)                           \
    X(v_mfma_f32_32x32x16_fp8_bf8, "", ELEMENT_FP8, ELEMENT_BF8, 32, 16)                           \
    X(v_mfma_f32_32x32x16_bf8_fp8, "", ELEMENT_BF8, ELEMENT_FP8, 32, 16)                           \
    X(v_mfma_f32_32x32x16_bf8_bf8, "", ELEMENT_BF8, ELEMENT_BF8, 32, 16)                           \
    X(v_mfma_f32_16x16x32_fp8_fp8, "", ELEMENT_FP8, ELEMENT_FP8, 16, 32)                           \
    X(v_mfma_f32_16x16x32_fp8_bf8, "", ELEMENT_FP8, ELEMENT_BF8, 16, 32)                           \
    X(v_mfma_f32_16x16x32_bf8_fp8, "", ELEMENT_BF8, ELEMENT_FP8, 16, 32)                           \
    X(v_mfma_f32_16x16x32_bf8_bf8, "", ELEMENT_BF8, ELEMENT_BF8, 16, 32)

#define DEFINE(name, gfx90a, of_a, of_b, n, k)                                                     \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        multiply(w, in, of_a, of_b, n, k);                                                         \
    }
INSTRUCTIONS(DEFINE)

/* Formats as cbsz and blgp name them; those of 6 and 4 bits are not known here. */
static void multiply_named(struct wave *w, const struct instruction *in, int n, int k)
{
    static const enum element formats[] = {ELEMENT_FP8, ELEMENT_BF8};
    const uint32_t of_a = in->word & 0xff, of_b = in->word >> 8;

    if (of_a > 1 || of_b > 1)
        fault(w, "a matrix operand of 6 or 4 bits");
    else
        multiply(w, in, formats[of_a], formats[of_b], n, k);
}

static void v_mfma_f32_32x32x64_f8f6f4(struct wave *w, const struct instruction *in)
{
    multiply_named(w, in, 32, 64);
}

static void v_mfma_f32_16x16x128_f8f6f4(struct wave *w, const struct instruction *in)
{
    multiply_named(w, in, 16, 128);
}

#define ROWS(name, gfx90a, of_a, of_b, n, k)                                                       \
    {#name, name, 4, OPERAND_VECTOR}, {gfx90a, name, 4, OPERAND_VECTOR},
const struct operation matrix_operations[] = {
    INSTRUCTIONS(ROWS){"v_mfma_f32_32x32x64_f8f6f4", v_mfma_f32_32x32x64_f8f6f4, 4, OPERAND_VECTOR},
    {"v_mfma_f32_16x16x128_f8f6f4", v_mfma_f32_16x16x128_f8f6f4, 4, OPERAND_VECTOR},
    {NULL, NULL, 0, OPERAND_NONE}};
