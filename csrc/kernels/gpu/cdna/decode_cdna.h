/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of few rows on CDNA, in the form DECODE: how the work is divided, and what becomes of a
 * tile. The products themselves are in decode_stream_cdna.h.
 *
 * All work-groups stream weights for equally long. The tiles, 64 columns by all rows, follow each
 * other; each consists of rounds, in which every wave of a group multiplies a step of K; of more
 * than 128 rows, a wave half of the rows and a pair of waves the step. Each group takes as many
 * rounds as any other, or one more (iris_decode_begin). So a tile may be shared by neighbouring
 * groups: the last of them, who has the end of its K, collects the others' sums of it, adds them up
 * in the order of the groups, and sends its words; the result is the same in every run.
 *
 * A group begins with its last tile. If it does not have the end of that one, it sends its sums to
 * whoever has, as packets in this rank's memory, before it waits for anybody; the tile whose begin
 * others have comes last, when theirs are there. So nobody waits for a group that waits itself, and
 * only for groups with lower numbers, which start first: a launch ends also where fewer groups than
 * it has are resident at a time.
 */
#ifndef IRIS_DECODE_CDNA_H
#define IRIS_DECODE_CDNA_H

#include "decode_stream_cdna.h"
#include "kernels/protocol/decode_exchange.h"

namespace iris
{

/* The rounds [first, end) of a tile. */
struct decode_part {
    int32_t tile, first, end;
};

class decode_division
{
  public:
    IRIS_INLINE decode_division(work_group wg, const iris_decode_args &args)
        : rounds_(opaque(args.rounds)), begin_(opaque(iris_decode_begin(&args, wg.index))),
          end_(opaque(iris_decode_begin(&args, wg.index + 1))), args_(args)
    {
    }

    IRIS_INLINE bool is_empty() const
    {
        return begin_ == end_;
    }

    /* The first that this group multiplies. */
    IRIS_INLINE decode_part last() const
    {
        const int32_t tile = quotient(end_ - 1);
        return {tile, first_of(tile), end_ - tile * rounds_};
    }

    /* Whether another one comes after this one, and which. */
    IRIS_INLINE bool goes_on(const decode_part &part) const
    {
        return part.tile * rounds_ + part.first > begin_;
    }

    IRIS_INLINE decode_part before(const decode_part &part) const
    {
        return {part.tile - 1, first_of(part.tile - 1), rounds_};
    }

    IRIS_INLINE bool has_end(const decode_part &part) const
    {
        return part.end == rounds_;
    }

    /* The group that has the tile's first round. */
    IRIS_INLINE int32_t first_group(int32_t tile) const
    {
        return iris_decode_group_of(&args_, tile * rounds_);
    }

    /* The tiles whose end this group has: from `first` to before `end`. */
    IRIS_INLINE int32_t first_tile() const
    {
        return quotient(begin_);
    }
    IRIS_INLINE int32_t end_tile() const
    {
        return quotient(end_);
    }

  private:
    IRIS_INLINE int32_t quotient(int32_t round) const
    {
        return (int32_t)((uint32_t)round / (uint32_t)rounds_);
    }

    IRIS_INLINE int32_t first_of(int32_t tile) const
    {
        const int32_t before = begin_ - tile * rounds_;
        return before > 0 ? before : 0;
    }

