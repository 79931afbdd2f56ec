/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of few rows on the host, in the form DECODE: a work-group multiplies every wg.count-th
 * block of columns and sends its words, then receives what the ranks have sent it of the same
 * blocks (decode_exchange.h).
 */
#ifndef IRIS_DECODE_HOST_H
#define IRIS_DECODE_HOST_H

#include "interruption.h"
#include "kernels/protocol/decode_exchange.h"
#include "matmul_host.h"

namespace iris
{

/* Calls visit(place) for the words of this work-group's blocks, as long as it says true. */
template <class Visit>
inline bool for_each_decode_word(work_group wg, const iris_decode_args &args, Visit visit)
{
    const int32_t block_words = args.product.reduce.block_n / IRIS_DECODE_WORD;
    const iris_decode_layout &layout = args.layout;

    for (int32_t begin = wg.index * block_words; begin < layout.row_words;
         begin += wg.count * block_words) {
        const int32_t end =
            begin + block_words < layout.row_words ? begin + block_words : layout.row_words;
        for (int32_t row = 0; row < layout.rows; ++row)
            for (int32_t word = begin; word < end; ++word)
                if (!visit(iris_decode_place{row, word}))
                    return false;
    }
    return true;
}

template <typename P, iris_variant> void decode_product(work_group wg, const iris_decode_args &args)
{
    typedef typename product_types<P>::result T;
    const iris_reduce_args &r = args.product.reduce;
    const call_state call = call_begin(r.call);
    interruption interrupted(call);
    const decode_exchange<T> exchange(args, call);
    const product_producer<P> product = producer_of<P>(wg, args.product);
    accumulator acc = accumulator_make<float>(wg, {r.block_m, r.block_n, r.block_k}, r.K);

    for (int64_t col = (int64_t)wg.index * r.block_n; col < args.layout.cols;
         col += (int64_t)wg.count * r.block_n) {
        const int64_t left = args.layout.cols - col;
        const extent size = {args.layout.rows, (int32_t)(left < r.block_n ? left : r.block_n)};
        if (interrupted.has_come())
            return;
        product.produce(wg, acc, {0, col, size.rows, size.cols});
        for (int32_t row = 0; row < size.rows; ++row)
            for (int32_t c = 0; c < size.cols; c += IRIS_DECODE_WORD) {
                float values[IRIS_DECODE_WORD] = {};
                for (int32_t k = 0; k < IRIS_DECODE_WORD && c + k < size.cols; ++k)
                    values[k] = acc.row(row)[c + k];
                exchange.send({row, ((int32_t)col + c) / IRIS_DECODE_WORD}, values);
            }
        packets_are_sent(call);
    }
    if (!for_each_decode_word(wg, args, [&](iris_decode_place at) { return exchange.receive(at); }))
        return;
    if (exchange.has_results()) {
        packets_are_sent(call);
        if (!for_each_decode_word(
                wg, args, [&](iris_decode_place at) { return exchange.receive_result(at); }))
            return;
    }
    end_locally(wg, call);
}

} // namespace iris

#endif
