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

namespace iris
{

#if defined(IRIS_GPU)
IRIS_INLINE float squared(float x)
{
    return round_alone(x * x); /* the same for all dtypes */
}

/* The sum of all threads' values, in one order whatever the threads do. Called by all of them. */
IRIS_INLINE float group_sum(work_group wg, float value)
{
    constexpr int32_t kThreads = IRIS_ROW_THREADS, kParts = 32;
    IRIS_SHARED static float values[kThreads], sums[kParts];
    float sum = 0;
    values[wg.thread] = value;
    group_barrier(wg);
    if (wg.thread < kParts) {
        float part = 0;
        for (int32_t i = wg.thread; i < kThreads; i += kParts)
            part += values[i];
        sums[wg.thread] = part;
    }
    group_barrier(wg); /* the next call's first one stands before `sums` changes */
    for (int32_t i = 0; i < kParts; ++i)
        sum += sums[i];
    return sum;
}
#else
/* From residual_out to output on the host, where a row passes in pieces that stay in L1. */
class row_normalizer
{
  public:
    row_normalizer(const iris_rmsnorm_args &args, iris_dtype dtype)
        : args_(args), ops_(iris_row_ops_for(dtype)), columns_(args.reduce.N),
          size_(dtype == IRIS_DTYPE_F32 ? 4 : 2)
    {
    }

    void normalize(int64_t row) const
    {
        const float scale = scale_of(row);
        if (args_.output_scale != 0) {
            quantize(row, scale);
            return;
        }
        char *to = device_pointer<char>(args_.reduce.output.address) + row * columns_ * size_;
        for (int64_t at = 0; at < columns_; at += kPiece) {
            float x[kPiece];
            const int64_t n = normed(row, at, columns_, scale, x);
            ops_->store(to + at * size_, x, n);
        }
    }

  private:
    static constexpr int64_t kPiece = 1024;

    const char *row_of_sums(int64_t row) const
    {
        return device_pointer<const char>(args_.residual_out) + row * columns_ * size_;
    }

    /* What the row is multiplied by. */
    float scale_of(int64_t row) const
    {
        float x[kPiece], squares[16] = {}, sum = 0;
        for (int64_t at = 0; at < columns_; at += kPiece) {
            const int64_t n = columns_ - at < kPiece ? columns_ - at : kPiece;
            ops_->load(x, row_of_sums(row) + at * size_, n);
            for (int64_t i = n; i % 16 != 0; ++i)
                x[i] = 0;
            for (int64_t i = 0; i < n; i += 16)
                for (int k = 0; k < 16; ++k)
                    squares[k] += x[i + k] * x[i + k];
        }
        for (float part : squares)
            sum += part;
        return reciprocal_sqrt(sum * args_.reduce.reduce_scale + args_.eps);
    }

    /* The normed elements of a row from column `at` on, before column `end`; how many. */
    int64_t normed(int64_t row, int64_t at, int64_t end, float scale, float (&x)[kPiece]) const
    {
        const int64_t n = end - at < kPiece ? end - at : kPiece;
        float w[kPiece];
        ops_->load(x, row_of_sums(row) + at * size_, n);
        ops_->load(w, device_pointer<const char>(args_.weight) + at * size_, n);
        for (int64_t i = 0; i < n; ++i)
            x[i] = x[i] * scale * w[i];
        return n;
    }

    /* As float8, scale_cols elements with one scale: what makes the largest of them the format's
     * largest. Zeros have 1. */
    void quantize(int64_t row, float scale) const
    {
        const iris_dtype dtype = (iris_dtype)args_.output_dtype;
        const int64_t step = args_.scale_cols, scales = (columns_ + step - 1) / step;
        uint8_t *to = device_pointer<uint8_t>(args_.reduce.output.address) + row * columns_;
        float *to_scale = device_pointer<float>(args_.output_scale) + row * scales;
        float x[kPiece];

        for (int64_t first = 0; first < columns_; first += step) {
            const int64_t end = columns_ - first < step ? columns_ : first + step;
            float most = 0;
            for (int64_t at = first; at < end; at += kPiece) {
                const int64_t n = normed(row, at, end, scale, x);
                for (int64_t i = 0; i < n; ++i) /* NaN stays */
                    most = !(__builtin_fabsf(x[i]) <= most) ? __builtin_fabsf(x[i]) : most;
            }
            const float unit = quantum_of(most, iris_float8_largest(dtype));
            for (int64_t at = first; at < end; at += kPiece) {
                const int64_t n = normed(row, at, end, scale, x);
                for (int64_t i = 0; i < n; ++i)
                    x[i] /= unit;
                iris_float8_store(dtype, to + at, x, n);
            }
            to_scale[first / step] = unit;
        }
    }

    static float quantum_of(float most, float largest)
    {
        constexpr float kLeast = 1.17549435e-38f; /* with all of its bits */
        const float unit = most / largest;
        return most == 0 ? 1.0f : unit < kLeast ? kLeast : unit;
    }

    const iris_rmsnorm_args &args_;
    const iris_row_ops *ops_;
    const int64_t columns_, size_;
};

inline void normalize_rows(work_group wg, const iris_rmsnorm_args &args, iris_dtype dtype)
{
    const row_normalizer rows(args, dtype);
    for (int64_t row = wg.index; row < args.reduce.M; row += wg.count)
        rows.normalize(row);
}

/* The end of all_reduce_rmsnorm in the variants of the host that are not by packets: an all_reduce
 * has left residual_out. */
template <typename T> inline void rmsnorm(work_group wg, const iris_rmsnorm_args &args)
{
    normalize_rows(wg, args, dtype_of<T>::value);
}
#endif

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
