/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Reductions and gathers by words that need no signal beside them: bare ones of floating point,
 * packets of all else (sync.h, NOTE [bare words], NOTE [packets]).
 *
 *   ll            Every rank sends its elements to every other and reduces all of them itself, or
 *                 keeps them side by side: one hop, W - 1 times the data, and no barrier anywhere.
 *   ll_two_shot   Blocks of words are dealt to the ranks. A rank reduces its blocks and sends the
 *                 result to all: two hops, twice the data whatever W is.
 *   ll, scattered Every rank sends each other one that one's share, and reduces its own: one hop.
 *
 *   words of a half               written by   read by      ordered by
 *   [source][word], from 0        source       this rank    themselves
 *   ll_two_shot: [word], after    the owner    this rank    themselves
 *
 * Ranks are added in their order, in fp32, from the same bits: all ranks get the same bits, in
 * every run. A thread first sends all that is its own, then waits, so that waits form no circle.
 * Works on words of eight bytes; results are written by this rank alone, from anywhere to anywhere,
 * also over the input: each word of it is read and written by one thread. What the words are, who
 * handles which, and what becomes of a result is said by `Words`: the elements of an all_reduce
 * (flat_words), those of a share of a reduce_scatter (scattered_words), the rows of an
 * all_reduce_rmsnorm (rmsnorm.h), the bytes of an all_gather (gathered_words).
 */
#ifndef IRIS_PACKETS_H
#define IRIS_PACKETS_H

#include "kernels/abi/schedule.h"
#include "kernels/base/reduce_ops.h"
#include "sync.h"

namespace iris
{

/* Words that lie one after the other, dealt to the threads of the launch in turn. */
class dealt_words
{
  public:
    struct place {
        int64_t index;
    };

    IRIS_INLINE explicit dealt_words(work_group wg)
        : first_((int64_t)wg.index * wg.threads + wg.thread), step_((int64_t)wg.count * wg.threads)
    {
    }

    template <class Visit> IRIS_INLINE bool for_each(int64_t words, Visit visit) const
    {
        IRIS_NO_UNROLL
        for (int64_t i = first_; i < words; i += step_)
            if (!visit(place{i}))
                return false;
        return true;
    }

  protected:
    const int64_t first_, step_;
};

/* Words of a run of elements that are reduced. */
template <typename T> class reduced_words : public dealt_words
{
  public:
    IRIS_INLINE reduced_words(work_group wg, const iris_reduce_args &args, bool aligned)
        : dealt_words(wg), args_(args), input_(device_pointer<const T>(args.a.address)),
          output_(device_pointer<T>(args.output.address)), aligned_(aligned)
    {
    }

    IRIS_INLINE int64_t nbytes() const
    {
        return args_.N * (int64_t)sizeof(T);
    }

    IRIS_INLINE acc_t<T> combined(acc_t<T> a, acc_t<T> b) const
    {
        return reduced(a, b, args_.reduce_op);
    }

    IRIS_INLINE void conclude(place, acc_t<T> (&values)[kWord<T>]) const
    {
        IRIS_UNROLL
        for (int32_t k = 0; k < kWord<T>; ++k)
            values[k] =
                concluded(values[k], args_.reduce_op, args_.call.world_size, args_.reduce_scale);
    }

    IRIS_INLINE void store(place at, uint64_t word) const
    {
        store_word(output_ + at.index * kWord<T>, left(at.index), aligned_, word);
    }

  protected:
    /* Elements from word i on. */
    IRIS_INLINE int64_t left(int64_t i) const
    {
        return args_.N - i * kWord<T>;
    }

    /* Word i of a row of the input. */
    IRIS_INLINE uint64_t load_from_row(int32_t row, int64_t i) const
    {
        return load_word(input_ + row * args_.a.stride_row + i * kWord<T>, left(i), aligned_);
    }

    const iris_reduce_args &args_;
    const T *const input_;
    T *const output_;
    const bool aligned_;
};

/* The words of an all_reduce: its elements. */
template <typename T> class flat_words : public reduced_words<T>
{
    typedef reduced_words<T> base;

  public:
    typedef typename base::place place;

    IRIS_INLINE flat_words(work_group wg, const iris_reduce_args &args)
        : base(wg, args, (args.a.address | args.output.address) % kWordBytes == 0),
          first_data_(this->first_ * kWord<T> < args.N ? this->load_from_row(0, this->first_) : 0)
    {
    }

    IRIS_INLINE uint64_t load(place at) const
    {
        return at.index == this->first_ ? first_data_ : this->load_from_row(0, at.index);
    }

  private:
    /* The thread's first word, mostly its only one: loaded while the counter is. */
    const uint64_t first_data_;
};

/* The words of a share of a reduce_scatter, of whose input row r is the share of rank r. */
template <typename T> class scattered_words : public reduced_words<T>
{
    typedef reduced_words<T> base;

  public:
    typedef typename base::place place;

    IRIS_INLINE scattered_words(work_group wg, const iris_reduce_args &args)
        : base(wg, args,
               (args.a.address | args.output.address | (uint64_t)args.a.stride_row * sizeof(T)) %
                       kWordBytes ==
                   0)
    {
    }

    IRIS_INLINE uint64_t load(place at) const
    {
        return load_for(this->args_.call.rank, at);
    }

    /* The same word of rank `rank`'s share. */
    IRIS_INLINE uint64_t load_for(int32_t rank, place at) const
    {
        return this->load_from_row(rank, at.index);
    }
};

/* The words of an all_gather: the bytes that each rank has. Its part of the output has as many as
 * every other's, wherever that makes it begin. */
class gathered_words : public dealt_words
{
  public:
    IRIS_INLINE gathered_words(work_group wg, const iris_copy_collective_args &args)
        : dealt_words(wg), args_(args), input_(device_pointer<const uint8_t>(args.input)),
          in_place_(args.input == part_of(args.call.rank)),
          first_data_(first_ * kWordBytes < nbytes() ? load_from_memory(first_) : 0)
    {
    }

