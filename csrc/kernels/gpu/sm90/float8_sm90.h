/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The tensor cores' float8 products on sm_90a. They add up in fewer bits than fp32 has: measured by
 * others, about 14. So no more than kPromotedK of K are added up there; these sums are then added
 * to others, in fp32, by the math warpgroups' threads ("promoted"), times the scales of their
 * blocks, if there are any. While one warpgroup promotes, the other one multiplies.
 *
 * wgmma takes float8 only in K order. An operand that lies along M or N is loaded element by
 * element (load_operand_elements).
 *
 * A thread has sums of the whole tile and, beside them, what the tensor cores add up of some of its
 * columns; a wide tile takes three turns at each stage. For that the math warpgroups need more
 * registers than a block has for all alike: the first warpgroup gives them.
 */
#ifndef IRIS_FLOAT8_SM90_H
#define IRIS_FLOAT8_SM90_H

#include "gemm_sm90.h"
#include "kernels/gpu/float8_scales.h"

namespace iris
{

constexpr int32_t kPromotedK = kStageK<float8_t>;
static_assert(kPromotedK == IRIS_SCALE_BLOCK, "a stage has the scales of one block");
/* Of a thread: of the loader's warpgroup, and of the others. A block has 168 for each at its
 * launch, and no more. */
constexpr int kFloat8LoadRegisters = 104, kFloat8MathRegisters = 200;
static_assert(kFloat8LoadRegisters + 2 * kFloat8MathRegisters <= 3 * 168, "or they wait forever");

/* d (64 x n, fp32) = a (64 x 32) @ b (32 x n) + (accumulate ? d : 0). */
#define IRIS_DEFINE_FLOAT8_WGMMA(n, of_a, of_b, accumulators, operands, pa, pb, pp)                \
    IRIS_INLINE void issue_wgmma_##of_a##_##of_b(float (&d)[n / 2], uint64_t a, uint64_t b,        \
                                                 bool accumulate)                                  \
    {                                                                                              \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " pp ", 0;\n"                               \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k32.f32." #of_a "." #of_b             \
                     " {" operands "}, " pa ", " pb ", p, 1, 1;\n}\n"                              \
                     : accumulators                                                                \
                     : "l"(a), "l"(b), "r"((int32_t)accumulate));                                  \
    }
/* d = a line of K of 64 rows of A times the same of n columns of B. Nothing reads d before. */
#define IRIS_DEFINE_FLOAT8_WGMMAS(of_a, of_b)                                                      \
    IRIS_DEFINE_FLOAT8_WGMMA(64, of_a, of_b, IRIS_32_ACCUMULATORS, IRIS_32_OPERANDS, "%32", "%33", \
                             "%34")                                                                \
    IRIS_DEFINE_FLOAT8_WGMMA(96, of_a, of_b, IRIS_48_ACCUMULATORS, IRIS_48_OPERANDS, "%48", "%49", \
                             "%50")                                                                \
    IRIS_DEFINE_FLOAT8_WGMMA(128, of_a, of_b, IRIS_64_ACCUMULATORS, IRIS_64_OPERANDS, "%64",       \
                             "%65", "%66")                                                         \
    template <int32_t kCount>                                                                      \
    IRIS_INLINE void multiply_lines_##of_a##_##of_b(float (&d)[kCount], uint32_t a, uint32_t b)    \
    {                                                                                              \
        wgmma_fence();                                                                             \
        _Pragma("unroll") for (uint32_t k = 0; k < kLineBytes; k += 32)                            \
            issue_wgmma_##of_a##_##of_b(d, operand_descriptor(a + k, 0),                           \
                                        operand_descriptor(b + k, 0), k > 0);                      \
        wgmma_commit();                                                                            \
        wgmma_wait<0>();                                                                           \
        _Pragma("unroll") for (int32_t i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i]));      \
    }
