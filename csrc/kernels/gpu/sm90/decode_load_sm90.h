/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The loader of a product of few rows on sm_90a (decode_sm90.h): the stages of the weights and of
 * the tokens, for all tiles of a block one after the other.
 */
#ifndef IRIS_DECODE_LOAD_SM90_H
#define IRIS_DECODE_LOAD_SM90_H

#include "decode_block_sm90.h"

namespace iris
{

/* Whether its threads load an operand. */
IRIS_INLINE bool loads_elements(const iris_product_args &product)
{
    return product.a_map_kind == 0 || product.b_map_kind == 0;
}

/* By one thread. */
IRIS_INLINE void init_decode_barriers(const decode_block &b)
{
    const uint32_t loaders = loads_elements(b.args.product) ? kElementLoaders : 0;
    for (int32_t stage = 0; stage < b.plan.stages; ++stage) {
        init_mbarrier(&b.barriers->full[stage], 1 + loaders);
        init_mbarrier(&b.barriers->empty[stage], 4);
    }
    for (int32_t buffer = 0; buffer < b.plan.buffers; ++buffer) {
        init_mbarrier(&b.barriers->summed[buffer], b.splits > 1 ? 1 : 4);
        init_mbarrier(&b.barriers->emptied[buffer], (uint32_t)(kSenders * b.splits));
    }
    b.barriers->sent = 0;
    fence_mbarrier_init();
    fence_async_shared();
}

/* The operands that the engine cannot load, by all lanes of a warp. */
template <typename T>
IRIS_INLINE void load_decode_elements(const decode_block &b, int32_t stage, int64_t col, int64_t k,
                                      int32_t lane)
{
    const iris_product_args &product = b.args.product;
    const iris_reduce_args &r = product.reduce;
    if (product.b_map_kind == 0)
        load_operand_elements<T, kWeightCols>(
            b.weights(stage), as_matrix<const T>(r.b).tile(k, col).data, r.b.stride_col,
            r.b.stride_row, b.args.layout.cols - col, r.K - k, lane);
    IRIS_NO_UNROLL
    for (int32_t row = 0; product.a_map_kind == 0 && row < b.plan.stage_rows; row += 8)
        load_operand_elements<T, 8>(b.tokens(stage) + row * kLineBytes,
                                    as_matrix<const T>(r.a).tile(row, k).data, r.a.stride_row,
                                    r.a.stride_col, b.args.layout.rows - row, r.K - k, lane);
    fence_async_shared();
    arrive_mbarrier(&b.barriers->full[stage]);
}

/* The steps of a block's tiles, one after the other: where each begins in the matrices, and the
 * stage that it is loaded to, as addresses in shared memory. They are kept, not computed for each
 * step: one thread asks for 8 KiB in little more than 100 ns. */
class decode_steps
{
  public:
    IRIS_INLINE explicit decode_steps(const decode_block &b)
        : count((b.tiles - b.first_tile + b.clusters - 1) / b.clusters * b.steps),
          col(b.first_tile * kWeightCols), k(b.first_step * kTileK),
          weights(opaque(shared_address(b.weights(0)))),
          tokens(opaque(shared_address(b.tokens(0)))),
          full(opaque(shared_address(&b.barriers->full[0]))),
          empty(opaque(shared_address(&b.barriers->empty[0]))),
          tokens_nbytes_(b.plan.stage_a_nbytes), stages_(b.plan.stages), first_k_(k),
          end_k_((b.first_step + b.steps) * kTileK), next_col_(b.clusters * kWeightCols)
    {
    }

    IRIS_INLINE void advance()
    {
        const bool last = ++stage_ == stages_;
        const int32_t stages = last ? 1 - stages_ : 1; /* to the next one */
        weights += stages * decode_plan::kStageW;
        tokens += stages * tokens_nbytes_;
        full += stages * (int32_t)sizeof(mbarrier);
        empty += stages * (int32_t)sizeof(mbarrier);
        stage_ = last ? 0 : stage_;
        phase ^= last ? 1 : 0;
        k += kTileK;
        if (k == end_k_) {
            k = first_k_;
            col += next_col_;
        }
    }

