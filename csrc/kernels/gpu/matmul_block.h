/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A fused product by a block that computes and pushes its tiles one after the other, then reduces
 * and publishes those that it owns.
 */
#ifndef IRIS_MATMUL_BLOCK_H
#define IRIS_MATMUL_BLOCK_H

#include "gpu_collectives.h"
#include "kernels/base/tile.h"

namespace iris
{

template <typename T>
using block_geometry = product_geometry<T, IRIS_GEMM_BLOCK_M, IRIS_GEMM_BLOCK_N, 1, false, 8>;

/* How a block multiplies, for P as in gpu_products.h; of float8 see float8_block_cdna.h. */
template <typename P> struct block_product {
    using unit = matrix_unit<P>;
    using accumulator = typename unit::accumulator;

    /* acc = a tile of A @ B. */
    static IRIS_INLINE void multiply(work_group wg, accumulator &acc, const iris_product_args &args,
                                     const iris_tile_coord &at, gemm_shared *gemm)
    {
        block_gemm<P, unit>(wg, acc, args.reduce, at, gemm);
    }

    /* acc += a piece of a tile of a gathered A, of which `shards` knows all. */
    template <class Shards, class Piece>
    static IRIS_INLINE void add(work_group wg, accumulator &acc, const iris_product_args &,
                                const Shards &, const Piece &piece, const iris_tile_coord &at,
                                gemm_shared *gemm)
    {
        block_gemm_add<P, unit>(wg, acc, piece.a, piece.row, piece.b, at, piece.length, gemm);
    }
};

template <typename P, iris_variant kVariant, result kResult>
IRIS_INLINE void block_matmul(work_group wg, const iris_product_args &product)
{
    using T = typename product_types<P>::result;
    using unit = typename block_product<P>::unit;
    const iris_reduce_args &args = product.reduce;
    IRIS_SHARED static gemm_shared gemm;
    IRIS_SHARED static reduction_shared shared;
    const call_state call = call_begin(args.call);
    using reduction_t = gpu_reduction<T, kVariant, block_geometry<T>, kResult>;
    reduction_t reduction(wg, args, call, &shared);
    typename unit::accumulator acc;

    reduction.announce_output();
    for (int64_t tile = first_tile(wg, args.num_xcds); tile < reduction.tiles(); tile += wg.count) {
        iris_tile_coord at = reduction.coord(tile);
        if constexpr (product_types<P>::kIsScaled) /* scalar registers are for its scales */
            at = to_vector_registers(at);
        {
            const trace_span span(args.call, is_leader(wg), IRIS_TRACE_GEMM, args.call.rank, tile);
            block_product<P>::multiply(wg, acc, product, at, &gemm);
        }
        const typename reduction_t::partial_slots slots(reduction, tile);
        hand_out_tile<T, unit>(wg, acc, at.rows, &gemm, reduction.partial_places(), [&](int32_t i) {
            char *const slot = slots.at(i);
            return [slot, &reduction](int32_t chunk, const chunk16 &value) {
                push_chunk(slot + reduction.geometry().offset(chunk), value);
            };
        });
        signal_tiles(wg, call, reduction.partial_places(),
                     [&](int32_t i) { return slots.place(i); });
    }
    reduction.reduce_and_publish();
}

} // namespace iris

#endif
