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
 * that are subnormal count as zero, as AMD documents for MI200.
 */
#include <math.h>
#include <string.h>

#include "dispatch.h"
#include "machine.h"

enum element { ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16 };
enum { MAX_SIZE = 32, MAX_K = 32 };

static float flushed(float value)
{
    return fpclassify(value) == FP_SUBNORMAL ? copysignf(0.0f, value) : value;
}

static float element_value(uint32_t bits, enum element element, bool flushes)
{
    float value;

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
    memcpy(&value, &bits, sizeof value);
    return flushes && element == ELEMENT_BF16 ? flushed(value) : value;
}

/* One operand as a matrix [k][lane mod n]. */
static void gather(const struct wave *w, const struct operand *o, enum element element, int n,
                   int k, bool flushes, float out[MAX_K][MAX_SIZE])
{
    const int groups = LANES / n, per_lane = k / groups;

    for (int l = 0; l < LANES; ++l)
        for (int i = 0; i < per_lane; ++i) {
            const uint32_t word =
                w->v[o->index + (uint32_t)(element == ELEMENT_F32 ? i : i / 2)][l];
            const uint32_t bits = element == ELEMENT_F32 || i % 2 == 0 ? word : word >> 16;
            out[l / n * per_lane + i][l % n] = element_value(bits, element, flushes);
        }
}

static void multiply(struct wave *w, const struct instruction *in, enum element element, int n,
                     int k)
{
    const struct operand *d = &in->operand[0], *c = &in->operand[3];
    const int groups = LANES / n, registers = n * n / LANES;
    const bool flushes = w->group->dispatch->device->flushes_subnormals;
    float a[MAX_K][MAX_SIZE], b[MAX_K][MAX_SIZE], row[MAX_SIZE];

    if (in->operand[1].kind != OPERAND_VECTOR || in->operand[2].kind != OPERAND_VECTOR) {
        fault(w, "a matrix operand that is not in vector registers");
        return;
    }
    gather(w, &in->operand[1], element, n, k, flushes, a);
    gather(w, &in->operand[2], element, n, k, flushes, b);
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

/* X(name, name on gfx90a, element, n, k) */
#define INSTRUCTIONS(X)                                                                            \
    X(v_mfma_f32_32x32x2_f32, "v_mfma_f32_32x32x2f32", ELEMENT_F32, 32, 2)                         \
    X(v_mfma_f32_16x16x4_f32, "v_mfma_f32_16x16x4f32", ELEMENT_F32, 16, 4)                         \
    X(v_mfma_f32_32x32x8_f16, "v_mfma_f32_32x32x8f16", ELEMENT_F16, 32, 8)                         \
    X(v_mfma_f32_16x16x16_f16, "v_mfma_f32_16x16x16f16", ELEMENT_F16, 16, 16)                      \
    X(v_mfma_f32_32x32x8_bf16, "v_mfma_f32_32x32x8bf16_1k", ELEMENT_BF16, 32, 8)                   \
    X(v_mfma_f32_16x16x16_bf16, "v_mfma_f32_16x16x16bf16_1k", ELEMENT_BF16, 16, 16)                \
    X(v_mfma_f32_32x32x16_f16, "", ELEMENT_F16, 32, 16)                                            \
    X(v_mfma_f32_16x16x32_f16, "", ELEMENT_F16, 16, 32)                                            \
    X(v_mfma_f32_32x32x16_bf16, "", ELEMENT_BF16, 32, 16)                                          \
    X(v_mfma_f32_16x16x32_bf16, "", ELEMENT_BF16, 16, 32)

#define DEFINE(name, gfx90a, element, n, k)                                                        \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        multiply(w, in, element, n, k);                                                            \
    }
INSTRUCTIONS(DEFINE)

#define ROWS(name, gfx90a, element, n, k)                                                          \
    {#name, name, 4, OPERAND_VECTOR}, {gfx90a, name, 4, OPERAND_VECTOR},
const struct operation matrix_operations[] = {INSTRUCTIONS(ROWS){NULL, NULL, 0, OPERAND_NONE}};
