/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What calls by packets read and write, as words, each the data of a packet, which are dealt to the
 * threads of the launch: the elements of an all_reduce (flat_words), those of a share of a
 * reduce_scatter (scattered_words), the bytes of an all_gather (gathered_words). Rows of an
 * all_reduce_rmsnorm are in rmsnorm.h. A thread's words are first(), after(that), ... below the
 * number of words.
 */
#ifndef IRIS_PACKET_OPERANDS_H
#define IRIS_PACKET_OPERANDS_H

#include "kernels/abi/launch_limits.h"
#include "packet_data.h"

namespace iris
{

/* Words that lie one after the other. Runs of as many as a wave has lanes are dealt to the
 * work-groups in turn, so that a short message leaves from many SMs at once: what one sends is
 * limited. */
class dealt_words
{
  public:
    struct place {
        int64_t index;
    };

    IRIS_INLINE explicit dealt_words(work_group wg)
        : first_(((int64_t)(wg.thread / kRun) * wg.count + wg.index) * kRun + wg.thread % kRun),
          step_((int64_t)wg.count * wg.threads)
    {
    }

    IRIS_INLINE place first() const
    {
        return {first_};
    }

    IRIS_INLINE place after(place at) const
    {
        return {at.index + step_};
    }

  protected:
#if defined(IRIS_GPU)
    static constexpr int32_t kRun = IRIS_PACKET_RUN;
#else
    static constexpr int32_t kRun = 1;
#endif
    const int64_t first_, step_;
};

/* Words of a run of elements that are reduced. `alignment`: an address that has that of all. */
template <typename T> class reduced_words : public dealt_words
{
  public:
    IRIS_INLINE reduced_words(work_group wg, const iris_reduce_args &args, uint64_t alignment)
        : dealt_words(wg), args_(args), input_(device_pointer<const T>(args.a.address)),
          output_(device_pointer<T>(args.output.address)),
          aligned_(alignment % kPacketBytes<T> == 0)
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

    IRIS_INLINE void conclude(place, packet_values<T> &values) const
    {
        IRIS_UNROLL
        for (int32_t k = 0; k < kPacketElements<T>; ++k)
            values[k] =
                concluded(values[k], args_.reduce_op, args_.call.world_size, args_.reduce_scale);
    }

    IRIS_INLINE void store(place at, const packet_data<T> &data) const
    {
        store_data(output_ + at.index * kPacketElements<T>, left(at.index), aligned_, data);
    }

  protected:
    /* Elements from word i on. */
    IRIS_INLINE int64_t left(int64_t i) const
    {
        return args_.N - i * kPacketElements<T>;
    }

    /* Word i of a row of the input. */
    IRIS_INLINE packet_data<T> load_from_row(int32_t row, int64_t i) const
    {
        return load_data(input_ + row * args_.a.stride_row + i * kPacketElements<T>, left(i),
                         aligned_);
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
        : base(wg, args, args.a.address | args.output.address),
          first_data_(this->left(this->first_) > 0 ? this->load_from_row(0, this->first_)
                                                   : packet_data<T>{})
    {
    }

    IRIS_INLINE packet_data<T> load(place at) const
    {
        return at.index == this->first_ ? first_data_ : this->load_from_row(0, at.index);
    }

  private:
    /* The thread's first word, mostly its only one: loaded while the counter is. */
    const packet_data<T> first_data_;
};

/* The words of a share of a reduce_scatter, of whose input row r is the share of rank r. */
template <typename T> class scattered_words : public reduced_words<T>
{
    typedef reduced_words<T> base;

  public:
    typedef typename base::place place;

    IRIS_INLINE scattered_words(work_group wg, const iris_reduce_args &args)
        : base(wg, args,
               args.a.address | args.output.address | (uint64_t)args.a.stride_row * sizeof(T))
    {
    }

    IRIS_INLINE packet_data<T> load(place at) const
    {
        return load_for(this->args_.call.rank, at);
    }

    /* The same word of rank `rank`'s share. */
    IRIS_INLINE packet_data<T> load_for(int32_t rank, place at) const
    {
        return this->load_from_row(rank, at.index);
    }
};

/* The words of an all_gather: the bytes that each rank has. Its part of the output has as many as
 * every other's, wherever that makes it begin. */
class gathered_words : public dealt_words
{
  public:
    typedef packet_data<uint8_t> data;

    IRIS_INLINE gathered_words(work_group wg, const iris_copy_collective_args &args)
        : dealt_words(wg), args_(args), input_(device_pointer<const uint8_t>(args.input)),
          in_place_(args.input == part_of(args.call.rank)),
          first_data_(left(first_) > 0 ? load_from_memory(first_) : data{})
    {
    }

    IRIS_INLINE int64_t nbytes() const
    {
        return (int64_t)args_.nbytes;
    }

    IRIS_INLINE data load(place at) const
    {
        return at.index == first_ ? first_data_ : load_from_memory(at.index);
    }

    /* Into the part of rank `source`. */
    IRIS_INLINE void store(int32_t source, place at, const data &word) const
    {
        const uint64_t part = part_of(source);
        if (source != args_.call.rank || !in_place_)
            store_data(device_pointer<uint8_t>(part) + at.index * kPacketBytes<uint8_t>,
                       left(at.index), part % kPacketBytes<uint8_t> == 0, word);
    }

  private:
    IRIS_INLINE uint64_t part_of(int32_t rank) const
    {
        return args_.output + (uint64_t)rank * args_.target_step;
    }

    /* Bytes from word i on. */
    IRIS_INLINE int64_t left(int64_t i) const
    {
        return nbytes() - i * kPacketBytes<uint8_t>;
    }

    IRIS_INLINE data load_from_memory(int64_t i) const
    {
        return load_data(input_ + i * kPacketBytes<uint8_t>, left(i),
                         args_.input % kPacketBytes<uint8_t> == 0);
    }

    const iris_copy_collective_args &args_;
    const uint8_t *const input_;
    const bool in_place_;
    const data first_data_; /* as in flat_words */
};

} // namespace iris

#endif
