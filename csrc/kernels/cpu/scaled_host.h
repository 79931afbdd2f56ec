/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of float8 operands with scales on the host (kernels/abi/scaling.h): tiles of the widened
 * operands, one for each block of K that has scales of its own, which are multiplied by them as
 * they are added up.
 */
#ifndef IRIS_SCALED_HOST_H
#define IRIS_SCALED_HOST_H

#include "kernels/base/tile.h"

namespace iris
{

/* A piece of both operands: K elements, whose blocks begin with the piece. */
struct scaled_operands {
    matrix<const float8_t> a, b;
    iris_scaling scaling;
    int64_t K;
};

class scaled_tiles
{
  public:
    /* A tile's partial sums lie behind what accumulator_make takes of the scratch. */
    scaled_tiles(work_group wg, block_shape block, int64_t K)
        : partial_(reinterpret_cast<float *>(wg.scratch + accumulator_nbytes(block, 4) +
                                             iris_gemm_scratch_nbytes(block.m, block.n, K)))
    {
    }

    /* accumulator = the product of the piece, or += it. */
    void multiply(accumulator &acc, const scaled_operands &piece, int64_t row, int64_t col,
                  extent size, bool adds) const
    {
        const iris_scaling &s = piece.scaling;
        const bool by_blocks = IRIS_ANY_SCALES_BY_BLOCKS(s.a.kind, s.b.kind);
        const int64_t step = by_blocks ? IRIS_SCALE_BLOCK : piece.K;

        for (int64_t k = 0; k < piece.K; k += step) {
            const matrix<const float8_t> a = piece.a.tile(0, k), b = piece.b.tile(k, 0);
            const iris_gemm_operand A = {a.data, a.stride_row, a.stride_col, (iris_dtype)s.a_dtype};
            const iris_gemm_operand B = {b.data, b.stride_row, b.stride_col, (iris_dtype)s.b_dtype};
            const bool first = k == 0 && !adds;
            float *sums = first ? acc.data : partial_;
            iris_gemm_tile(acc.gemm, &A, &B, row, col, size.rows, size.cols,
                           piece.K - k < step ? piece.K - k : step, sums, acc.ld);
            scale(acc, sums, s, row, col, k / IRIS_SCALE_BLOCK, size, first);
        }
    }

  private:
    /* `first`: `sums` is the accumulator, and scaled in place. */
    static void scale(accumulator &acc, const float *sums, const iris_scaling &s, int64_t row,
                      int64_t col, int64_t block, extent size, bool first)
    {
        for (int64_t j = 0; j < size.cols; j += kRowChunk) {
            const int64_t n = size.cols - j < kRowChunk ? size.cols - j : kRowChunk;
            float of_columns[kRowChunk];
            for (int64_t c = 0; c < n; ++c)
                of_columns[c] = *scale_address(s.b, col + j + c, block);
            for (int64_t i = 0; i < size.rows; ++i) {
                const float of_row = *scale_address(s.a, row + i, block);
                const float *from = sums + i * acc.ld + j;
                float *to = acc.row(i) + j;
                for (int64_t c = 0; c < n; ++c)
                    to[c] = (first ? 0.0f : to[c]) + (from[c] * of_row) * of_columns[c];
            }
        }
    }

    float *partial_;
};

} // namespace iris

#endif
