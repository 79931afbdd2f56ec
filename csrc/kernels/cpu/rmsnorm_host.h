/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The end of all_reduce_rmsnorm on the host: from residual_out to output, in its dtype or in float8
 * with scales.
 */
#ifndef IRIS_RMSNORM_HOST_H
#define IRIS_RMSNORM_HOST_H

#include "float8_host.h"
#include "kernels/base/kernel.h"
#include "kernels/base/primitives.h"
#include "rows_host.h"

namespace iris
{

/* A row passes in pieces that stay in L1. */
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
                for (int64_t i = 0; i < n; ++i) /* one NaN makes it NaN */
                    most = __builtin_fabsf(x[i]) <= most || most != most ? most
                                                                         : __builtin_fabsf(x[i]);
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

} // namespace iris

#endif
