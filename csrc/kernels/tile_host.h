/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The tile verbs on the host: a work-group is one thread, a tile is a loop over rows, an
 * accumulator is a row-major fp32 array in the work-group's scratch memory. Rows of contiguous
 * elements go through rows_host.h, others element by element through a small buffer; the matrix
 * product is in gemm_host.cpp.
 */
#ifndef IRIS_TILE_HOST_H
#define IRIS_TILE_HOST_H

#include <string.h>

#include "gemm_host.h"
#include "kernel.h"
#include "rows_host.h"
#include "sync.h"

namespace iris
{

template <typename T> struct dtype_of;
template <> struct dtype_of<float> {
    static constexpr iris_dtype value = IRIS_DTYPE_F32;
};
template <> struct dtype_of<half_t> {
    static constexpr iris_dtype value = IRIS_DTYPE_F16;
};
template <> struct dtype_of<bfloat16_t> {
    static constexpr iris_dtype value = IRIS_DTYPE_BF16;
};

/* Elements handled at once where a row has to pass through a buffer. */
constexpr int64_t kRowChunk = 256;

struct accumulator {
    float *data;
    int64_t ld;
    iris_gemm_scratch *gemm; /* null for operations without a product */

    float *row(int64_t i) const
    {
        return data + i * ld;
    }
};

inline size_t accumulator_nbytes(block_shape block)
{
    return ((size_t)block.m * (size_t)block.n * sizeof(float) + 63) / 64 * 64;
}

/* K 0: no product will be asked for. */
inline accumulator accumulator_make(work_group wg, block_shape block, int64_t K)
{
    float *data = reinterpret_cast<float *>(wg.scratch);
    iris_gemm_scratch *gemm = nullptr;
    if (K > 0)
        gemm = iris_gemm_scratch_init(wg.scratch + accumulator_nbytes(block), block.m, block.n, K);
    return {data, block.n, gemm};
}

template <typename T>
inline void tile_gemm(work_group, accumulator &acc, const matrix<const T> &a,
                      const matrix<const T> &b, int64_t row, int64_t col, extent size, int64_t K)
{
    const iris_gemm_operand A = {a.data, a.stride_row, a.stride_col};
    const iris_gemm_operand B = {b.data, b.stride_row, b.stride_col};
    iris_gemm_tile(acc.gemm, dtype_of<T>::value, &A, &B, row, col, size.rows, size.cols, K,
                   acc.data, acc.ld);
}

/* Calls visit(i, j, source row segment as contiguous T, n) for every piece of the tile. */
template <typename T, typename Visit>
inline void for_each_source_run(const matrix<const T> &source, extent size, Visit visit)
{
    for (int64_t i = 0; i < size.rows; ++i) {
        const T *row = source.data + i * source.stride_row;
        if (source.stride_col == 1) {
            visit(i, (int64_t)0, row, (int64_t)size.cols);
            continue;
        }
        for (int64_t j = 0; j < size.cols; j += kRowChunk) {
            T run[kRowChunk];
            const int64_t n = size.cols - j < kRowChunk ? size.cols - j : kRowChunk;
            for (int64_t k = 0; k < n; ++k)
                run[k] = row[(j + k) * source.stride_col];
            visit(i, j, run, n);
        }
    }
}

template <typename T>
inline void tile_load(work_group, accumulator &acc, const matrix<const T> &source, extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for_each_source_run(source, size, [&](int64_t i, int64_t j, const T *run, int64_t n) {
        ops->load(acc.row(i) + j, run, n);
    });
}

template <typename T>
inline void tile_add(work_group, accumulator &acc, const matrix<const T> &source, extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for_each_source_run(source, size, [&](int64_t i, int64_t j, const T *run, int64_t n) {
        ops->add(acc.row(i) + j, run, n);
    });
}

template <typename T>
inline void tile_store(work_group, const matrix<T> &target, const accumulator &acc, extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for (int64_t i = 0; i < size.rows; ++i) {
        T *row = target.data + i * target.stride_row;
        if (target.stride_col == 1) {
            ops->store(row, acc.row(i), size.cols);
            continue;
        }
        for (int64_t j = 0; j < size.cols; j += kRowChunk) {
            T run[kRowChunk];
            const int64_t n = size.cols - j < kRowChunk ? size.cols - j : kRowChunk;
            ops->store(run, acc.row(i) + j, n);
            for (int64_t k = 0; k < n; ++k)
                row[(j + k) * target.stride_col] = run[k];
        }
    }
}

/* accumulator = ((p_0 + p_1) + p_2) + ..., where p_s is the packed tile at partials + s *
 * source_stride bytes, or, for s == own, what the accumulator holds. own -1: all from memory. */
template <typename T>
inline void tile_rank_sum(work_group, accumulator &acc, const char *partials,
                          uint64_t source_stride, int64_t ld, int32_t sources, int32_t own,
                          extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for (int64_t i = 0; i < size.rows; ++i) {
        const char *row = partials + (uint64_t)(i * ld) * sizeof(T);
        if (own == 0) {
            for (int32_t s = 1; s < sources; ++s)
                ops->add(acc.row(i), row + (uint64_t)s * source_stride, size.cols);
            continue;
        }
        for (int64_t j = 0; j < size.cols; j += kRowChunk) {
            const int64_t n = size.cols - j < kRowChunk ? size.cols - j : kRowChunk;
            const char *run = row + (uint64_t)j * sizeof(T);
            float *mine = acc.row(i) + j;
            float sum[kRowChunk];
            ops->load(sum, run, n);
            for (int32_t s = 1; s < sources; ++s) {
                if (s == own)
                    iris_row_ops_for(IRIS_DTYPE_F32)->add(sum, mine, n);
                else
                    ops->add(sum, run + (uint64_t)s * source_stride, n);
            }
            memcpy(mine, sum, (size_t)n * sizeof(float));
        }
    }
}

inline void tile_atomic_add(work_group, const matrix<float> &target, const accumulator &acc,
                            extent size)
{
    for (int64_t i = 0; i < size.rows; ++i) {
        float *row = target.data + i * target.stride_row;
        const float *mine = acc.row(i);
        for (int64_t j = 0; j < size.cols; ++j)
            atomic_add(row + j * target.stride_col, mine[j]);
    }
}

/* memory += accumulator; the caller holds the tile's lock. */
inline void tile_add_into(work_group, const matrix<float> &target, const accumulator &acc,
                          extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(IRIS_DTYPE_F32);
    for (int64_t i = 0; i < size.rows; ++i)
        ops->add(target.data + i * target.stride_row, acc.row(i), size.cols);
}

inline void clear_bytes(work_group, void *target, uint64_t nbytes)
{
    memset(target, 0, nbytes);
}

inline void copy_bytes(work_group, void *target, const void *source, uint64_t nbytes)
{
    memcpy(target, source, nbytes);
}

} // namespace iris

#endif
