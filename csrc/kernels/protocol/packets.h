/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Reductions and gathers by packets (sync.h, NOTE [packets], NOTE [bare packets]): no barrier
 * anywhere, and all data on its way at once.
 *
 *   ll            Every rank sends its elements to every other and reduces all of them itself, or
 *                 keeps them side by side: one hop, W - 1 times the data.
 *   ll_two_shot   Blocks of words are dealt to the ranks. A rank reduces its blocks and sends the
 *                 result to all: two hops, twice the data whatever W is.
 *   ll, scattered Every rank sends each other one that one's share, and reduces its own: one hop.
 *
 *   packets of a half             written by   read by      ordered by
 *   [source][word], from 0        source       this rank    themselves
 *   ll_two_shot: [word], after    the owner    this rank    themselves
 *
 * Ranks are added in their order, in fp32, from the same bits: all ranks get the same bits, in
 * every run. Results are written by this rank alone, from anywhere to anywhere, also over the
 * input: each word of it is read and written by one thread. What the words are and who handles
 * which is said by `Words` (packet_operands.h).
 *
 * A thread sends a word before it waits for that one or any later one, so waits form no circle: the
 * lowest word that is awaited is on its way. On a GPU it is only a few words ahead, so that a long
 * message is reduced while the rest of it is sent; on the host, where who sends has to wake who
 * sleeps, it sends everything first.
 */
#ifndef IRIS_PACKETS_H
#define IRIS_PACKETS_H

#include "kernels/abi/schedule.h"
#include "packet_operands.h"

namespace iris
{

/* T: of the elements that are reduced; of a gather's bytes uint8_t. */
template <typename T, class Words> class packet_exchange
{
  public:
    IRIS_INLINE packet_exchange(work_group wg, const iris_call_args &args, const Words &words)
        : wg_(wg), words_(words), layout_(to_vector_registers(iris_packet_layout_make(
                                      words.nbytes(), kPacketBytes<T>, args.world_size))),
          rank_(args.rank), world_(args.world_size), call_(call_begin(args))
    {
    }

    /* Whether this thread's words are all done; so below. */
    IRIS_INLINE bool one_crossing()
    {
        return exchange([&](place at) { send_to_all(at); },
                        [&](place at) { return reduce_and_store(at); });
    }

    /* The same, of shares. */
    IRIS_INLINE bool scatter()
    {
        return exchange(
            [&](place at) {
                IRIS_NO_UNROLL
                for (int32_t hop = 1; hop < world_; ++hop)
                    send_data<T>(call_, peer(hop), rank_ * layout_.words + at.index,
                                 sendable<T>(words_.load_for(peer(hop), at)));
            },
            [&](place at) { return reduce_and_store(at); });
    }

    /* The same, with nothing added. */
    IRIS_INLINE bool gather()
    {
        return exchange([&](place at) { send_to_all(at); }, [&](place at) { return keep(at); });
    }

    IRIS_INLINE bool two_crossings()
    {
        const bool complete = exchange(
            [&](place at) {
                const int32_t owner = iris_packet_owner(&layout_, at.index);
                if (owner != rank_)
                    send_data<T>(call_, owner, share_index(rank_, at.index),
                                 sendable<T>(words_.load(at)));
            },
            [&](place at) { return reduce_and_send(at); });
        packets_are_sent(call_);
        return complete && for_each([&](place at) {
                   const int32_t owner = iris_packet_owner(&layout_, at.index);
                   packet_data<T> data[1];
                   if (owner == rank_)
                       return true;
                   if (!receive_data<T>(call_, layout_.results + at.index, 0, owner, 1, -1, data))
                       return false;
                   words_.store(at, data[0]);
                   return true;
               });
    }

    /* The end of the call. `complete`: this thread's verdict. */
    IRIS_INLINE void finish(bool complete) const
    {
#if defined(IRIS_GPU)
        if (ends_early(call_)) {
            if (complete)
                end_early(wg_, call_, count_);
            return;
        }
#endif
        /* All threads have begun, and are done, before the group counts in. */
        if (group_agree(wg_, complete))
            end_locally(wg_, call_);
    }

  private:
    typedef typename Words::place place;

    /* Sources that are awaited at once. */
    static constexpr int32_t kSources = 4;
#if defined(IRIS_GPU)
    static constexpr int32_t kWordsAhead = 4;
#else
    static constexpr int32_t kWordsAhead = INT32_MAX;
#endif

    /* From `source` on. */
    IRIS_INLINE int32_t batch(int32_t source) const
    {
        return world_ - source < kSources ? world_ - source : kSources;
    }

    IRIS_INLINE int32_t peer(int32_t hop) const
    {
        return rank_ + hop < world_ ? rank_ + hop : rank_ + hop - world_;
    }

    IRIS_INLINE int64_t share_index(int32_t source, int64_t word) const
    {
        return source * layout_.share_words + iris_packet_share_index(&layout_, word);
    }

    /* This thread's words; false as soon as visit(place) is. */
    template <class Visit> IRIS_INLINE bool for_each(Visit visit) const
    {
        IRIS_NO_UNROLL
        for (place at = words_.first(); at.index < layout_.words; at = words_.after(at))
            if (!visit(at))
                return false;
        return true;
    }

    /* send(place) for each of this thread's words, take(place) a few words behind it. */
    template <class Send, class Take> IRIS_INLINE bool exchange(Send send, Take take)
    {
        place ahead = words_.first();
        IRIS_NO_UNROLL
        for (int32_t i = 0; i < kWordsAhead && ahead.index < layout_.words; ++i) {
            send(ahead);
            ahead = words_.after(ahead);
        }
        packets_are_sent(call_);
#if defined(IRIS_GPU)
        if (ends_early(call_))
            count_ = count_in_early(wg_, call_);
#endif
        return for_each([&](place at) {
            if (ahead.index < layout_.words) {
                send(ahead);
                ahead = words_.after(ahead);
            }
            return take(at);
        });
    }

    IRIS_INLINE void send_to_all(place at) const
    {
        const packet_data<T> data = sendable<T>(words_.load(at));
        IRIS_NO_UNROLL
        for (int32_t hop = 1; hop < world_; ++hop)
            send_data<T>(call_, peer(hop), rank_ * layout_.words + at.index, data);
    }

    IRIS_INLINE bool reduce_and_store(place at) const
    {
        packet_data<T> result;
        if (!reduce(at, at.index, layout_.words, result))
            return false;
        words_.store(at, result);
        return true;
    }

    /* If it is this rank's. */
    IRIS_INLINE bool reduce_and_send(place at) const
    {
        packet_data<T> result;
        if (iris_packet_owner(&layout_, at.index) != rank_)
            return true;
        if (!reduce(at, share_index(0, at.index), layout_.share_words, result))
            return false;
        words_.store(at, result);
        IRIS_NO_UNROLL
        for (int32_t hop = 1; hop < world_; ++hop)
            send_data<T>(call_, peer(hop), layout_.results + at.index, result);
        return true;
    }

    /* The word at `at` over all ranks, ((p_0 + p_1) + p_2) + ..., sendable; the peers' packets lie
     * `stride` apart. */
    IRIS_INLINE bool reduce(place at, int64_t first, int64_t stride, packet_data<T> &result) const
    {
        const packet_data<T> own = sendable<T>(words_.load(at));
        packet_values<T> values = {};
        IRIS_NO_UNROLL
        for (int32_t source = 0; source < world_; source += kSources) {
            const int32_t count = batch(source);
            packet_data<T> data[kSources];
            if (!receive_data<T>(call_, first + source * stride, stride, source, count, rank_,
                                 data))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kSources; ++q) {
                packet_values<T> term;
                if (q >= count)
                    continue;
                IRIS_UNROLL
                for (int32_t i = 0; i < kPacketWords<T>; ++i) /* not where it is: in registers */
                    data[q].word[i] = source + q == rank_ ? own.word[i] : data[q].word[i];
                unpack_data<T>(data[q], term);
                IRIS_UNROLL
                for (int32_t k = 0; k < kPacketElements<T>; ++k)
                    values[k] = source + q == 0 ? term[k] : words_.combined(values[k], term[k]);
            }
        }
        words_.conclude(at, values);
        result = sendable<T>(pack_data<T>(values));
        return true;
    }

