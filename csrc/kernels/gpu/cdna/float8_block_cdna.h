/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Float8 products by blocks that multiply one tile at a time: sums over pieces of K, each times the
 * scales of its rows and columns. Where there are scales by blocks of K, a piece is a block.
 */
#ifndef IRIS_FLOAT8_BLOCK_CDNA_H
#define IRIS_FLOAT8_BLOCK_CDNA_H

#include "float8_cdna.h"
#include "kernels/gpu/float8_scales.h"
#include "kernels/gpu/matmul_block.h"

namespace iris
{

/* A piece of a tile's product: operands that begin where it does, the tile's first row in A, and
 * the first of its blocks of K. */
struct scaled_piece {
    iris_matrix_args a, b;
    int64_t row, block_of_a, block_of_b, K;
};

/* acc += a piece, all of which has the same scales: rows() and columns(), asked for when its sums
 * are there, since the product leaves no registers for them. */
template <class Accumulator, class Scales>
IRIS_INLINE void add_scaled(work_group wg, Accumulator &acc, const iris_scaling &scaling,
                            const scaled_piece &piece, const Scales &scales,
                            const iris_tile_coord &at, gemm_shared *shared)
{
    float8_unit::accumulator sums;
    float8_unit::clear(sums);
    sums.formats = float8_unit::formats_of(scaling);
    block_gemm_add<float8_t, float8_unit>(wg, sums, piece.a, piece.row, piece.b, at, piece.K,
                                          shared);
    const tile_scales rows = scales.rows(), columns = scales.columns();
    float8_unit::add(
        acc, sums, wg.thread, [&](int32_t row) { return rows.at(row, piece.block_of_a); },
        [&](int32_t col) { return columns.at(col, piece.block_of_b); });
}

/* acc += a piece, whose blocks of K may have scales of their own. */
template <class Accumulator, class Scales>
IRIS_INLINE void add_float8(work_group wg, Accumulator &acc, const iris_scaling &scaling,
                            const scaled_piece &whole, const Scales &scales,
                            const iris_tile_coord &at, gemm_shared *shared)
{
    IRIS_NO_UNROLL
    for (int64_t next = 0;;) {
        const int64_t k = uniform(next);
        if (k >= uniform(whole.K))
            return;
        /* Nothing of it is found before, and kept: there are no registers for it. */
        scaled_piece piece = to_vector_registers(whole);
        const int64_t left = piece.K - k;
        if (scales_by_blocks(scaling) && left > IRIS_SCALE_BLOCK)
            piece.K = IRIS_SCALE_BLOCK;
        else
            piece.K = left;
        piece.a.address += (uint64_t)(k * piece.a.stride_col);
        piece.b.address += (uint64_t)(k * piece.b.stride_row);
        piece.block_of_a += k / IRIS_SCALE_BLOCK;
        piece.block_of_b += k / IRIS_SCALE_BLOCK;
        next = to_vector_registers(k + piece.K);
        add_scaled(wg, acc, scaling, piece, scales, at, shared);
    }
}

/* Of a whole tile. */
struct product_scales {
    const iris_scaling &scaling;
    const iris_tile_coord &tile;

    IRIS_INLINE tile_scales rows() const
    {
        return {scaling.a, tile.row, tile.rows};
    }
    IRIS_INLINE tile_scales columns() const
    {
        return {scaling.b, tile.col, tile.cols};
    }
};

/* Of a tile of shard `part`, in which it begins at `row`. */
template <class Shards> struct shard_scales {
    const iris_scaling &scaling;
    const iris_tile_coord &tile;
    const Shards &shards;
    int32_t part;
    int64_t row;

    IRIS_INLINE tile_scales rows() const
    {
        return {shards.scales(part), row, tile.rows};
    }
    IRIS_INLINE tile_scales columns() const
    {
        return {scaling.b, tile.col, tile.cols};
    }
};

template <typename T> struct block_product<scaled<T>> {
    using unit = mfma_layout;
    using accumulator = unit::accumulator;

    static IRIS_INLINE void multiply(work_group wg, accumulator &acc, const iris_product_args &args,
                                     const iris_tile_coord &at, gemm_shared *gemm)
    {
        const iris_reduce_args &r = args.reduce;
        unit::clear(acc);
        add_float8(wg, acc, args.scaling, {r.a, r.b, at.row, 0, 0, r.K},
                   product_scales{args.scaling, at}, at, gemm);
    }

    template <class Shards, class Piece>
    static IRIS_INLINE void add(work_group wg, accumulator &acc, const iris_product_args &args,
                                const Shards &shards, const Piece &piece, const iris_tile_coord &at,
                                gemm_shared *gemm)
    {
        add_float8(wg, acc, args.scaling,
                   {piece.a, piece.b, piece.row, piece.k / IRIS_SCALE_BLOCK,
                    (piece.first + piece.k) / IRIS_SCALE_BLOCK, piece.length},
                   shard_scales<Shards>{args.scaling, at, shards, piece.part, piece.row}, at, gemm);
    }
};

} // namespace iris

#endif
