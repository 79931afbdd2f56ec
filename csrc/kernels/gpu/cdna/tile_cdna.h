/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The matrix unit of gfx90a, gfx942 and gfx950: MFMA on 32 x 32 blocks. A block of 256 threads is
 * four waves, each with 64 x 64 outputs: 2 x 2 MFMA blocks, 64 accumulators a lane.
 *
 * The operands are exchanged, so that the unit computes the transposed block and a lane holds runs
 * of four neighbouring columns of C. For one 32 x 32 block, lane l and accumulator i:
 *     row of C = l mod 32, column of C = 8 (i / 4) + 4 (l / 32) + i mod 4
 * The half-wave l / 32 takes the 16 bytes of K that begin at 16 (l / 32) of each row. Which k an
 * element is does not matter as long as A and B agree, so several MFMA share one 16-byte read.
 */
#ifndef IRIS_TILE_CDNA_H
#define IRIS_TILE_CDNA_H

#include "kernels/gpu/gemm_block.h"

namespace iris
{

typedef float floats16 __attribute__((ext_vector_type(16)));

/* c += the products of two chunks take so many instructions, of which this is one. */
template <typename T> constexpr int32_t kChunkProducts = 2;
template <typename T>
IRIS_INLINE floats16 mfma_part(const chunk16 &a, const chunk16 &b, int32_t part, floats16 c);

template <> constexpr int32_t kChunkProducts<float> = 4;

template <>
IRIS_INLINE floats16 mfma_part<float>(const chunk16 &a, const chunk16 &b, int32_t part, floats16 c)
{
    return __builtin_amdgcn_mfma_f32_32x32x2f32(bits_to_float(a.word[part]),
                                                bits_to_float(b.word[part]), c, 0, 0, 0);
}

#if defined(__gfx950__)
typedef _Float16 halves8 __attribute__((ext_vector_type(8)));
typedef __bf16 bfloats8 __attribute__((ext_vector_type(8)));

template <> constexpr int32_t kChunkProducts<half_t> = 1;
template <> constexpr int32_t kChunkProducts<bfloat16_t> = 1;

template <>
IRIS_INLINE floats16 mfma_part<half_t>(const chunk16 &a, const chunk16 &b, int32_t, floats16 c)
{
    return __builtin_amdgcn_mfma_f32_32x32x16_f16(__builtin_bit_cast(halves8, a),
                                                  __builtin_bit_cast(halves8, b), c, 0, 0, 0);
}

template <>
IRIS_INLINE floats16 mfma_part<bfloat16_t>(const chunk16 &a, const chunk16 &b, int32_t, floats16 c)
{
    return __builtin_amdgcn_mfma_f32_32x32x16_bf16(__builtin_bit_cast(bfloats8, a),
                                                   __builtin_bit_cast(bfloats8, b), c, 0, 0, 0);
}
#else
struct half_chunk {
    uint32_t word[2];
};
typedef _Float16 halves4 __attribute__((ext_vector_type(4)));
typedef short bfloats4 __attribute__((ext_vector_type(4)));

IRIS_INLINE half_chunk half_of(const chunk16 &chunk, int32_t part)
{
    return {{chunk.word[2 * part], chunk.word[2 * part + 1]}};
}

template <>
IRIS_INLINE floats16 mfma_part<half_t>(const chunk16 &a, const chunk16 &b, int32_t part, floats16 c)
{
    return __builtin_amdgcn_mfma_f32_32x32x8f16(__builtin_bit_cast(halves4, half_of(a, part)),
                                                __builtin_bit_cast(halves4, half_of(b, part)), c, 0,
                                                0, 0);
}

template <>
IRIS_INLINE floats16 mfma_part<bfloat16_t>(const chunk16 &a, const chunk16 &b, int32_t part,
                                           floats16 c)
{
    return __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(__builtin_bit_cast(bfloats4, half_of(a, part)),
                                                    __builtin_bit_cast(bfloats4, half_of(b, part)),
                                                    c, 0, 0, 0);
}
#endif

template <typename T>
IRIS_INLINE floats16 mfma_chunk(const chunk16 &a, const chunk16 &b, floats16 c)
{
#pragma unroll
    for (int32_t part = 0; part < kChunkProducts<T>; ++part)
        c = mfma_part<T>(a, b, part, c);
    return c;
}

/* Whether stages go to LDS directly; mn: of operands of which one lies across K, which LDS has to
 * transpose as they are read. Elements of 32 bits it does not transpose. */
template <typename T> IRIS_INLINE constexpr bool goes_direct(bool mn)
{
#if defined(__gfx950__)
    return !mn || sizeof(T) <= 2;
#else
    (void)mn;
    return false;
#endif
}

/* By one access, whatever part of it an instruction needs. */
IRIS_INLINE chunk16 read_chunk(const char *place)
{
    typedef uint32_t words4 __attribute__((ext_vector_type(4)));
    return __builtin_bit_cast(chunk16, *reinterpret_cast<const words4 *>(place));
}

/* The compiler moves no instruction past this point. */
IRIS_INLINE void keep_order()
{
    __builtin_amdgcn_sched_barrier(0);
}

/* All of this wave's accesses to LDS are complete. A word that the compiler knows, so that it waits
 * for none of them again. */
IRIS_INLINE void wait_for_lds()
{
    constexpr int32_t kOfLdsAlone = 0xc07f; /* vmcnt(63) expcnt(7) lgkmcnt(0) */
    __builtin_amdgcn_s_waitcnt(kOfLdsAlone);
}

} // namespace iris

