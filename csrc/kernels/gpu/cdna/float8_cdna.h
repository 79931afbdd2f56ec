/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Float8 products on gfx942, which has the FNUZ formats, and gfx950, which has the OCP ones, under
 * the same names: fp8 with four bits of exponent, bf8 with five. The formats are in the
 * instructions, so each pair of them has a loop of its own. gfx950 multiplies 64 of K, a stage, in
 * one instruction, at twice the rate of its shorter ones; its operands go to LDS directly.
 *
 * Operands that lie along M or N are transposed byte by byte on their way into LDS, by the loop for
 * operands of any layout.
 */
#ifndef IRIS_FLOAT8_CDNA_H
#define IRIS_FLOAT8_CDNA_H

#include "kernels/gpu/gemm_block.h"
#include "tile_cdna.h"

namespace iris
{

/* kABf8, kBBf8: whether A, or B, has five bits of exponent. */
template <bool kABf8, bool kBBf8> struct float8_pair : mfma_layout {
    /* Of a whole stage: its halves. */
    struct stage_fragments {
        fragments half[2];
    };

    static IRIS_INLINE void read_stage(stage_fragments &stage, const char *a, const char *b)
    {
        read(stage.half[0], a, b);
        read(stage.half[1], a + kHalf, b + kHalf);
    }

    /* The operands are exchanged, as they are for other elements. */
    static IRIS_INLINE void multiply(accumulator &acc, const stage_fragments &stage, int32_t i,
                                     int32_t j)
    {
#if defined(__gfx950__)
        struct pair {
            chunk16 half[2];
        };
        typedef int ints8 __attribute__((ext_vector_type(8)));
        const pair y = {{ stage.half[0].y[j], stage.half[1].y[j] }};
        const pair x = {{ stage.half[0].x[i], stage.half[1].x[i] }};
        acc.block[i][j] = __builtin_amdgcn_mfma_scale_f32_32x32x64_f8f6f4(
            __builtin_bit_cast(ints8, y), __builtin_bit_cast(ints8, x), acc.block[i][j], kBBf8,
            kABf8, 0, 0, 0, 0); /* without its scales */
#else
#pragma unroll
        for (int32_t half = 0; half < 2; ++half)
#pragma unroll
            for (int32_t part = 0; part < 2; ++part)
                acc.block[i][j] =
                    multiply_eight(eight_of(stage.half[half].y[j], part),
                                   eight_of(stage.half[half].x[i], part), acc.block[i][j]);
#endif
    }

    static constexpr int32_t kHalfProducts = 4;

    /* See multiply_direct, of whose stages a half is what is a stage here. */
    static IRIS_INLINE void multiply_half(accumulator &acc, const fragments (&half)[2], int32_t m)
    {
        multiply(acc, stage_fragments{{half[0], half[1]}}, m / 2, m % 2);
    }

    static IRIS_INLINE void step(accumulator &acc, const char *a, const char *b)
    {
        stage_fragments stage;
        read_stage(stage, a, b);
#pragma unroll
        for (int32_t i = 0; i < 2; ++i)
#pragma unroll
            for (int32_t j = 0; j < 2; ++j)
                multiply(acc, stage, i, j);
        settle(acc);
    }

    /* While stage s is multiplied, stage s + 1, whose loads have arrived in registers, is stored in
     * LDS, stage s + 3 is loaded in its place, and stage s + 1 is read. */
    template <bool kAMn, bool kBMn>
    static IRIS_INLINE void
    multiply_runs(work_group wg, accumulator &acc, const tile_operand<float8_t> &operand_a,
                  const tile_operand<float8_t> &operand_b, int32_t steps, gemm_shared *shared)
    {
        using T = float8_t;
#if defined(__gfx950__)
        if constexpr (!kAMn && !kBMn) {
            multiply_direct<T, float8_pair>(wg, acc, operand_a, operand_b, steps / 2, shared);
            return settle(acc);
        }
#endif
        run_loader<T, kAMn> a(operand_a, wg.thread);
        run_loader<T, kBMn> b(operand_b, wg.thread);
        char *store_a = shared->a[0] + share_offset<T, kAMn>(wg.thread);
        char *store_b = shared->b[0] + share_offset<T, kBMn>(wg.thread);
        const char *read_a = shared->a[0] + a_offset(wg.thread);
        const char *read_b = shared->b[0] + b_offset(wg.thread);
        chunk16 chunks_a[2][2], chunks_b[2][2]; /* of even and of odd stages */
        stage_fragments fragments_of[2];

        /* Past the last stage, the last one once more rather than a branch. */
        a.load(chunks_a[0], steps > 1);
        b.load(chunks_b[0], steps > 1);
        a.load(chunks_a[1], steps > 2);
        b.load(chunks_b[1], steps > 2);
        group_barrier(wg); /* shared memory still holds the tile before */
        store_share<T, kAMn>(store_a, chunks_a[0]);
        store_share<T, kBMn>(store_b, chunks_b[0]);
        a.load(chunks_a[0], steps > 3);
        b.load(chunks_b[0], steps > 3);
        group_barrier(wg);
        read_stage(fragments_of[0], read_a, read_b);

        const auto stage = [&](const int32_t here, const int32_t next) {
            keep_order();
            store_share<T, kAMn>(store_a + next * kStageBytes, chunks_a[next]);
            keep_order();
            multiply(acc, fragments_of[here], 0, 0);
            keep_order();
            store_share<T, kBMn>(store_b + next * kStageBytes, chunks_b[next]);
            keep_order();
            multiply(acc, fragments_of[here], 0, 1);
            keep_order();
            a.load(chunks_a[next], steps > 4);
            b.load(chunks_b[next], steps > 4);
            keep_order();
            /* The next stage is in LDS; this one everybody has read. */
            group_barrier(wg);
            keep_order();
            read_stage(fragments_of[next], read_a + next * kStageBytes,
                       read_b + next * kStageBytes);
            keep_order();
            multiply(acc, fragments_of[here], 1, 0);
            multiply(acc, fragments_of[here], 1, 1);
            --steps;
        };
        IRIS_NO_UNROLL
        while (steps >= 2) {
            stage(0, 1);
            stage(1, 0);
        }
        if (steps > 0)
            stage(0, 1);
        settle(acc);
    }

  private:
    /* What reads a result of 16 passes on gfx950 needs 20 wait states behind it, and on gfx942 one
     * of 8 passes 11. LLVM 22 leaves out the last one where there are just so many already, on
     * gfx942 across the end of a loop. */
    static IRIS_INLINE void settle(accumulator &acc)
    {
        asm volatile("s_nop 15\n\ts_nop 3"
                     : "+v"(acc.block[0][0]), "+v"(acc.block[0][1]), "+v"(acc.block[1][0]),
                       "+v"(acc.block[1][1]));
    }

    static IRIS_INLINE int64_t eight_of(const chunk16 &chunk, int32_t part)
    {
        return (int64_t)((uint64_t)chunk.word[2 * part + 1] << 32 | chunk.word[2 * part]);
    }

    /* Of B and of A. */
    static IRIS_INLINE floats16 multiply_eight(int64_t y, int64_t x, floats16 c)
    {
        if constexpr (kBBf8 && kABf8)
            return __builtin_amdgcn_mfma_f32_32x32x16_bf8_bf8(y, x, c, 0, 0, 0);
        else if constexpr (kBBf8)
            return __builtin_amdgcn_mfma_f32_32x32x16_bf8_fp8(y, x, c, 0, 0, 0);
        else if constexpr (kABf8)
            return __builtin_amdgcn_mfma_f32_32x32x16_fp8_bf8(y, x, c, 0, 0, 0);
        else
            return __builtin_amdgcn_mfma_f32_32x32x16_fp8_fp8(y, x, c, 0, 0, 0);
    }
};

/* The matrix unit for the formats that an accumulator is told. What brings operands to LDS is the
 * same for all formats. */
struct float8_unit : mfma_layout {
    static constexpr bool kRunsAcrossK = false;

