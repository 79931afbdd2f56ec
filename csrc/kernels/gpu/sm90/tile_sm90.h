/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The tile implementations of sm_90a: fp32 products by fused multiply-adds, exact to fp32 (the
 * tensor cores' tf32 has 11 bits); fp16 and bf16 products by the tensor cores (gemm_sm90.h).
 */
#ifndef IRIS_TILE_SM90_H
#define IRIS_TILE_SM90_H

#include "gemm_sm90.h"
#include "kernels/gpu/gemm_block.h"

namespace iris
{

/* A thread has outputs (y + 16 i, x + 16 j), i, j < 8: neighbours read neighbouring rows of the
 * stage, which lie in different banks. */
template <typename T> struct matrix_unit {
    static_assert(sizeof(T) == 4, "the others have tensor cores");
    static constexpr bool kRunsAcrossK = true;

    struct accumulator {
        float value[8][8];
    };

    static IRIS_INLINE void clear(accumulator &acc)
    {
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j)
                acc.value[i][j] = 0.0f;
    }

    static IRIS_INLINE void hold(accumulator &)
    {
    }

    template <typename Out> static IRIS_INLINE bool needs_care(const accumulator &)
    {
        return false;
    }

    static IRIS_INLINE int32_t a_offset(int32_t thread)
    {
        return stage_offset(thread / 16, 0);
    }

    static IRIS_INLINE int32_t b_offset(int32_t thread)
    {
        return stage_offset(thread % 16, 0);
    }

    static IRIS_INLINE void step(accumulator &acc, const char *a, const char *b)
    {
#pragma unroll
        for (int32_t k = 0; k < kStageRowBytes; k += kChunkBytes) {
            chunk16 column[8];
#pragma unroll
            for (int j = 0; j < 8; ++j)
                column[j] = *reinterpret_cast<const chunk16 *>(b + stage_row(16 * j) + k);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const chunk16 row = *reinterpret_cast<const chunk16 *>(a + stage_row(16 * i) + k);
#pragma unroll
                for (int j = 0; j < 8; ++j)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        acc.value[i][j] = fmaf(bits_to_float(row.word[e]),
                                               bits_to_float(column[j].word[e]), acc.value[i][j]);
            }
        }
    }

    template <typename> static IRIS_INLINE int32_t whole_steps(int32_t steps, bool)
    {
        return steps;
    }

    /* While a stage is multiplied, the loads of the next are in flight. */
    template <bool kAMn, bool kBMn>
    static IRIS_INLINE void
    multiply_runs(work_group wg, accumulator &acc, const tile_operand<T> &operand_a,
                  const tile_operand<T> &operand_b, int32_t steps, gemm_shared *shared)
    {
        run_loader<T, kAMn> a(operand_a, wg.thread);
        run_loader<T, kBMn> b(operand_b, wg.thread);
        char *store_a = shared->a[0] + share_offset<T, kAMn>(wg.thread);
        char *store_b = shared->b[0] + share_offset<T, kBMn>(wg.thread);
        const char *read_a = shared->a[0] + a_offset(wg.thread);
        const char *read_b = shared->b[0] + b_offset(wg.thread);
        int32_t buffer = 0; /* in bytes */

        a.load(steps > 1);
        b.load(steps > 1);
        group_barrier(wg); /* shared memory still holds the tile before */
        for (; steps > 0; --steps) {
            a.store(store_a + buffer);
            b.store(store_b + buffer);
            group_barrier(wg); /* one a step: as in multiply_any */
            a.load(steps > 2); /* the last stage once more rather than a branch */
            b.load(steps > 2);
            step(acc, read_a + buffer, read_b + buffer);
            buffer ^= kStageBytes;
        }
    }

    template <class Write>
    static IRIS_INLINE void for_each(const accumulator &acc, int32_t thread, Write write)
    {
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float one[1] = {acc.value[i][j]};
                write(thread / 16 + 16 * i, thread % 16 + 16 * j, one);
            }
    }
};

/* The arguments as the kernel reads them: from constant memory, where they are passed. */
template <typename Args> IRIS_INLINE const Args &args_in_lds(work_group, const Args &args)
{
    return args;
}

} // namespace iris

#endif