#if defined(__gfx950__)
#include "direct_cdna.h"
#endif

namespace iris
{

/* Where a lane has what, whatever the elements are. */
struct mfma_layout {
    static constexpr int32_t kHalf = kStageRowBytes / 2; /* of a stage's K, in bytes */

    struct accumulator {
        floats16 block[2][2];
    };

    static IRIS_INLINE void clear(accumulator &acc)
    {
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j)
                acc.block[i][j] = floats16{};
    }

    /* The sums are in registers here: the compiler would clear them anew for each way that leads
     * from here to another loop. */
    static IRIS_INLINE void hold(accumulator &acc)
    {
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j)
                asm volatile("" : "+v"(acc.block[i][j]));
    }

    /* Whether a sum of this wave is infinite or NaN, where it takes instructions to round such. */
    template <typename Out> static IRIS_INLINE bool needs_care(const accumulator &acc)
    {
        if constexpr (sizeof(Out) == 4 || dtype_of<Out>::value == IRIS_DTYPE_F16 ||
                      kRoundsInHardware) {
            return false;
        } else {
            typedef float floats2 __attribute__((ext_vector_type(2)));
            floats2 zero = {0, 0};
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 2; ++j)
#pragma unroll
                    for (int k = 0; k < 16; k += 2)
                        zero = __builtin_elementwise_fma(
                            floats2{acc.block[i][j][k], acc.block[i][j][k + 1]}, floats2{0, 0},
                            zero);
            return __builtin_amdgcn_ballot_w64(__builtin_isunordered(zero.x, zero.y)) != 0;
        }
    }

    /* A stage that goes to LDS directly is two steps. */
    template <typename T> static IRIS_INLINE int32_t whole_steps(int32_t steps, bool mn)
    {
        return goes_direct<T>(mn) ? steps & ~1 : steps;
    }

    static IRIS_INLINE int32_t wave_row(int32_t thread)
    {
        return thread / 128 * 64;
    }

    static IRIS_INLINE int32_t wave_col(int32_t thread)
    {
        return thread / 64 % 2 * 64;
    }

    static IRIS_INLINE int32_t a_offset(int32_t thread)
    {
        return stage_row(wave_row(thread)) + stage_offset(thread % 32, thread % 64 / 32 * 16);
    }

    static IRIS_INLINE int32_t b_offset(int32_t thread)
    {
        return stage_row(wave_col(thread)) + stage_offset(thread % 32, thread % 64 / 32 * 16);
    }

    /* What a wave multiplies of a stage: of two times 32 rows of A and of B, 32 bytes of K. */
    struct fragments {
        chunk16 x[2], y[2];
    };

    static IRIS_INLINE void read(fragments &half, const char *a, const char *b)
    {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
            half.x[i] = read_chunk(a + stage_row(32 * i));
            half.y[i] = read_chunk(b + stage_row(32 * i));
        }
    }

    /* Of a lane's i-th row, and of the first column of the group-th of its runs of four. */
    static IRIS_INLINE int32_t row_of(int32_t thread, int32_t i)
    {
        return wave_row(thread) + 32 * i + thread % 32;
    }

    static IRIS_INLINE int32_t col_of(int32_t thread, int32_t j, int32_t group)
    {
        return wave_col(thread) + 32 * j + 8 * group + 4 * (thread % 64 / 32);
    }

    template <class Write>
    static IRIS_INLINE void for_each(const accumulator &acc, int32_t thread, Write write)
    {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i)