    /* The word at `at` of every rank, stored. */
    IRIS_INLINE bool keep(place at) const
    {
        words_.store(rank_, at, words_.load(at));
        IRIS_NO_UNROLL
        for (int32_t source = 0; source < world_; source += kSources) {
            const int32_t count = batch(source);
            packet_data<T> data[kSources];
            if (!receive_data<T>(call_, source * layout_.words + at.index, layout_.words, source,
                                 count, rank_, data, IRIS_SIGNAL_UNIT))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kSources; ++q)
                if (q < count && source + q != rank_)
                    words_.store(source + q, at, data[q]);
        }
        return true;
    }

    const work_group wg_;
    const Words &words_;
    const iris_packet_layout layout_;
    const int32_t rank_, world_;
    const call_state call_;
    uint32_t count_ = 0; /* see count_in_early */
};

template <typename T, iris_variant kVariant>
IRIS_INLINE void all_reduce_by_packets(work_group wg, const iris_reduce_args &args)
{
    const flat_words<T> words(wg, args);
    packet_exchange<T, flat_words<T>> exchange(wg, args.call, words);
    exchange.finish(kVariant == IRIS_VARIANT_LL ? exchange.one_crossing()
                                                : exchange.two_crossings());
}

template <typename T, iris_variant>
IRIS_INLINE void reduce_scatter_by_packets(work_group wg, const iris_reduce_args &args)
{
    const scattered_words<T> words(wg, args);
    packet_exchange<T, scattered_words<T>> exchange(wg, args.call, words);
    exchange.finish(exchange.scatter());
}

/* Whose senders and receivers are all ranks. */
IRIS_INLINE void all_gather_by_packets(work_group wg, const iris_copy_collective_args &args)
{
    const gathered_words words(wg, args);
    packet_exchange<uint8_t, gathered_words> exchange(wg, args.call, words);
    exchange.finish(exchange.gather());
}

} // namespace iris

#endif