    const int32_t count;
    int32_t col, k;
    uint32_t weights, tokens, full, empty;
    uint32_t phase = 0;

  private:
    int32_t stage_ = 0;
    const int32_t tokens_nbytes_, stages_, first_k_, end_k_, next_col_;
};

/* By one thread: asks the engine for all stages. Those of the weights that the ring has room for
 * are asked for before the launch in front has ended, if the caller allows it. */
template <bool kWeightsMn> IRIS_INLINE void load_decode_tiles_by_engine(const decode_block &b)
{
    const iris_product_args &product = b.args.product;
    const uint32_t nbytes = (uint32_t)(b.plan.stage_a_nbytes + decode_plan::kStageW);
    const auto ask_for_weights = [&](const decode_steps &at) {
        arrive_expecting(at.full, nbytes);
        copy_tensor(at.weights, &product.b_map, kWeightsMn ? at.col : at.k,
                    kWeightsMn ? at.k : at.col, at.full);
    };
    const auto ask_for_tokens = [&](const decode_steps &at) {
        copy_tensor(at.tokens, &product.a_map, at.k, 0, at.full);
    };
    decode_steps at(b), ahead(b);
    const int32_t early = b.args.prefetches_b == 0   ? 0
                          : at.count < b.plan.stages ? at.count
                                                     : b.plan.stages;

    IRIS_NO_UNROLL
    for (int32_t i = 0; i < early; ++i, ahead.advance())
        ask_for_weights(ahead);
    follow_previous_launch();
    IRIS_NO_UNROLL
    for (int32_t i = 0; i < early; ++i, at.advance())
        ask_for_tokens(at);
    IRIS_NO_UNROLL
    for (int32_t i = early; i < at.count; ++i, at.advance()) {
        wait_mbarrier(at.empty, at.phase ^ 1);
        ask_for_weights(at);
        ask_for_tokens(at);
    }
}

/* By all lanes of a warp, which load what the engine cannot; the first asks it for the rest. */
template <typename T> IRIS_INLINE void load_decode_tiles_by_elements(const decode_block &b)
{
    const iris_product_args &product = b.args.product;
    const bool maps_a = product.a_map_kind != 0, maps_b = product.b_map_kind != 0;
    const int32_t lane = (int32_t)threadIdx.x % 32;
    const uint32_t nbytes =
        (uint32_t)((maps_a ? b.plan.stage_a_nbytes : 0) + (maps_b ? decode_plan::kStageW : 0));
    stage_cursor cursor;

    IRIS_NO_UNROLL
    for (int32_t tile = b.first_tile; tile < b.tiles; tile += b.clusters) {
        const int32_t col = tile * kWeightCols;
        IRIS_NO_UNROLL
        for (int32_t step = 0; step < b.steps; ++step) {
            const int32_t k = (b.first_step + step) * kTileK;
            mbarrier *full = &b.barriers->full[cursor.stage];
            wait_mbarrier(&b.barriers->empty[cursor.stage], cursor.phase ^ 1);
            if (lane == 0) {
                arrive_expecting(full, nbytes);
                if (maps_b)
                    load_operand<kWeightCols>(b.weights(cursor.stage), &product.b_map,
                                              product.b_map_kind, col, k, full);
                if (maps_a)
                    copy_tensor(b.tokens(cursor.stage), &product.a_map, k, 0, full);
            }
            load_decode_elements<T>(b, cursor.stage, col, k, lane);
            cursor.advance(b.plan.stages);
        }
    }
}

/* By all lanes of a warp. */
template <typename T> IRIS_INLINE void load_decode_tiles(const decode_block &b)
{
    if (loads_elements(b.args.product)) {
        follow_previous_launch();
        return load_decode_tiles_by_elements<T>(b);
    }
    if (!elect_one())
        return;
    if (b.args.product.b_map_kind == IRIS_TENSOR_MAP_MN)
        load_decode_tiles_by_engine<true>(b);
    else
        load_decode_tiles_by_engine<false>(b);
}

} // namespace iris

#endif
