/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of few rows by blocks that have no engines of their own, in the form DECODE: a block
 * multiplies every wg.count-th tile and sends its words, then receives what the ranks have sent it
 * of the same tiles (decode_exchange.h).
 */
#ifndef IRIS_DECODE_BLOCK_H
#define IRIS_DECODE_BLOCK_H

#include "gemm_block.h"
#include "kernels/base/tile.h"
#include "kernels/protocol/decode_exchange.h"

namespace iris
{

/* The tile'th tile: those of a column of tiles follow each other, so that B is read once. */
IRIS_INLINE iris_tile_coord decode_tile(const iris_decode_layout &layout, int32_t tile)
{
    const uint32_t tiles_m = ((uint32_t)layout.rows + kGemmBlock - 1) / kGemmBlock;
    const int32_t row = (int32_t)((uint32_t)tile % tiles_m * kGemmBlock);
    const int32_t col = (int32_t)((uint32_t)tile / tiles_m * kGemmBlock);
    const int32_t rows = layout.rows - row, cols = layout.cols - col;
    iris_tile_coord at;

    at.row = row;
    at.col = col;
    at.rows = rows < kGemmBlock ? rows : kGemmBlock;
    at.cols = cols < kGemmBlock ? cols : kGemmBlock;
    return at;
}

IRIS_INLINE int32_t decode_tiles(const iris_decode_layout &layout)
{
    return (int32_t)(((uint32_t)layout.rows + kGemmBlock - 1) / kGemmBlock *
                     (((uint32_t)layout.cols + kGemmBlock - 1) / kGemmBlock));
}

/* Calls visit(place) for this thread's words of the block's tiles, as long as it says true. */
template <class Visit>
IRIS_INLINE bool for_each_decode_word(work_group wg, const iris_decode_layout &layout, Visit visit)
{
    constexpr int32_t kRowWords = kGemmBlock / IRIS_DECODE_WORD;
    const int32_t tiles = decode_tiles(layout);

    IRIS_NO_UNROLL
    for (int32_t tile = wg.index; tile < tiles; tile += wg.count) {
        const iris_tile_coord at = decode_tile(layout, tile);
        IRIS_NO_UNROLL
        for (int32_t i = wg.thread; i < at.rows * kRowWords; i += wg.threads) {
            const iris_decode_place place = {
                (int32_t)at.row + (int32_t)((uint32_t)i / kRowWords),
                (int32_t)((uint32_t)at.col / IRIS_DECODE_WORD + (uint32_t)i % kRowWords)};
            if (place.word < layout.row_words && !visit(place))
                return false;
        }
    }
    return true;
}

template <typename T>
IRIS_INLINE void block_decode_product(work_group wg, const iris_decode_args &args)
{
    using unit = matrix_unit<T>;
    IRIS_SHARED static gemm_shared gemm;
    const iris_reduce_args &r = args.product.reduce;
    const iris_decode_layout &layout = args.layout;
    const call_state call = call_begin(r.call);
    const decode_exchange<T> exchange(args, call);
    typename unit::accumulator acc;

    IRIS_NO_UNROLL
    for (int32_t tile = wg.index; tile < decode_tiles(layout); tile += wg.count) {
        const iris_tile_coord at = decode_tile(layout, tile);
        /* Of this thread's registers: scalar ones are what the loop over K needs. */
        const iris_decode_place first = to_vector_registers(
            iris_decode_place{(int32_t)at.row, (int32_t)((uint32_t)at.col / IRIS_DECODE_WORD)});
        block_gemm<T, unit>(wg, acc, r, at, &gemm);
        for_each_tile_chunk<T, unit>(wg, acc, at.rows, &gemm, [&](int32_t chunk, chunk16 value) {
            constexpr uint32_t kRowChunks = kGemmBlock / kChunk<T>;
            float values[kChunk<T>];
            unpack(value, values, T{});
            iris_decode_place place = {first.row + (int32_t)((uint32_t)chunk / kRowChunks),
                                       first.word + (int32_t)((uint32_t)chunk % kRowChunks * 2)};
            IRIS_UNROLL
            for (int32_t half = 0; half < 2; ++half, ++place.word) {
                float word[IRIS_DECODE_WORD];
                IRIS_UNROLL
                for (int32_t k = 0; k < IRIS_DECODE_WORD; ++k)
                    word[k] = values[half * IRIS_DECODE_WORD + k];
                if (exchange.exists(place))
                    exchange.send(place, word);
            }
        });
    }
    packets_are_sent(call);
    bool complete = for_each_decode_word(
        wg, layout, [&](iris_decode_place at) { return exchange.receive(at); });
    if (exchange.has_results()) {
        packets_are_sent(call);
        complete = complete && for_each_decode_word(wg, layout, [&](iris_decode_place at) {
                       return exchange.receive_result(at);
                   });
    }
    if (group_agree(wg, complete))
        end_locally(wg, call);
}

} // namespace iris

#endif