    IRIS_INLINE int64_t nbytes() const
    {
        return (int64_t)args_.nbytes;
    }

    IRIS_INLINE uint64_t load(place at) const
    {
        return at.index == first_ ? first_data_ : load_from_memory(at.index);
    }

    /* Into the part of rank `source`. */
    IRIS_INLINE void store(int32_t source, place at, uint64_t word) const
    {
        const uint64_t part = part_of(source);
        if (source != args_.call.rank || !in_place_)
            store_word(device_pointer<uint8_t>(part) + at.index * kWordBytes, left(at.index),
                       part % kWordBytes == 0, word);
    }

  private:
    IRIS_INLINE uint64_t part_of(int32_t rank) const
    {
        return args_.output + (uint64_t)rank * args_.target_step;
    }

    /* Bytes from word i on. */
    IRIS_INLINE int64_t left(int64_t i) const
    {
        return nbytes() - i * kWordBytes;
    }

    IRIS_INLINE uint64_t load_from_memory(int64_t i) const
    {
        return load_word(input_ + i * kWordBytes, left(i), args_.input % kWordBytes == 0);
    }

    const iris_copy_collective_args &args_;
    const uint8_t *const input_;
    const bool in_place_;
    const uint64_t first_data_; /* as in flat_words */
};

/* How words of T travel. `index` counts those of this call's half on rank `rank`. */
template <typename T> constexpr bool kTravelsBare = kSumsInFloat<T>;

/* The word as it is sent; who adds it up without sending it takes this too. */
template <typename T> IRIS_INLINE uint64_t sendable(uint64_t word)
{
    return kTravelsBare<T> ? bare(word) : word;
}

template <typename T>
IRIS_INLINE void send_word(const call_state &call, int32_t rank, int64_t index, uint64_t word)
{
    if constexpr (kTravelsBare<T>)
        store_bare(bare_word_at(call, rank, index), word);
    else
        send_packet(call, packet_at(call, rank, index), word);
}

/* As receive_packets. */
template <typename T, int kCount>
IRIS_INLINE bool receive_words(const call_state &call, int64_t first, int64_t stride,
                               int32_t source, int32_t count, int32_t except,
                               uint64_t (&data)[kCount], iris_signal signal = IRIS_SIGNAL_PARTIAL)
{
    const int32_t self = call.args.rank;
    if constexpr (kTravelsBare<T>)
        return receive_bare_words(call, bare_word_at(call, self, first), stride, source, count,
                                  except, data);
    else
        return receive_packets(call, packet_at(call, self, first), stride, source, count, except,
                               data, signal);
}

/* T: of the elements that are reduced; of a gather's bytes uint8_t. */
template <typename T, class Words> class packet_exchange
{
  public:
    IRIS_INLINE packet_exchange(work_group wg, const iris_call_args &args, const Words &words)
        : wg_(wg), words_(words),
          layout_(to_vector_registers(iris_packet_layout_make(words.nbytes(), args.world_size))),
          rank_(args.rank), world_(args.world_size), call_(call_begin(args))
    {
    }

    /* Whether this thread's words are all done; so below. */
    IRIS_INLINE bool one_crossing()
    {
        send_to_all();
        return reduce_all();
    }

    /* The same, of shares. */
    IRIS_INLINE bool scatter()
    {
        words_.for_each(layout_.words, [&](place at) {
            IRIS_NO_UNROLL
            for (int32_t hop = 1; hop < world_; ++hop)
                send_word<T>(call_, peer(hop), rank_ * layout_.words + at.index,
                             sendable<T>(words_.load_for(peer(hop), at)));
            return true;
        });
        sent();
        return reduce_all();
    }

    /* The same, with nothing added. */
    IRIS_INLINE bool gather()
    {
        send_to_all();
        return words_.for_each(layout_.words, [&](place at) { return keep(at); });
    }

    IRIS_INLINE bool two_crossings()
    {
        words_.for_each(layout_.words, [&](place at) {
            const int32_t owner = iris_packet_owner(&layout_, at.index);
            if (owner != rank_)
                send_word<T>(call_, owner, share_index(rank_, at.index),
                             sendable<T>(words_.load(at)));
            return true;
        });
        sent();
        const bool complete = words_.for_each(layout_.words, [&](place at) {
            uint64_t result;
            if (iris_packet_owner(&layout_, at.index) != rank_)
                return true;
            if (!reduce(at, share_index(0, at.index), layout_.share_words, result))
                return false;
            words_.store(at, result);
            IRIS_NO_UNROLL
            for (int32_t hop = 1; hop < world_; ++hop)
                send_word<T>(call_, peer(hop), layout_.results + at.index, result);
            return true;
        });
        packets_are_sent(call_);
        return complete && words_.for_each(layout_.words, [&](place at) {
            const int32_t owner = iris_packet_owner(&layout_, at.index);
            uint64_t data[1];
            if (owner == rank_)
                return true;
            if (!receive_words<T>(call_, layout_.results + at.index, 0, owner, 1, -1, data))
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

    IRIS_INLINE void send_to_all()
    {
        words_.for_each(layout_.words, [&](place at) {
            const uint64_t word = sendable<T>(words_.load(at));
            IRIS_NO_UNROLL
            for (int32_t hop = 1; hop < world_; ++hop)
                send_word<T>(call_, peer(hop), rank_ * layout_.words + at.index, word);
            return true;
        });
        sent();
    }

    IRIS_INLINE bool reduce_all() const
    {
        return words_.for_each(layout_.words, [&](place at) {
            uint64_t result;
            if (!reduce(at, at.index, layout_.words, result))
                return false;
            words_.store(at, result);
            return true;
        });
    }

    /* The word at `at` over all ranks, ((p_0 + p_1) + p_2) + ..., as it can be sent; the peers'
     * words lie `stride` apart. */
    IRIS_INLINE bool reduce(place at, int64_t first, int64_t stride, uint64_t &result) const
    {
        const uint64_t own = sendable<T>(words_.load(at));
        acc_t<T> values[kWord<T>] = {};
        IRIS_NO_UNROLL
        for (int32_t source = 0; source < world_; source += kSources) {
            const int32_t count = batch(source);
            uint64_t data[kSources] = {};
            if (!receive_words<T>(call_, first + source * stride, stride, source, count, rank_,
                                  data))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kSources; ++q) {
                acc_t<T> term[kWord<T>];
                if (q >= count)
                    continue;
                unpack_word<T>(source + q == rank_ ? own : data[q], term);
                IRIS_UNROLL
                for (int32_t k = 0; k < kWord<T>; ++k)
                    values[k] = source + q == 0 ? term[k] : words_.combined(values[k], term[k]);
            }
        }
        words_.conclude(at, values);
        result = sendable<T>(pack_word<T>(values));
        return true;
    }

    /* The word at `at` of every rank, stored. */
    IRIS_INLINE bool keep(place at) const
    {
        words_.store(rank_, at, words_.load(at));
        IRIS_NO_UNROLL
        for (int32_t source = 0; source < world_; source += kSources) {
            const int32_t count = batch(source);
            uint64_t data[kSources] = {};
            if (!receive_words<T>(call_, source * layout_.words + at.index, layout_.words, source,
                                  count, rank_, data, IRIS_SIGNAL_UNIT))
                return false;
            IRIS_UNROLL
            for (int32_t q = 0; q < kSources; ++q)
                if (q < count && source + q != rank_)
                    words_.store(source + q, at, data[q]);
        }
        return true;
    }

    IRIS_INLINE void sent()
    {
        packets_are_sent(call_);
#if defined(IRIS_GPU)
        if (ends_early(call_))
            count_ = count_in_early(wg_, call_);
#endif
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
IRIS_INLINE void reduce_scatter_by_words(work_group wg, const iris_reduce_args &args)
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
