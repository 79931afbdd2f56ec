/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What goes on between ranks in the form DECODE: products of few rows, whose words travel as bare
 * packets (sync.h, NOTE [bare packets]) as soon as they are made. For all targets and all
 * operations; the product is each target's own.
 *
 *   TO_ALL      every rank sends its partial product to all, and adds up everything: one hop
 *   BY_OWNERS   words are dealt to the ranks; an owner adds its words up and sends the sums to
 *               all: two hops, less data
 *   SCATTER     a rank gets the partials of its share of the result, and adds them up
 *   GATHER      a rank sends its product, with its bias, to all; nothing is added
 *
 *   packets of a half              written by   read by      ordered by
 *   [source][slot], from 0         source       this rank    themselves
 *   BY_OWNERS: [word], after       the owner    this rank    themselves
 *   partials: [group][row][word]   this rank    this rank    themselves
 *
 * A rank's own partials pass through its packets too: other threads than those that computed them
 * add them up. Ranks are added in their order, in fp32, from the same bits: all ranks get the same
 * bits, in every run.
 *
 * Every rank gets a packet from every peer in every call, as NOTE [bare packets] wants of a call
 * without other signals: of TO_ALL and GATHER each word, of SCATTER each word of its share, which
 * has one; of BY_OWNERS the sums of each owner, who owns something (iris_decode_all_own) and waits
 * for all ranks' partials of it. Who sends waits for nothing but the product; sums are sent by
 * threads that wait for partials alone, and results are awaited last: waits form no circle, as long
 * as all work-groups are resident.
 */
#ifndef IRIS_DECODE_EXCHANGE_H
#define IRIS_DECODE_EXCHANGE_H

#include "kernels/abi/schedule.h"
#include "packet_data.h"

namespace iris
{

/* A bare packet that is awaited; NULL: none is. */
struct awaited_packet {
    iris_packet *packet;
    int32_t source;
};

/* As receive_bare_packets (packet_sync.h), of packets that lie anywhere. */
template <typename T, int kCount>
IRIS_INLINE bool receive_any(const call_state &call, const awaited_packet (&from)[kCount],
                             packet_data<T> (&data)[kCount])
{
    const bool complete = wait_for_words(call, IRIS_SIGNAL_PARTIAL, [&](uint32_t &) {
        int32_t missing = -1;
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q) {
            if (from[q].packet == nullptr)
                continue;
            const iris_packet packet = load_packet(from[q].packet);
            data[q] = {{packet.word[0], packet.word[1]}};
            if (!has_come(packet))
                missing = from[q].source;
        }
        return missing;
    });
    if (!complete)
        return false;
    IRIS_UNROLL
    for (int32_t q = 0; q < kCount; ++q)
        if (from[q].packet != nullptr)
            empty_packet(from[q].packet);
    return true;
}

