/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Float8 products on gfx942, which has the FNUZ formats, and gfx950, which has the OCP ones, under
 * the same names: fp8 with four bits of exponent, bf8 with five. The formats are in the
 * instructions, so each pair of them has a loop of its own. gfx950 multiplies 64 of K, a stage, in
 * one instruction, at twice the rate of its shorter ones; its operands go to LDS directly.
 *
 * Operands that lie along M or N are transposed in pairs of k on gfx942 on their way into LDS.
 */
#ifndef IRIS_FLOAT8_CDNA_H
#define IRIS_FLOAT8_CDNA_H

#include "kernels/gpu/gemm_block.h"
#include "tile_cdna.h"

namespace iris
{

/* kABf8, kBBf8: whether A, or B, has five bits of exponent. */
template <bool kABf8, bool kBBf8> struct float8_pair : mfma_layout {
#if defined(__gfx950__)
    static constexpr int32_t kHalfProducts = 4;

    /* The operands are exchanged, as they are for other elements. See multiply_direct, of whose
     * stages a half is 64 bytes of K. */
    static IRIS_INLINE void multiply_half(accumulator &acc, const fragments (&half)[2], int32_t m)
    {
        const int32_t i = m / 2, j = m % 2;
        acc.block[i][j] = __builtin_amdgcn_mfma_scale_f32_32x32x64_f8f6f4(
            joined(half[0].y[j], half[1].y[j]), joined(half[0].x[i], half[1].x[i]), acc.block[i][j],
            kBBf8, kABf8, 0, 0, 0, 0); /* without its scales */
    }
#else
    /* Of half a stage of 64 bytes: two for each two chunks. */
    static constexpr int32_t kProducts = 8;

    /* The operands are exchanged, as they are for other elements. */
    static IRIS_INLINE void multiply(accumulator &acc, const fragments &half, int32_t m)
    {
        const int32_t i = m / 4, j = m / 2 % 2;
        acc.block[i][j] =
            multiply_eight(eight_of(half.y[j], m % 2), eight_of(half.x[i], m % 2), acc.block[i][j]);
    }

    static constexpr int32_t kHalfProducts = 2 * kProducts;

    static IRIS_INLINE void multiply_half(accumulator &acc, const fragments (&half)[2], int32_t m)
    {
        multiply(acc, half[m / kProducts], m % kProducts);
    }
#endif

    static IRIS_INLINE void step(accumulator &acc, const char *a, const char *b)
    {
        fragments half[2];
        read(half[0], a, b);
        read(half[1], a + kHalf, b + kHalf);
#pragma unroll
        for (int32_t m = 0; m < kHalfProducts; ++m)
            multiply_half(acc, half, m);
        settle(acc);
    }

    template <bool kAMn, bool kBMn>
    static IRIS_INLINE void
    multiply_runs(work_group wg, accumulator &acc, const tile_operand<float8_t> &operand_a,
                  const tile_operand<float8_t> &operand_b, int32_t steps, gemm_shared *shared)
    {
        multiply_staged<float8_t, kAMn, kBMn, float8_pair>(wg, acc, operand_a, operand_b, steps,
                                                           shared);
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

    typedef int ints4 __attribute__((ext_vector_type(4)));
    typedef int ints8 __attribute__((ext_vector_type(8)));

    static IRIS_INLINE ints8 joined(const chunk16 &first, const chunk16 &second)
    {
        return __builtin_shufflevector(__builtin_bit_cast(ints4, first),
                                       __builtin_bit_cast(ints4, second), 0, 1, 2, 3, 4, 5, 6, 7);
    }

    static IRIS_INLINE int64_t eight_of(const chunk16 &chunk, int32_t part)
    {
        typedef int64_t eights2 __attribute__((ext_vector_type(2)));
        return __builtin_bit_cast(eights2, chunk)[part];
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
    static constexpr bool kRunsAcrossK = true;

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