IRIS_DEFINE_FLOAT8_WGMMAS(e4m3, e4m3)
IRIS_DEFINE_FLOAT8_WGMMAS(e4m3, e5m2)
IRIS_DEFINE_FLOAT8_WGMMAS(e5m2, e4m3)
IRIS_DEFINE_FLOAT8_WGMMAS(e5m2, e5m2)
#undef IRIS_DEFINE_FLOAT8_WGMMAS
#undef IRIS_DEFINE_FLOAT8_WGMMA

/* The formats are the same for all threads: the branches are no more than jumps. */
template <int32_t kCount>
IRIS_INLINE void multiply_lines(float (&d)[kCount], const iris_scaling &scaling, uint32_t a,
                                uint32_t b)
{
    if (scaling.a_dtype == IRIS_DTYPE_F8_E4M3FN && scaling.b_dtype == IRIS_DTYPE_F8_E4M3FN)
        multiply_lines_e4m3_e4m3(d, a, b);
    else if (scaling.a_dtype == IRIS_DTYPE_F8_E4M3FN)
        multiply_lines_e4m3_e5m2(d, a, b);
    else if (scaling.b_dtype == IRIS_DTYPE_F8_E4M3FN)
        multiply_lines_e5m2_e4m3(d, a, b);
    else
        multiply_lines_e5m2_e5m2(d, a, b);
}

/* Where a step's scales are: of which part of K its A is, and its blocks, counted from where that
 * part of A, and B, begin. */
struct step_scales {
    int32_t part;
    int64_t block, block_of_b;
};

/* The first of the two rows of a tile of which a thread has elements; the other is 8 below. */
IRIS_INLINE int32_t first_row(int32_t thread, int32_t half)
{
    return half * kPartRows + thread / 32 % 4 * 16 + thread % 32 / 4;
}

/* Multiplies a thread's sums by the scales of its two rows, see first_row. */
template <int32_t kCols>
IRIS_INLINE void scale_rows(float (&d)[kCols / 2], float first, float second)
{
#pragma unroll
    for (int32_t i = 0; i < kCols / 2; ++i)
        d[i] *= i % 4 < 2 ? first : second;
}

/* Multiplies a thread's sums of a tile's columns by the scales of these, in a block of K. A warp's
 * lanes load each scale once and show it to each other: few registers are left. */
template <int32_t kCols>
IRIS_INLINE void scale_columns(float (&d)[kCols / 2], const tile_scales &columns, int64_t block,
                               int32_t thread)
{
    constexpr int32_t kLanes = 32;
    const int32_t lane = thread % kLanes;
    float held[kCols / kLanes];

#pragma unroll
    for (int32_t i = 0; i < kCols / kLanes; ++i)
        held[i] = columns.at(lane + kLanes * i, block);
#pragma unroll
    for (int32_t i = 0; i < kCols / 2; ++i) {
        const int32_t col = i / 4 * 8 + i % 2; /* of the thread's group of four */
        d[i] *= __shfl_sync(~0u, held[col / kLanes], col % kLanes + lane % 4 * 2);
    }
}

template <class Call> IRIS_INLINE tile_scales column_scales(const Call &c, int64_t tile)
{
    const iris_tile_coord at = c.coord(tile);
    return {c.args.scaling.b, at.col, at.cols};
}

/* Whether a step of K has scales that the next one does not have. */
template <class Call> IRIS_INLINE bool scales_by_steps(const Call &c)
{
    return c.scales_rows_by_steps() || IRIS_SCALES_BY_BLOCKS(c.args.scaling.b.kind);
}