template <typename T> class decode_exchange
{
  public:
    typedef iris_decode_place place;
    typedef packet_data<T> data_t;
    static constexpr int32_t kWordElements = IRIS_DECODE_WORD;
    static_assert(kTravelsBare<T> && kWordElements == kPacketElements<T>, "a word is a packet's");

    IRIS_INLINE decode_exchange(const iris_decode_args &args, const call_state &call)
        : reduce_(args.product.reduce), layout_(args.layout), call_(call),
          rank_(opaque(call.args.rank)), world_(opaque(call.args.world_size))
    {
    }

    /* Whether the product has the word. */
    IRIS_INLINE bool exists(place at) const
    {
        return at.row < layout_.rows && at.word < layout_.row_words;
    }

    /* Sends the word of this rank's product to whoever gets it. */
    IRIS_INLINE void send(place at, float (&values)[kWordElements]) const
    {
        int32_t first;
        const int32_t receivers = iris_decode_receivers(&layout_, at, &first);
        if (layout_.exchange == IRIS_DECODE_GATHER)
            add_bias(at.row, at.word * kWordElements, values);
        const data_t data = sendable<T>(pack_data<T>(values));
        IRIS_NO_UNROLL
        for (int32_t i = 0; i < receivers; ++i) {
            /* Not all ranks to the same one first. */
            const int32_t receiver = receivers == world_ ? after(rank_, i + 1) : first + i;
            send_data<T>(call_, receiver,
                         rank_ * layout_.slots + iris_decode_slot(&layout_, receiver, at), data);
        }
    }

    /* Where the work-groups of a rank share a tile's K: hands this group's sums of the word over
     * to the group that has the end of the tile, in fp32. */
    IRIS_INLINE void send_partial(int32_t group, place at,
                                  const float (&values)[kWordElements]) const
    {
        const int64_t index = partial_of(group, at);
        IRIS_UNROLL
        for (int32_t i = 0; i < kPartPackets; ++i) {
            packet_values<float> part;
            IRIS_UNROLL
            for (int32_t k = 0; k < kPacketElements<float>; ++k)
                part[k] = values[i * kPacketElements<float> + k];
            send_data<float>(call_, rank_, index + i, sendable<float>(pack_data<float>(part)));
        }
    }

    /* Puts the sums of the groups [first, end) before those of this one, in their order. false: one
     * did not come. */
    IRIS_INLINE bool add_partials(int32_t first, int32_t end, place at,
                                  float (&values)[kWordElements]) const
    {
        float sums[kWordElements] = {};
        IRIS_NO_UNROLL
        for (int32_t group = first; group < end; ++group) {
            awaited_packet from[kPartPackets];
            packet_data<float> data[kPartPackets] = {};
            IRIS_UNROLL
            for (int32_t q = 0; q < kPartPackets; ++q)
                from[q] = {bare_packet_at(call_, rank_, partial_of(group, at) + q), rank_};
            if (!receive_any<float>(call_, from, data))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kPartPackets; ++q) {
                packet_values<float> part;
                unpack_data<float>(data[q], part);
                IRIS_UNROLL
                for (int32_t k = 0; k < kPacketElements<float>; ++k) {
                    float &sum = sums[q * kPacketElements<float> + k];
                    sum = group == first ? part[k] : sum + part[k];
                }
            }
        }
        IRIS_UNROLL
        for (int32_t k = 0; first < end && k < kWordElements; ++k)
            values[k] = sums[k] + values[k];
        return true;
    }

    /* Waits for what the ranks have sent this one of the word, if they do, and stores what becomes
     * of it. false: something did not come. */
    IRIS_INLINE bool receive(place at) const
    {
        int32_t first;
        const int32_t receivers = iris_decode_receivers(&layout_, at, &first);
        if (rank_ < first || rank_ >= first + receivers)
            return true;
        return layout_.exchange == IRIS_DECODE_GATHER ? gather(at) : add_up(at);
    }

    /* Whether sums come from their owners afterwards. */
    IRIS_INLINE bool has_results() const
    {
        return layout_.exchange == IRIS_DECODE_BY_OWNERS;
    }

    /* Waits for the sums of those of the words that the product has and another rank owns, all at
     * once because each look at memory takes long, and stores them. */
    template <int kCount> IRIS_INLINE bool receive_results(const place (&at)[kCount]) const
    {
        awaited_packet from[kCount];
        data_t data[kCount] = {};
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q) {
            const int32_t owner = iris_decode_owner(&layout_, at[q]);
            const bool awaited = exists(at[q]) && owner != rank_;
            from[q] = {awaited ? bare_packet_at(call_, rank_, result_index(at[q])) : nullptr,
                       owner};
        }
        if (!receive_any<T>(call_, from, data))
            return false;
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q)
            if (from[q].packet != nullptr)
                store(at[q].row, at[q].word * kWordElements, data[q]);
        return true;
    }

    IRIS_INLINE bool receive_result(place at) const
    {
        const place one[1] = {at};
        return receive_results(one);
    }

  private:
    /* Sources that are awaited at once. */
    static constexpr int32_t kSources = 4;
    /* Packets that a group has sent for a word. */
    static constexpr int32_t kPartPackets = kWordElements / kPacketElements<float>;

    /* The index of the first of them. */
    IRIS_INLINE int64_t partial_of(int32_t group, place at) const
    {
        const int32_t word = (int32_t)((uint32_t)at.word % IRIS_DECODE_GROUP);
        return layout_.partials +
               ((int64_t)(group * layout_.rows + at.row) * IRIS_DECODE_GROUP + word) * kPartPackets;
    }

    IRIS_INLINE int32_t after(int32_t rank, int32_t hops) const
    {
        return rank + hops < world_ ? rank + hops : rank + hops - world_;
    }

    IRIS_INLINE int64_t result_index(place at) const
    {
        return layout_.results + (int64_t)at.row * layout_.row_words + at.word;
    }

    IRIS_INLINE int64_t slot_of(place at) const
    {
        return iris_decode_slot(&layout_, rank_, at);
    }

    /* Packets of all ranks for this slot, kSources at a time: visit(source, data). */
    template <class Visit> IRIS_INLINE bool for_each_source(int64_t slot, Visit visit) const
    {
        IRIS_NO_UNROLL
        for (int32_t source = 0; source < world_; source += kSources) {
            const int32_t count = world_ - source < kSources ? world_ - source : kSources;
            data_t data[kSources];
            if (!receive_data<T>(call_, slot + source * layout_.slots, layout_.slots, source, count,
                                 -1, data))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kSources; ++q)
                if (q < count)
                    visit(source + q, data[q]);
        }
        return true;
    }

    /* ((p_0 + p_1) + p_2) + ... + bias, rounded once. */
    IRIS_INLINE bool add_up(place at) const
    {
        const int32_t row = at.row - rank_ * layout_.share_rows;
        const int32_t col = at.word * kWordElements - rank_ * layout_.share_cols;
        float sums[kWordElements] = {};
        const bool complete = for_each_source(slot_of(at), [&](int32_t source, data_t data) {
            packet_values<T> term;
            unpack_data<T>(data, term);
            IRIS_UNROLL
            for (int32_t k = 0; k < kWordElements; ++k)
                sums[k] = source == 0 ? term[k] : added(sums[k], term[k]);
        });
        if (!complete)
            return false;
        add_bias(row, col, sums);
        const data_t data = sendable<T>(pack_data<T>(sums));
        store(row, col, data);
        if (!has_results())
            return true;
        IRIS_NO_UNROLL
        for (int32_t hop = 1; hop < world_; ++hop)
            send_data<T>(call_, after(rank_, hop), result_index(at), data);
        return true;
    }

    IRIS_INLINE bool gather(place at) const
    {
        return for_each_source(slot_of(at), [&](int32_t source, data_t data) {
            store(source * layout_.rows + at.row, at.word * kWordElements, data);
        });
    }

    /* ---- this rank's result and its bias: (row, col) is where the word begins there, and may be
     * before the first column where a share begins within a word ---- */

    IRIS_INLINE int32_t result_cols() const
    {
        return layout_.share_cols != 0 ? layout_.share_cols : layout_.cols;
    }

    IRIS_INLINE void add_bias(int32_t row, int32_t col, float (&values)[kWordElements]) const
    {
        if (reduce_.bias.address == 0)
            return;
        const matrix<const T> bias = as_matrix<const T>(reduce_.bias).tile(row, 0);
        data_t data = {};
        packet_values<T> addend;
        IRIS_UNROLL
        for (int32_t k = 0; k < kWordElements; ++k)
            if (col + k >= 0 && col + k < result_cols())
                data.word[k / kWord<T>] |=
                    load_bits<(int)sizeof(T)>(bias.data + (col + k) * bias.stride_col)
                    << (8 * (int32_t)sizeof(T) * (k % kWord<T>));
        unpack_data<T>(data, addend);
        IRIS_UNROLL
        for (int32_t k = 0; k < kWordElements; ++k)
            values[k] = added(values[k], addend[k]);
    }

    IRIS_INLINE void store(int32_t row, int32_t col, const data_t &data) const
    {
        const matrix<T> target = as_matrix<T>(reduce_.output).tile(row, col);
        const bool whole = col >= 0 && col + kWordElements <= result_cols();
        if (whole && target.stride_col == 1 &&
            reinterpret_cast<uint64_t>(target.data) % kPacketBytes<T> == 0)
            return store_data<T>(target.data, kWordElements, true, data);
        IRIS_UNROLL
        for (int32_t k = 0; k < kWordElements; ++k)
            if (col + k >= 0 && col + k < result_cols())
                store_bits<(int)sizeof(T)>(target.data + k * target.stride_col,
                                           data.word[k / kWord<T>] >>
                                               (8 * (int32_t)sizeof(T) * (k % kWord<T>)));
    }

    const iris_reduce_args &reduce_;
    const iris_decode_layout &layout_;
    const call_state &call_;
    const int32_t rank_, world_;
};

} // namespace iris

#endif
