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
#include "scaled_host.h"

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

/* The tile of the product of rank `source`'s rows, or of all ranks' columns, and B. P as in
 * matmul_host.h. */
template <typename P> class gathered_product
{
  public:
    typedef typename product_types<P>::result T;
    typedef typename product_types<P>::operand O;

    gathered_product(work_group, const iris_gather_args &args, const gathered_operand<O> &operand)
        : args_(args), operand_(operand), b_(as_matrix<const O>(args.product.reduce.b))
    {
    }

    void multiply(work_group wg, accumulator &acc, int32_t source, int64_t row, int64_t col,
                  extent size) const
    {
        tile_gemm(wg, acc, shard(source), b_, row, col, size, args_.product.reduce.K);
    }

    void store(work_group wg, accumulator &acc, int32_t source, int64_t row, int64_t col,
               extent size, const matrix<T> &target) const
    {
        tile_gemm_store(wg, acc, shard(source), b_, row, col, size, args_.product.reduce.K, target);
    }

  private:
    /* Joined shards of columns begin at the first. */
    matrix<const O> shard(int32_t source) const
    {
        return operand_.shard(args_.share_k != 0 ? 0 : source);
    }

    const iris_gather_args &args_;
    const gathered_operand<O> &operand_;
    const matrix<const O> b_;
};

/* Of columns each shard is a piece, with scales of its own. */
template <typename Result> class gathered_product<scaled<Result>>
{
  public:
    typedef Result T;

    gathered_product(work_group wg, const iris_gather_args &args,
                     const gathered_operand<float8_t> &operand)
        : args_(args), operand_(operand), tiles_(wg, block_of(args), args.product.reduce.K)
    {
    }

    void multiply(work_group, accumulator &acc, int32_t source, int64_t row, int64_t col,
                  extent size) const
    {
        const bool by_rows = args_.share_k == 0;
        const int32_t pieces = by_rows ? 1 : args_.product.reduce.call.world_size;
        for (int32_t piece = 0; piece < pieces; ++piece)
            tiles_.multiply(acc, operands(by_rows ? source : piece, by_rows ? 0 : piece), row, col,
                            size, piece > 0);
    }

    void store(work_group wg, accumulator &acc, int32_t source, int64_t row, int64_t col,
               extent size, const matrix<T> &target) const
    {
        multiply(wg, acc, source, row, col, size);
        tile_store(wg, target, acc, size);
    }

  private:
    static block_shape block_of(const iris_gather_args &args)
    {
        const iris_reduce_args &r = args.product.reduce;
        return {r.block_m, r.block_n, r.block_k};
    }

    /* Rank `source`'s shard and the piece of B that it is multiplied by. */
    scaled_operands operands(int32_t source, int64_t piece) const
    {
        const iris_reduce_args &r = args_.product.reduce;
        const int64_t first = piece * args_.share_k;
        iris_scaling scaling = args_.product.scaling;
        scaling.a = operand_.scales(source);
        scaling.b.address += (uint64_t)(first / IRIS_SCALE_BLOCK * scaling.b.stride_k) * 4;
        return {operand_.shard(source), as_matrix<const float8_t>(r.b).tile(first, 0), scaling,
                args_.share_k != 0 ? args_.share_k : r.K};
    }

    const iris_gather_args &args_;
    const gathered_operand<float8_t> &operand_;
    const scaled_tiles tiles_;
};

template <typename P, iris_variant>
void all_gather_matmul(work_group wg, const iris_gather_args &args)
{
    typedef typename product_types<P>::result T;
    typedef typename product_types<P>::operand O;
    const iris_reduce_args &r = args.product.reduce;
    const call_state call = call_begin(r.call);
    interruption interrupted(call);
    const gathered_operand<O> operand(args, call);
    const gathered_product<P> product(wg, args, operand);
    const iris_gather_schedule &schedule = args.schedule;
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
        const matrix<T> c = as_matrix<T>(r.output).tile(at.row, at.col);
        const int64_t row = at.row - source * schedule.share_m;
        const trace_span span(r.call, true, IRIS_TRACE_GEMM, source, step);
        if (r.bias.address == 0) {
            product.store(wg, acc, source, row, at.col, size, c);
            continue;
        }
        product.multiply(wg, acc, source, row, at.col, size);
        tile_add(wg, acc, as_matrix<const T>(r.bias).tile(at.row, at.col), size);
        tile_store(wg, c, acc, size);
    }
    if (operand.store_joined(wg, wg.index, wg.count))
        end_locally(wg, call);
}

} // namespace iris

#endif