    struct accumulator : mfma_layout::accumulator {
        int32_t formats; /* bit 0: A is bf8, bit 1: B is */
    };

    static IRIS_INLINE int32_t formats_of(const iris_scaling &scaling)
    {
        return (is_bf8(scaling.a_dtype) ? 1 : 0) | (is_bf8(scaling.b_dtype) ? 2 : 0);
    }

    static IRIS_INLINE void step(accumulator &acc, const char *a, const char *b)
    {
        by_formats(acc, [&](auto pair) { pair.step(acc, a, b); });
    }

    template <bool kAMn, bool kBMn>
    static IRIS_INLINE void
    multiply_runs(work_group wg, accumulator &acc, const tile_operand<float8_t> &operand_a,
                  const tile_operand<float8_t> &operand_b, int32_t steps, gemm_shared *shared)
    {
        by_formats(acc, [&](auto pair) {
            pair.template multiply_runs<kAMn, kBMn>(wg, acc, operand_a, operand_b, steps, shared);
        });
    }

  private:
    static IRIS_INLINE bool is_bf8(uint32_t dtype)
    {
        return dtype == IRIS_DTYPE_F8_E5M2 || dtype == IRIS_DTYPE_F8_E5M2FNUZ;
    }

    template <class Visit> static IRIS_INLINE void by_formats(const accumulator &acc, Visit visit)
    {
        const int32_t formats = (int32_t)uniform(acc.formats);
        if (formats == 0)
            visit(float8_pair<false, false>{});
        else if (formats == 1)
            visit(float8_pair<true, false>{});
        else if (formats == 2)
            visit(float8_pair<false, true>{});
        else
            visit(float8_pair<true, true>{});
    }
};

} // namespace iris

#endif