/* Multiplies what the tensor cores have added up in a step by the scales of its blocks. */
template <class Call>
IRIS_INLINE void scale_step(float (&d)[kNarrow / 2], const Call &c, int64_t tile, int32_t half,
                            int32_t step)
{
    const iris_scaling &scaling = c.args.scaling;
    const step_scales piece = c.piece_of(tile, step);
    const bool of_rows = c.scales_rows_by_steps();
    const tile_scales rows = c.row_scales(tile, piece.part), columns = column_scales(c, tile);
    const int32_t thread = (int32_t)threadIdx.x, row = first_row(thread, half);
    const bool one = scaling.b.kind == IRIS_SCALE_SQUARE && columns.first % IRIS_SCALE_BLOCK == 0;
    const float of_block = one ? columns.at(0, piece.block_of_b) : 1.0f;
    const float first = (of_rows ? rows.at(row, piece.block) : 1.0f) * of_block;
    const float second = (of_rows ? rows.at(row + 8, piece.block) : 1.0f) * of_block;

    scale_rows<kNarrow>(d, first, second);
    if (IRIS_SCALES_BY_BLOCKS(scaling.b.kind) && !one)
        scale_columns<kNarrow>(d, columns, piece.block_of_b, thread);
}

/* Adds a stage's product of `kCols` columns from `kFirst` on. */
template <int32_t kFirst, int32_t kCols, int32_t kTileN>
IRIS_INLINE void promote_columns(float (&sums)[kTileN / 2], const iris_scaling &scaling, uint32_t a,
                                 uint32_t b)
{
    float d[kCols / 2];
    multiply_lines(d, scaling, a, b + kFirst * kLineBytes);
#pragma unroll
    for (int32_t i = 0; i < kCols / 2; ++i)
        sums[kFirst / 2 + i] += d[i];
}

/* One tile's sum over K by this warpgroup, whose rows begin at 64 `half`. */
template <int32_t kTileN, class Call>
IRIS_INLINE void multiply_float8_tile(float (&sums)[kTileN / 2], const Call &c,
                                      stage_cursor &cursor, int64_t tile, int32_t half,
                                      int32_t steps)
{
    sm90_shared *shared = c.shared;
    const iris_scaling &scaling = c.args.scaling;

#pragma unroll
    for (int32_t i = 0; i < kTileN / 2; ++i)
        sums[i] = 0.0f;
    IRIS_NO_UNROLL
    for (int32_t step = 0; step < steps; ++step) {
        wait_mbarrier(&shared->full[cursor.stage], cursor.phase);
        const uint32_t a = shared_address(shared->a[cursor.stage]) + half * 64 * kLineBytes;
        const uint32_t b = shared_address(shared->b[cursor.stage]);
        if constexpr (kTileN == kWide) {
            promote_columns<0, 96, kTileN>(sums, scaling, a, b);
            promote_columns<96, 96, kTileN>(sums, scaling, a, b);
            promote_columns<192, 64, kTileN>(sums, scaling, a, b);
        } else {
            float d[kTileN / 2];
            multiply_lines(d, scaling, a, b);
            if (scales_by_steps(c))
                scale_step(d, c, tile, half, step);
#pragma unroll
            for (int32_t i = 0; i < kTileN / 2; ++i)
                sums[i] += d[i];
        }
        if (threadIdx.x % kGroupThreads == 0)
            arrive_mbarrier(&shared->empty[cursor.stage]);
        cursor.advance();
    }
}

/* This warpgroup's half of the tile times those scales that all of K has. */
template <int32_t kTileN, class Call>
IRIS_INLINE void scale_part(float (&d)[kTileN / 2], const Call &c, int64_t tile, int32_t half)
{
    const int32_t thread = thread_found_anew(c.shared);
    if (!c.scales_rows_by_steps()) {
        const tile_scales rows = c.row_scales(tile, c.piece_of(tile, 0).part);
        const int32_t row = first_row(thread, half);
        scale_rows<kTileN>(d, rows.at(row, 0), rows.at(row + 8, 0));
    }
    if (!IRIS_SCALES_BY_BLOCKS(c.args.scaling.b.kind))
        scale_columns<kTileN>(d, column_scales(c, tile), 0, thread);
}

} // namespace iris

#endif
