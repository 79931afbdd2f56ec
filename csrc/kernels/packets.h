/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce by packets (sync.h, NOTE [packets]), for messages that are all latency.
 *
 *   ll            Every rank sends its elements to every other and reduces all of them itself: one
 *                 crossing of the links, W - 1 times the data, and no barrier anywhere.
 *   ll_two_shot   Blocks of words are dealt to the ranks. A rank reduces its blocks and sends the
 *                 result to all: two crossings, twice the data whatever W is.
 *
 *   packets of a half             written by   read by      ordered by
 *   [source][word], from 0        source       this rank    themselves
 *   ll_two_shot: [word], after    the owner    this rank    themselves
 *
 * Ranks are added in their order, in fp32, from the same bits: all ranks get the same bits, in
 * every run. A thread first sends all that is its own, then waits, so that waits form no circle.
 * Works on words of eight bytes; the output is written by this rank alone, from anywhere to
 * anywhere.
 */
#ifndef IRIS_PACKETS_H
#define IRIS_PACKETS_H

#include "elements.h"
#include "schedule.h"
#include "sync.h"

namespace iris
{

template <typename T> class packet_all_reduce
{
  public:
    IRIS_INLINE packet_all_reduce(work_group wg, const iris_reduce_args &args)
        : wg_(wg), args_(args), input_(device_pointer<const T>(args.a.address)),
          output_(device_pointer<T>(args.output.address)),
          layout_(
              in_lanes(iris_packet_layout_make(args.N * (int64_t)sizeof(T), args.call.world_size))),
          aligned_((args.a.address | args.output.address) % kWordBytes == 0), rank_(args.call.rank),
          world_(args.call.world_size), first_((int64_t)wg.index * wg.threads + wg.thread),
          first_data_(first_ < layout_.words ? load_from_memory(first_) : 0),
          call_(call_begin(args.call))
    {
    }

    IRIS_INLINE void one_crossing()
    {
        for_each_word([&](int64_t i) {
            const uint64_t data = load(i);
            IRIS_NO_UNROLL
            for (int32_t hop = 1; hop < world_; ++hop)
                send_packet(call_, packet_at(call_, peer(hop), rank_ * layout_.words + i), data);
            return true;
        });
        sent();
        const bool complete = for_each_word([&](int64_t i) {
            uint64_t result;
            if (!reduce(i, i, layout_.words, result))
                return false;
            store(i, result);
            return true;
        });
        finish(complete);
    }

    IRIS_INLINE void two_crossings()
    {
        for_each_word([&](int64_t i) {
            const int32_t owner = iris_packet_owner(&layout_, i);
            if (owner != rank_)
                send_packet(call_, packet_at(call_, owner, share_index(rank_, i)), load(i));
            return true;
        });
        sent();
        bool complete = for_each_word([&](int64_t i) {
            uint64_t result;
            if (iris_packet_owner(&layout_, i) != rank_)
                return true;
            if (!reduce(i, share_index(0, i), layout_.share_words, result))
                return false;
            store(i, result);
            IRIS_NO_UNROLL
            for (int32_t hop = 1; hop < world_; ++hop)
                send_packet(call_, packet_at(call_, peer(hop), layout_.results + i), result);
            return true;
        });
        complete = complete && for_each_word([&](int64_t i) {
                       const int32_t owner = iris_packet_owner(&layout_, i);
                       uint64_t data[1];
                       if (owner == rank_)
                           return true;
                       if (!receive_packets(call_, packet_at(call_, rank_, layout_.results + i), 0,
                                            owner, 1, -1, data))
                           return false;
                       store(i, data[0]);
                       return true;
                   });
        finish(complete);
    }

  private:
    /* Sources that are awaited at once. */
    static constexpr int32_t kSources = 4;

    template <class Visit> IRIS_INLINE bool for_each_word(Visit visit) const
    {
        const int64_t step = (int64_t)wg_.count * wg_.threads;
        IRIS_NO_UNROLL
        for (int64_t i = first_; i < layout_.words; i += step)
            if (!visit(i))
                return false;
        return true;
    }

    IRIS_INLINE int32_t peer(int32_t hop) const
    {
        return rank_ + hop < world_ ? rank_ + hop : rank_ + hop - world_;
    }

    IRIS_INLINE int64_t share_index(int32_t source, int64_t word) const
    {
        return source * layout_.share_words + iris_packet_share_index(&layout_, word);
    }

    /* Elements from word i on. */
    IRIS_INLINE int64_t left(int64_t i) const
    {
        return args_.N - i * kWord<T>;
    }

    IRIS_INLINE uint64_t load(int64_t i) const
    {
        return i == first_ ? first_data_ : load_from_memory(i);
    }

    IRIS_INLINE uint64_t load_from_memory(int64_t i) const
    {
        return load_word(input_ + i * kWord<T>, left(i), aligned_);
    }

    IRIS_INLINE void store(int64_t i, uint64_t word) const
    {
        store_word(output_ + i * kWord<T>, left(i), aligned_, word);
    }

    /* Word i over all ranks, ((p_0 + p_1) + p_2) + ...; the peers' packets lie `stride` apart. */
    IRIS_INLINE bool reduce(int64_t i, int64_t first, int64_t stride, uint64_t &result) const
    {
        const uint64_t own = load(i);
        acc_t<T> values[kWord<T>] = {};
        IRIS_NO_UNROLL
        for (int32_t source = 0; source < world_; source += kSources) {
            const int32_t count = world_ - source < kSources ? world_ - source : kSources;
            uint64_t data[kSources];
            if (!receive_packets(call_, packet_at(call_, rank_, first + source * stride), stride,
                                 source, count, rank_, data))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kSources; ++q) {
                acc_t<T> term[kWord<T>];
                if (q >= count)
                    continue;
                unpack_word<T>(source + q == rank_ ? own : data[q], term);
                IRIS_UNROLL
                for (int32_t k = 0; k < kWord<T>; ++k)
                    values[k] =
                        source + q == 0 ? term[k] : reduced(values[k], term[k], args_.reduce_op);
            }
        }
        IRIS_UNROLL
        for (int32_t k = 0; k < kWord<T>; ++k)
            values[k] = concluded(values[k], args_.reduce_op, world_, args_.reduce_scale);
        result = pack_word<T>(values);
        return true;
    }

    IRIS_INLINE void sent()
    {
#if defined(IRIS_GPU)
        if (ends_early(call_))
            count_ = count_in_early(wg_, call_);
#endif
    }

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

    const work_group wg_;
    const iris_reduce_args &args_;
    const T *const input_;
    T *const output_;
    const iris_packet_layout layout_;
    const bool aligned_;
    const int32_t rank_, world_;
    /* The thread's first word, mostly its only one: loaded while the counter is. */
    const int64_t first_;
    const uint64_t first_data_;
    const call_state call_;
    uint32_t count_ = 0; /* see count_in_early */
};

template <typename T, iris_variant kVariant>
IRIS_INLINE void all_reduce_by_packets(work_group wg, const iris_reduce_args &args)
{
    packet_all_reduce<T> reduction(wg, args);
    if constexpr (kVariant == IRIS_VARIANT_LL)
        reduction.one_crossing();
    else
        reduction.two_crossings();
}

} // namespace iris

#endif