#pragma unroll
            for (int32_t j = 0; j < 2; ++j)
#pragma unroll
                for (int32_t group = 0; group < 4; ++group) {
                    const float run[4] = {
                        acc.block[i][j][4 * group], acc.block[i][j][4 * group + 1],
                        acc.block[i][j][4 * group + 2], acc.block[i][j][4 * group + 3]};
                    write(row_of(thread, i), col_of(thread, j, group), run);
                }
    }

    /* acc += (sums * of_row(row)) * of_column(col), element by element. */
    template <class Rows, class Columns>
    static IRIS_INLINE void add(accumulator &acc, const accumulator &sums, int32_t thread,
                                Rows of_row, Columns of_column)
    {
        const float rows[2] = {of_row(row_of(thread, 0)), of_row(row_of(thread, 1))};
#pragma unroll
        for (int32_t j = 0; j < 2; ++j)
#pragma unroll
            for (int32_t group = 0; group < 4; ++group)
#pragma unroll
                for (int32_t e = 0; e < 4; ++e) {
                    const float column = of_column(opaque(col_of(thread, j, group)) + e);
#pragma unroll
                    for (int32_t i = 0; i < 2; ++i)
                        acc.block[i][j][4 * group + e] +=
                            sums.block[i][j][4 * group + e] * rows[i] * column;
                }
    }
};

/* acc += `steps` >= 1 stages of both operands, by way of registers. Unit::multiply(acc, half, m) is
 * the m-th of Unit::kProducts that multiply half of a stage.
 *
 * A wave is alone on its SIMD, so everything but MFMA has to issue and complete in the shadow of
 * its own MFMA. While the first products of stage s are computed, one piece after each, its second
 * half is read from LDS, stage s + 1, whose loads have arrived in registers, is stored there, and
 * stage s + 3 is loaded in its place. Then the waves meet, and while the rest is computed, the
 * first half of stage s + 1 is read. Two stages are on their way at any time. */
template <typename T, bool kAMn, bool kBMn, class Unit>
IRIS_INLINE void multiply_stored(work_group wg, typename Unit::accumulator &acc,
                                 const tile_operand<T> &operand_a, const tile_operand<T> &operand_b,
                                 int32_t steps, gemm_shared *shared)
{
    constexpr int32_t kProducts = Unit::kProducts, kHalf = Unit::kHalf;
    constexpr int32_t kBeforeMeeting = kProducts + kProducts / 4;
    run_loader<T, kAMn> a(operand_a, wg.thread);
    run_loader<T, kBMn> b(operand_b, wg.thread);
    char *store_a = shared->a[0] + share_offset<T, kAMn>(wg.thread);
    char *store_b = shared->b[0] + share_offset<T, kBMn>(wg.thread);
    const char *read_a = shared->a[0] + Unit::a_offset(wg.thread);
    const char *read_b = shared->b[0] + Unit::b_offset(wg.thread);
    chunk16 chunks_a[2][2], chunks_b[2][2]; /* of even and of odd stages */
    typename Unit::fragments first, second;

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
    Unit::read(first, read_a, read_b);
    Unit::hold(acc);

    /* What comes after the i-th product of a stage. */
    const auto piece = [&](const int32_t i, const int32_t here, const int32_t next) {
        constexpr int32_t kHalfA = kShareParts<kAMn> / 2, kHalfB = kShareParts<kBMn> / 2;
        char *place_a = store_a + next * kStageBytes, *place_b = store_b + next * kStageBytes;
        if (i == 0)
            Unit::read(second, read_a + here * kStageBytes + kHalf,
                       read_b + here * kStageBytes + kHalf);
        else if (i <= 2)
            store_parts<T, kAMn>(place_a, chunks_a[next], (i - 1) * kHalfA, i * kHalfA);
        else if (i == 3)
            a.load_stage(chunks_a[next]);
        else if (i <= 5)
            store_parts<T, kBMn>(place_b, chunks_b[next], (i - 4) * kHalfB, (i - 3) * kHalfB);
        else if (i == 6)
            b.load_stage(chunks_b[next]);
    };
    const auto product = [&](const int32_t m) {
        Unit::multiply(acc, m < kProducts ? first : second, m % kProducts);
    };
    const auto stage = [&](const int32_t here, const int32_t next) {
        keep_order();
        wait_for_lds(); /* for the first half, once */
#pragma unroll
        for (int32_t m = 0; m < kBeforeMeeting; ++m) {
            keep_order();
            product(m);
            keep_order();
            piece(m, here, next);
        }
        keep_order();
        /* The next stage is in LDS, and of this one, whose place the next but one takes, everybody
         * has read all. */
        group_barrier(wg);
        keep_order();
        Unit::read(first, read_a + next * kStageBytes, read_b + next * kStageBytes);
        keep_order();
        a.advance(steps > 4);
        b.advance(steps > 4);
#pragma unroll
        for (int32_t m = kBeforeMeeting; m < 2 * kProducts; ++m)
            product(m);
        --steps;
    };
    IRIS_NO_UNROLL
    while (steps >= 2) {
        stage(0, 1);
        stage(1, 0);
    }
    if (steps > 0)
        stage(0, 1);
}

