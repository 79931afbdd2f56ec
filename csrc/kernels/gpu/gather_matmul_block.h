/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_gather_matmul by blocks that multiply one tile at a time: the first fetch_groups of them send
 * this rank's shard, the others multiply what has arrived.
 */
#ifndef IRIS_GATHER_MATMUL_BLOCK_H
#define IRIS_GATHER_MATMUL_BLOCK_H

#include "gathered_tile.h"
#include "matmul_block.h"

namespace iris
{

/* A tile of a group that computes one at a time; in shared memory, to leave the product its
 * registers. */
struct gathered_tile {
    iris_tile_coord at;
    int32_t source;
};

/* Columns [k, k + length) of shard `part` of A, from the tile's first row on, and the rows of B
 * that they are multiplied by, which begin at `first` + k. */
struct gathered_piece {
    iris_matrix_args a, b;
    int64_t row, first, k, length;
    int32_t part;
};

/* The tile's sum over K, unit of K after unit, each as it arrives: add(piece). */
template <typename T, class Add>
IRIS_INLINE bool multiply_gathered(work_group wg, const iris_gather_args &args,
                                   const gathered_operand<T> &operand, const gathered_tile &tile,
                                   Add add)
{
    const iris_matrix_args &B = args.product.reduce.b;

    return for_each_k_part(args, tile.source, [&](int32_t part, int64_t first, int64_t length) {
        IRIS_NO_UNROLL
        for (int64_t next = 0;;) {
            const int64_t k = uniform(next);
            if (k >= uniform(length))
                return true;
            const bool whole = operand.is_local(part);
            const int64_t row = tile.at.row - tile.source * args.schedule.share_m;
            if (!whole && args.waits_for_all == 0 &&
                !group_agree(wg, !is_leader(wg) || operand.wait_for_unit(part, row, k)))
                return false;
            const int64_t left = length - k;
            const int64_t step =
                whole || left < args.layout.unit_cols ? left : args.layout.unit_cols;
            const matrix<const T> shard = operand.shard(part);
            const iris_matrix_args a = {(uint64_t)shard.tile(0, k).data, shard.stride_row,
                                        shard.stride_col};
            const iris_matrix_args b = {(uint64_t)as_matrix<const T>(B).tile(first + k, 0).data,
                                        B.stride_row, B.stride_col};
            next = to_vector_registers(k + step);
            add(gathered_piece{a, b, row, first, k, step, part});
        }
    });
}

template <typename T, class Unit>
IRIS_INLINE void store_tile(work_group wg, const typename Unit::accumulator &acc,
                            const iris_reduce_args &args, const iris_tile_coord &at,
                            gemm_shared *gemm)
{
    using geometry = block_geometry<T>;
    const geometry chunks(args);
    const matrix<T> target = as_matrix<T>(args.output).tile(at.row, at.col);
    const bool vector =
        has_vector_rows<T>(args.output.address, args.output.stride_row, args.output.stride_col) &&
        is_aligned((uint64_t)target.data);
    const auto store = [&](int32_t chunk, const chunk16 &value) {
        store_run<reader::own>(target.tile(chunks.row(chunk), chunks.col(chunk)).data,
                               target.stride_col, at.cols - chunks.col(chunk), vector, value);
    };
    const bias_addend<T> bias(args, at);
    const bool has_bias = args.bias.address != 0;
    for_each_tile_chunk<T, Unit>(wg, acc, at.rows, gemm, store, [&](int32_t row, int32_t col) {
        return has_bias ? bias.element(bias.row(row), col) : -0.0f;
    });
}

template <typename P>
IRIS_INLINE void block_gather_matmul(work_group wg, const iris_gather_args &args)
{
    using T = typename product_types<P>::result;
    using A = typename product_types<P>::operand;
    using unit = typename block_product<P>::unit;
    IRIS_SHARED static gemm_shared gemm;
    IRIS_SHARED static gathered_tile tile;
    const iris_reduce_args &r = args.product.reduce;
    const call_state call = call_begin(r.call);
    const gathered_operand<A> operand(args, call);
    const int32_t senders = args.fetch_groups > 0 ? args.fetch_groups : wg.count;
    typename unit::accumulator acc;

    if (wg.index < senders || args.waits_for_all != 0)
        operand.send(wg, wg.index, senders);
    if (args.fetch_groups == 0 || wg.index >= senders) {
        const work_group worker = {wg.index - args.fetch_groups,
                                   wg.count - args.fetch_groups,
                                   wg.thread,
                                   wg.threads,
                                   wg.barrier,
                                   wg.shared};
        if (args.waits_for_all != 0 &&
            !group_agree(wg, operand.wait_for_all(wg.thread, wg.threads)))
            return;
        IRIS_NO_UNROLL
        for (int64_t next = first_tile(worker, r.num_xcds);;) {
            const int64_t step = uniform(next);
            if (step >= uniform(args.schedule.tiles.tiles))
                break;
            next = to_vector_registers(step + worker.count);
            group_barrier(wg);
            if (is_leader(wg))
                tile.at = iris_gather_tile_coord(&args.schedule, r.call.rank, step, &tile.source);
            group_barrier(wg);
            {
                const trace_span span(r.call, is_leader(wg), IRIS_TRACE_GEMM, tile.source, step);
                unit::clear(acc);
                if (!multiply_gathered(wg, args, operand, tile, [&](const gathered_piece &piece) {
                        block_product<P>::add(wg, acc, args.product, operand, piece, tile.at,
                                              &gemm);
                    }))
                    return;
            }
            store_tile<T, unit>(wg, acc, r, tile.at, &gemm);
        }
    }
    if (operand.store_joined(wg, wg.index, wg.count))
        end_locally(wg, call);
}

} // namespace iris

#endif