    int32_t rounds_, begin_, end_; /* in vector registers */
    const iris_decode_args &args_;
};

/* From a row of sums to the next, in floats: the lanes of a wave, a row each, meet no bank twice.
 */
constexpr int32_t kDecodePitch = kDecodeColumns + 4;

union decode_shared {
    decode_wave_shared wave[kDecodeWaves];
    float sums[kDecodeWaves][kDecodeTokens * kDecodePitch];
};

/* Adds up the sums of the block's waves, in their order, and calls visit(row, word of the tile,
 * values) for this thread's words. */
template <int32_t kBlocks, int32_t kParts, class Visit>
IRIS_INLINE void join_waves(work_group wg, const decode_sums<kBlocks> &sums, int32_t rows,
                            decode_shared *shared, Visit visit)
{
    constexpr int32_t kKWaves = kDecodeWaves / kParts,
                      kBlockWords = kDecodeTokens * IRIS_DECODE_GROUP;
    const int32_t lane = wg.thread % 64;
    float *own = shared->sums[wg.thread / 64] + lane % 32 * kDecodePitch + lane / 32 * 4;

    IRIS_NO_UNROLL
    for (int32_t block = 0; block < kBlocks && block * kDecodeTokens < rows; ++block) {
        group_barrier(wg);
#pragma unroll
        for (int32_t b = 0; b < kBlocks; ++b) {
            if (b != block)
                continue;
#pragma unroll
            for (int32_t i = 0; i < 8; ++i) {
                const floats16 &part = sums.part[b][i / 4];
                const int32_t k = i % 4 * 4;
                store_values<careful>(own + 8 * i,
                                      {part[k], part[k + 1], part[k + 2], part[k + 3]});
            }
        }
        group_barrier(wg);
        IRIS_NO_UNROLL
        for (int32_t i = wg.thread; i < kParts * kBlockWords; i += wg.threads) {
            const int32_t part_of = i / kBlockWords, word = i % IRIS_DECODE_GROUP;
            const int32_t line = i % kBlockWords / IRIS_DECODE_GROUP;
            const int32_t row = (part_of * kBlocks + block) * kDecodeTokens + line;
            if (row >= rows)
                break;
            float values[IRIS_DECODE_WORD] = {};
#pragma unroll
            for (int32_t w = 0; w < kKWaves; ++w) {
                const float *source = shared->sums[part_of * kKWaves + w] + line * kDecodePitch +
                                      word * IRIS_DECODE_WORD;
#pragma unroll
                for (int32_t k = 0; k < IRIS_DECODE_WORD; k += 4) {
                    float part[4];
                    unpack(load_chunk(reinterpret_cast<const char *>(source + k)), part, 0.0f);
#pragma unroll
                    for (int32_t e = 0; e < 4; ++e)
                        values[k + e] = w == 0 ? part[e] : values[k + e] + part[e];
                }
            }
            visit(row, word, values);
        }
    }
    group_barrier(wg); /* the next tile's operands take the place of the sums */
}

/* Sends on what a block has multiplied of a tile. false: what others have of it did not come. */
template <typename T, int32_t kBlocks, int32_t kParts>
IRIS_INLINE bool hand_on(work_group wg, const decode_sums<kBlocks> &sums,
                         const decode_exchange<T> &exchange, const decode_division &division,
                         const decode_part &part, int32_t rows, decode_shared *shared)
{
    const bool ends = division.has_end(part), joins = ends && part.first > 0;
    const int32_t group = opaque(wg.index);
    const int32_t first_group = opaque(joins ? division.first_group(part.tile) : group);
    const int32_t completes = opaque(ends);
    int32_t complete = 1;

    join_waves<kBlocks, kParts>(
        wg, sums, rows, shared, [&](int32_t row, int32_t word, float (&values)[IRIS_DECODE_WORD]) {
            const iris_decode_place at = {row, part.tile * IRIS_DECODE_GROUP + word};
            if (!exchange.exists(at))
                return;
            if (completes == 0)
                exchange.send_partial(group, at, values);
            else if (complete != 0 && exchange.add_partials(first_group, group, at, values))
                exchange.send(at, values);
            else
                complete = 0;
        });
    return complete != 0;
}

/* Where those rounds of the part end that are among the first `whole` of the tile. */
IRIS_INLINE int32_t end_of_whole(const decode_part &part, int32_t whole)
{
    return part.end < whole ? part.end : whole;
}

/* All of a group's parts. false: see hand_on. */
template <typename T, int32_t kBlocks, int32_t kParts, bool kMn>
IRIS_INLINE bool stream_parts(work_group wg, const iris_reduce_args &r,
                              const decode_operand<T> &tokens, const decode_operand<T> &weights,
                              const decode_exchange<T> &exchange, const decode_division &division,
                              decode_shared *shared)
{
    constexpr int32_t kAhead = kBlocks == 1 ? 1 : 2;
    constexpr int32_t kKWaves = kDecodeWaves / kParts;
    constexpr int32_t kRound = kKWaves * kDecodeStep;
    const int32_t lane = wg.thread % 64, wave = of_wave(wg.thread / 64);
    const int32_t first_row = wave / kKWaves * kBlocks * kDecodeTokens;
    const int32_t first_k = wave % kKWaves * kDecodeStep, K = opaque((int32_t)r.K);
    const bool runs = tokens.order == operand_order::k_runs &&
                      weights.order == (kMn ? operand_order::mn_runs : operand_order::k_runs);
    /* Whole rounds of this wave in a tile. */
    const int32_t whole = opaque(runs ? (K - first_k + kRound - kDecodeStep) / kRound : 0);
    decode_wave_shared *const own = &shared->wave[wave];
    weight_stream<T, kMn> stream(weights, lane);
    token_stream<T, kAhead> token(tokens, first_row, lane);
    decode_sums<kBlocks> sums;
    decode_part part = to_vector_registers(division.last());
    int32_t complete = 1;
    bool loaded = false;

    IRIS_NO_UNROLL
    for (;;) {
        const decode_part next = to_vector_registers(division.before(part));
        const int32_t goes_on = of_wave(division.goes_on(part));
        const int32_t col = of_wave(part.tile * kDecodeColumns), first = of_wave(part.first);
        int32_t left = of_wave(end_of_whole(part, whole)) - first;
        /* The next tile's first step is loaded during this one's last, unless its columns lie
         * otherwise. */
        const bool joins = goes_on != 0 && of_wave(end_of_whole(next, whole) - next.first) > 0 &&
                           col + kDecodeColumns <= of_wave(weights.count);
        uint64_t at = stream.address_of(col, first * kRound + first_k);
        uint64_t token_at = token.address_of(first * kRound + first_k);
        const int32_t next_k =
            joins ? of_wave(next.first) * kRound + first_k : first * kRound + first_k;
        const uint64_t next_at = stream.address_of(joins ? col - kDecodeColumns : col, next_k);
        const uint64_t next_token_at = token.address_of(next_k);
        const uint64_t advance = stream.advance(kRound);

        sums.clear();
        if (left > 0 && !loaded) {
            stream.aim(col);
            stream.load(at);
#pragma unroll
            for (int32_t b = 0; b < kAhead; ++b)
                token.load(token_at, b);
        }
        loaded = left > 0 && joins;
        IRIS_NO_UNROLL
        for (; left > 0; --left) {
            weight_fragments of_step;
            const uint64_t later = left > 1 ? token_at + kRound * sizeof(T) : next_token_at;
            stream.store(own->weights);
            at = left > 1 ? at + advance : next_at;
            stream.load(at);
            exchange_lanes();
            read_weights(of_step, own->weights, lane);
#pragma unroll
            for (int32_t b = 0; b < kBlocks; ++b) {
                token.store(own->tokens, b);
                token.load(b + kAhead < kBlocks ? token_at : later, (b + kAhead) % kBlocks);
                exchange_lanes();
                multiply_block<T>(sums, of_step, own->tokens, b, lane);
                exchange_lanes();
            }
            token_at = later;
        }
        IRIS_NO_UNROLL
        for (int32_t k = of_wave(part.first > whole ? part.first : whole) * kRound + first_k,
                     end = of_wave(part.end * kRound < K ? part.end * kRound : K);
             k < end; k += kRound)
            multiply_elements<T>(sums, tokens, first_row, weights, part.tile * kDecodeColumns, k, K,
                                 own, lane);
        if (!hand_on<T, kBlocks, kParts>(wg, sums, exchange, division, part, tokens.count, shared))
            complete = 0;
        if (of_wave(division.goes_on(part)) == 0)
            return complete != 0;
        part = next;
    }
}

template <typename T, int32_t kBlocks, int32_t kParts = 1>
IRIS_INLINE bool stream_blocks(work_group wg, const iris_decode_args &args,
                               const decode_exchange<T> &exchange, const decode_division &division,
                               decode_shared *shared)
{
    const iris_reduce_args &r = args.product.reduce;
    const decode_operand<T> tokens = to_vector_registers(decode_operand_of<T>(
        r.a, r.a.stride_row, r.a.stride_col, args.layout.rows, IRIS_DECODE_MAX_ROWS));
    const decode_operand<T> weights = to_vector_registers(decode_operand_of<T>(
        r.b, r.b.stride_col, r.b.stride_row, args.layout.cols, kDecodeColumns));
    if (of_wave((int32_t)weights.order) == (int32_t)operand_order::mn_runs)
        return stream_parts<T, kBlocks, kParts, true>(wg, r, tokens, weights, exchange, division,
                                                      shared);
    return stream_parts<T, kBlocks, kParts, false>(wg, r, tokens, weights, exchange, division,
                                                   shared);
}

template <typename T>
IRIS_INLINE bool stream_weights(work_group wg, const iris_decode_args &args,
                                const decode_exchange<T> &exchange, const decode_division &division)
{
    IRIS_SHARED static decode_shared shared;
    const int32_t rows = of_wave(args.layout.rows);

    if (division.is_empty())
        return true;
    if (rows <= kDecodeTokens)
        return stream_blocks<T, 1>(wg, args, exchange, division, &shared);
    if (rows <= 2 * kDecodeTokens)
        return stream_blocks<T, 2>(wg, args, exchange, division, &shared);
    if (rows <= IRIS_DECODE_WAVE_ROWS)
        return stream_blocks<T, 4>(wg, args, exchange, division, &shared);
    return stream_blocks<T, 4, 2>(wg, args, exchange, division, &shared);
}

/* Calls visit(place) for this thread's words of the tiles whose end the group has, as long as it
 * says true. */
template <class Visit>
IRIS_INLINE bool for_each_decode_word(work_group wg, const decode_division &division,
                                      const iris_decode_layout &layout, Visit visit)
{
    IRIS_NO_UNROLL
    for (int32_t tile = division.first_tile(); tile < division.end_tile(); ++tile) {
        IRIS_NO_UNROLL
        for (int32_t i = wg.thread; i < layout.rows * IRIS_DECODE_GROUP; i += wg.threads) {
            const iris_decode_place place = {(int32_t)((uint32_t)i / IRIS_DECODE_GROUP),
                                             tile * IRIS_DECODE_GROUP +
                                                 (int32_t)((uint32_t)i % IRIS_DECODE_GROUP)};
            if (place.word < layout.row_words && !visit(place))
                return false;
        }
    }
    return true;
}

template <typename T>
IRIS_INLINE void streamed_decode_product(work_group wg, const iris_decode_args &args)
{
    const iris_reduce_args &r = args.product.reduce;
    const call_state call = call_begin(r.call);
    const decode_exchange<T> exchange(args, call);
    const decode_division division(wg, args);

    bool complete = stream_weights<T>(wg, args, exchange, division);
    packets_are_sent(call);
    complete = complete &&
               for_each_decode_word(wg, division, args.layout,
                                    [&](iris_decode_place at) { return exchange.receive(at); });
    if (exchange.has_results()) {
        packets_are_sent(call);
        complete =
            complete && for_each_decode_word(wg, division, args.layout, [&](iris_decode_place at) {
                return exchange.receive_result(at);
            });
    }
    if (group_agree(wg, complete))
        end_locally(wg, call);
}

} // namespace iris

#endif