/* `steps` >= 1 stages of operands that have runs, in the way that is the faster one. */
template <typename T, bool kAMn, bool kBMn, class Unit>
IRIS_INLINE void multiply_staged(work_group wg, typename Unit::accumulator &acc,
                                 const tile_operand<T> &operand_a, const tile_operand<T> &operand_b,
                                 int32_t steps, gemm_shared *shared)
{
#if defined(__gfx950__)
    if constexpr (goes_direct<T>(kAMn || kBMn))
        return multiply_direct<T, kAMn, kBMn, Unit>(wg, acc, operand_a, operand_b, steps / 2,
                                                    shared);
    else
#endif
        multiply_stored<T, kAMn, kBMn, Unit>(wg, acc, operand_a, operand_b, steps, shared);
}

template <typename T> struct matrix_unit : mfma_layout {
    static constexpr bool kRunsAcrossK = true;

    /* Of half a stage of 64 bytes. */
    static constexpr int32_t kProducts = 4 * kChunkProducts<T>;

    static IRIS_INLINE void multiply(accumulator &acc, const fragments &half, int32_t m)
    {
        const int32_t i = m / kChunkProducts<T> / 2, j = m / kChunkProducts<T> % 2;
        acc.block[i][j] =
            mfma_part<T>(half.y[j], half.x[i], m % kChunkProducts<T>, acc.block[i][j]);
    }

    static IRIS_INLINE void multiply(accumulator &acc, const fragments &half)
    {
#pragma unroll
        for (int32_t m = 0; m < kProducts; ++m)
            multiply(acc, half, m);
    }

    static IRIS_INLINE void step(accumulator &acc, const char *a, const char *b)
    {
#pragma unroll
        for (int32_t k = 0; k < kStageRowBytes; k += kHalf) {
            fragments half;
            read(half, a + k, b + k);
            multiply(acc, half);
        }
    }

    static constexpr int32_t kHalfProducts = 2 * kProducts;

    /* See multiply_direct. */
    static IRIS_INLINE void multiply_half(accumulator &acc, const fragments (&half)[2], int32_t m)
    {
        multiply(acc, half[m / kProducts], m % kProducts);
    }

    template <bool kAMn, bool kBMn>
    static IRIS_INLINE void
    multiply_runs(work_group wg, accumulator &acc, const tile_operand<T> &operand_a,
                  const tile_operand<T> &operand_b, int32_t steps, gemm_shared *shared)
    {
        multiply_staged<T, kAMn, kBMn, matrix_unit>(wg, acc, operand_a, operand_b, steps, shared);
    }
};

/* The arguments as the kernel reads them: a copy in LDS. Read from where they are passed, the
 * compiler would keep most of them in scalar registers, of which there are too few. */
template <typename Args> IRIS_INLINE const Args &args_in_lds(work_group wg, const Args &args)
{
    IRIS_SHARED static Args copy;
    const uint32_t *from = reinterpret_cast<const uint32_t *>(&args);
    uint32_t *to = reinterpret_cast<uint32_t *>(&copy);
    for (uint32_t i = (uint32_t)wg.thread; i < sizeof(Args) / 4; i += (uint32_t)wg.threads)
        to[i] = from[i];
    group_barrier(wg);
    return copy;
}

} // namespace iris

#endif
