/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce_rmsnorm: the end of a tensor-parallel layer in one kernel,
 *
 *   residual_out = round(sum over ranks of input + residual)
 *   output       = round(residual_out * weight / sqrt(mean(residual_out ** 2) + eps))
 *
 * row by row, sums and mean in fp32. The sum travels as packets (packets.h). A work-group handles
 * whole rows, a thread the same words of a row in every step, so that what it reads back of
 * residual_out it has written itself. A row starts with a word of its own whatever its length.
 */
#ifndef IRIS_RMSNORM_H
#define IRIS_RMSNORM_H

#include "kernels/abi/launch_limits.h"
#include "kernels/protocol/packets.h"
#include IRIS_TARGET_NORM

namespace iris
{

template <typename T> class row_words
{
  public:
    struct place {
        int64_t row, column; /* its first element */
        int64_t index;
    };

    IRIS_INLINE row_words(work_group wg, const iris_rmsnorm_args &args)
        : args_(args), wg_(wg),
          row_words_(to_vector_registers(iris_row_words(args.reduce.N, sizeof(T)))),
          aligned_(opaque((args.reduce.a.address | args.reduce.output.address | args.residual |
                           args.residual_out | args.weight | (uint64_t)args.reduce.N * sizeof(T)) %
                              kPacketBytes<T> ==
                          0))
    {
    }

    IRIS_INLINE int64_t nbytes() const
    {
        return args_.reduce.M * row_words_ * kPacketBytes<T>;
    }

    /* Without rows one word is exchanged all the same: the ranks meet. */
    IRIS_INLINE place first() const
    {
        return first_of_row(first_row());
    }

    /* The thread's next place: of the same row, or of the group's next one. */
    IRIS_INLINE place after(place at) const
    {
        const int64_t column = at.column + wg_.threads * kPacketElements<T>;
        if (column < row_words_ * kPacketElements<T>)
            return {at.row, column, at.index + wg_.threads};
        return first_of_row(at.row + wg_.count);
    }

    IRIS_INLINE packet_data<T> load(place at) const
    {
        return word_of(args_.reduce.a.address, at);
    }

    IRIS_INLINE float combined(float a, float b) const
    {
        return added(a, b);
    }

    IRIS_INLINE void conclude(place at, float (&values)[kPacketElements<T>]) const
    {
        float residual[kPacketElements<T>];
        if (args_.residual == 0)
            return;
        unpack_data<T>(word_of(args_.residual, at), residual);
        IRIS_UNROLL
        for (int32_t k = 0; k < kPacketElements<T>; ++k)
            values[k] += residual[k];
    }

    IRIS_INLINE void store(place at, const packet_data<T> &word) const
    {
        store_at(args_.residual_out, at, word);
    }

    /* From residual_out to output, after all words of the group's rows have been stored. */
    IRIS_INLINE void normalize() const
    {
#if defined(IRIS_GPU)
        normalize_by_words();
#else
        normalize_rows(wg_, args_, dtype_of<T>::value);
#endif
    }

  private:
#if defined(IRIS_GPU)
    IRIS_INLINE void normalize_by_words() const
    {
        IRIS_NO_UNROLL
        for (int64_t row = first_row(); row < args_.reduce.M; row += wg_.count) {
            float squares = 0;
            for_each_of_row(row, [&](place at) {
                float x[kPacketElements<T>];
                unpack_data<T>(word_of(args_.residual_out, at), x);
                IRIS_UNROLL
                for (int32_t k = 0; k < kPacketElements<T>; ++k)
                    squares += squared(x[k]);
            });
            const float scale =
                reciprocal_sqrt(group_sum(wg_, squares) * args_.reduce.reduce_scale + args_.eps);
            for_each_of_row(row, [&](place at) {
                const place weight = {0, at.column, 0};
                float x[kPacketElements<T>], w[kPacketElements<T>];
                unpack_data<T>(word_of(args_.residual_out, at), x);
                unpack_data<T>(word_of(args_.weight, weight), w);
                IRIS_UNROLL
                for (int32_t k = 0; k < kPacketElements<T>; ++k)
                    x[k] = round_alone(x[k] * scale * w[k]); /* before the conversion */
                store_at(args_.reduce.output.address, at, pack_data<T>(x));
            });
        }
    }
#endif

    IRIS_INLINE int64_t first_row() const
    {
        return to_vector_registers((int64_t)wg_.index);
    }

    IRIS_INLINE place first_of_row(int64_t row) const
    {
        const int64_t i = wg_.thread; /* a short row has nothing for it */
        return {row, i * kPacketElements<T>, i < row_words_ ? row * row_words_ + i : INT64_MAX};
    }

#if defined(IRIS_GPU)
    template <class Visit> IRIS_INLINE void for_each_of_row(int64_t row, Visit visit) const
    {
        IRIS_NO_UNROLL
        for (int64_t i = wg_.thread; i < row_words_; i += wg_.threads)
            visit(place{row, i * kPacketElements<T>, 0});
    }
#endif

    /* Elements of the row from the place on. */
    IRIS_INLINE int64_t left(place at) const
    {
        return args_.reduce.M > 0 ? args_.reduce.N - at.column : 0;
    }

    IRIS_INLINE packet_data<T> word_of(uint64_t address, place at) const
    {
        return load_data(device_pointer<const T>(address) + at.row * args_.reduce.N + at.column,
                         left(at), aligned_ != 0);
    }

    IRIS_INLINE void store_at(uint64_t address, place at, const packet_data<T> &word) const
    {
        store_data(device_pointer<T>(address) + at.row * args_.reduce.N + at.column, left(at),
                   aligned_ != 0, word);
    }

    const iris_rmsnorm_args &args_;
    const work_group wg_;
    const int64_t row_words_;
    const int32_t aligned_;
};

template <typename T, iris_variant kVariant>
IRIS_INLINE void all_reduce_rmsnorm(work_group wg, const iris_rmsnorm_args &args)
{
    const row_words<T> words(wg, args);
    packet_exchange<T, row_words<T>> reduction(wg, args.reduce.call, words);
    const bool complete = group_agree(wg, kVariant == IRIS_VARIANT_LL ? reduction.one_crossing()
                                                                      : reduction.two_crossings());
    reduction.finish(complete);
    if (complete)
        words.normalize();
}

} // namespace iris

#endif
