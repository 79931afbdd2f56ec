/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_gather_matmul on the host: C = (the ranks' shards of A, joined along M or K) @ B (+ bias).
 * Each work-group sends its part of this rank's shard, then multiplies tile after tile, those of
 * this rank's rows first, as soon as what a tile needs has arrived; gathered_operand.h has the
 * protocol.
 */
#ifndef IRIS_GATHER_MATMUL_HOST_H
#define IRIS_GATHER_MATMUL_HOST_H

#include "interruption.h"
#include "kernels/protocol/gathered_operand.h"

namespace iris
{

/* Waits for the rows of A that a tile needs: of one rank's shard, or of all. */
template <typename T>
inline bool wait_for_rows(const iris_gather_args &args, const gathered_operand<T> &operand,
                          int32_t source, const iris_tile_coord &at)
{
    const bool by_rows = args.share_k == 0;
    const int32_t world = args.product.reduce.call.world_size;
    const int64_t row = at.row - source * args.schedule.share_m;
    const iris_gather_layout &layout = args.layout;

    for (int32_t s = by_rows ? source : 0; s < (by_rows ? source + 1 : world); ++s)
        for (int64_t k = 0; !operand.is_local(s) && k < layout.cols; k += layout.unit_cols)
            if (!operand.wait_for_unit(s, row, k))
                return false;
    return true;
}

template <typename T, iris_variant>
void all_gather_matmul(work_group wg, const iris_gather_args &args)
{
    const iris_reduce_args &r = args.product.reduce;
    const call_state call = call_begin(r.call);
    interruption interrupted(call);
    const gathered_operand<T> operand(args, call);
    const iris_gather_schedule &schedule = args.schedule;
    const matrix<const T> b = as_matrix<const T>(r.b);
    accumulator acc = accumulator_make<float>(wg, {r.block_m, r.block_n, r.block_k}, r.K);

    operand.send(wg, wg.index, wg.count);
    if (args.waits_for_all != 0 && !operand.wait_for_all(0, 1))
        return;
    for (int64_t step = wg.index; step < schedule.tiles.tiles; step += wg.count) {
        if (interrupted.has_come())
            return;
        int32_t source;
        const iris_tile_coord at = iris_gather_tile_coord(&schedule, r.call.rank, step, &source);
        const extent size = {at.rows, at.cols};
        if (args.waits_for_all == 0 && !wait_for_rows(args, operand, source, at))
            return;
        /* Joined shards of columns begin at the first. */
        const matrix<const T> a = operand.shard(args.share_k != 0 ? 0 : source);
        const matrix<T> c = as_matrix<T>(r.output).tile(at.row, at.col);
        const int64_t row = at.row - source * schedule.share_m;
        const trace_span span(r.call, true, IRIS_TRACE_GEMM, source, step);
        if (r.bias.address == 0) {
            tile_gemm_store(wg, acc, a, b, row, at.col, size, r.K, c);
            continue;
        }
        tile_gemm(wg, acc, a, b, row, at.col, size, r.K);
        tile_add(wg, acc, as_matrix<const T>(r.bias).tile(at.row, at.col), size);
        tile_store(wg, c, acc, size);
    }
    if (operand.store_joined(wg, wg.index, wg.count))
        end_locally(wg, call);
}

} // namespace iris

#endif
