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
#include "kernels/base/kernel.h"
#include "kernels/base/reduce_ops.h"
#include "kernels/protocol/sync.h"
#include "rows_host.h"

namespace iris
{

/* Elements handled at once where a row has to pass through a buffer. */
constexpr int64_t kRowChunk = 256;

template <typename A> struct tile_accumulator {
    A *data;
    int64_t ld;
    iris_gemm_scratch *gemm; /* null for operations without a product */

    A *row(int64_t i) const
    {
        return data + i * ld;
    }
};
using accumulator = tile_accumulator<float>;

inline size_t accumulator_nbytes(block_shape block, size_t element_nbytes)
{
    return ((size_t)block.m * (size_t)block.n * element_nbytes + 63) / 64 * 64;
}

/* K 0: no product will be asked for. */
template <typename A>
inline tile_accumulator<A> accumulator_make(work_group wg, block_shape block, int64_t K)
{
    A *data = reinterpret_cast<A *>(wg.scratch);
    iris_gemm_scratch *gemm = nullptr;
    if (K > 0)
        gemm = iris_gemm_scratch_init(wg.scratch + accumulator_nbytes(block, sizeof(A)), block.m,
                                      block.n, K);
    return {data, block.n, gemm};
}

template <typename T>
inline void tile_gemm(work_group, accumulator &acc, const matrix<const T> &a,
                      const matrix<const T> &b, int64_t row, int64_t col, extent size, int64_t K)
{
    const iris_gemm_operand A = {a.data, a.stride_row, a.stride_col, dtype_of<T>::value};
    const iris_gemm_operand B = {b.data, b.stride_row, b.stride_col, dtype_of<T>::value};
    iris_gemm_tile(acc.gemm, &A, &B, row, col, size.rows, size.cols, K, acc.data, acc.ld);
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
inline void tile_load(work_group, tile_accumulator<acc_t<T>> &acc, const matrix<const T> &source,
                      extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for_each_source_run(source, size, [&](int64_t i, int64_t j, const T *run, int64_t n) {
        ops->load(acc.row(i) + j, run, n);
    });
}

/* accumulator = reduced(source, accumulator, op): the source's rank comes first. */
template <typename T>
inline void tile_reduce(work_group, tile_accumulator<acc_t<T>> &acc, const matrix<const T> &source,
                        uint32_t op, extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for_each_source_run(source, size, [&](int64_t i, int64_t j, const T *run, int64_t n) {
        ops->reduce(acc.row(i) + j, run, n, op);
    });
}

/* What `op` does after the last rank's. */
template <typename A>
inline void tile_conclude(work_group, tile_accumulator<A> &acc, uint32_t op, int32_t world,
                          float scale, extent size)
{
    if (op != IRIS_REDUCE_AVG)
        return;
    for (int64_t i = 0; i < size.rows; ++i)
        for (int64_t j = 0; j < size.cols; ++j)
            acc.row(i)[j] = concluded(acc.row(i)[j], op, world, scale);
}

template <typename T>
inline void tile_add(work_group wg, accumulator &acc, const matrix<const T> &source, extent size)
{
    tile_reduce<T>(wg, acc, source, IRIS_REDUCE_SUM, size);
}

template <typename T>
inline void tile_store(work_group, const matrix<T> &target, const tile_accumulator<acc_t<T>> &acc,
                       extent size)
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

/* target = the product. Rows of contiguous fp32 are what the micro-kernels write, so such a target
 * needs no accumulator, and no second pass. */
template <typename T>
inline void tile_gemm_store(work_group wg, accumulator &acc, const matrix<const T> &a,
                            const matrix<const T> &b, int64_t row, int64_t col, extent size,
                            int64_t K, const matrix<T> &target)
{
    if constexpr (dtype_of<T>::value == IRIS_DTYPE_F32) {
        if (target.stride_col == 1) {
            accumulator direct = {target.data, target.stride_row, acc.gemm};
            tile_gemm(wg, direct, a, b, row, col, size, K);
            return;
        }
    }
    tile_gemm(wg, acc, a, b, row, col, size, K);
    tile_store(wg, target, acc, size);
}

/* accumulator = ((p_0 op p_1) op p_2) ..., where the p_s are packed tiles in memory, source_stride
 * bytes apart, but for p_own, which is what the accumulator holds. own -1: all are in memory. */
template <typename T>
inline void tile_rank_sum(work_group, tile_accumulator<acc_t<T>> &acc, const char *partials,
                          uint64_t source_stride, int64_t ld, int32_t sources, int32_t own,
                          uint32_t op, extent size)
{
    const iris_row_ops *ops = iris_row_ops_for(dtype_of<T>::value);
    for (int64_t i = 0; i < size.rows; ++i) {
        const char *row = partials + (uint64_t)(i * ld) * sizeof(T);
        if (own == 0) {
            for (int32_t s = 1; s < sources; ++s)
                ops->reduce(acc.row(i), row + (uint64_t)(s - 1) * source_stride, size.cols, op);
            continue;
        }
        for (int64_t j = 0; j < size.cols; j += kRowChunk) {
            const int64_t n = size.cols - j < kRowChunk ? size.cols - j : kRowChunk;
            const char *run = row + (uint64_t)j * sizeof(T);
            acc_t<T> *mine = acc.row(i) + j;
            acc_t<T> sum[kRowChunk];
            ops->load(sum, run, n);
            for (int32_t s = 1; s < sources; ++s) {
                if (s == own)
                    iris_row_ops_for(dtype_of<acc_t<T>>::value)->reduce(sum, mine, n, op);
                else
                    ops->reduce(sum,
                                run + (uint64_t)(own >= 0 && s > own ? s - 1 : s) * source_stride,
                                n, op);
            }
            memcpy(mine, sum, (size_t)n * sizeof sum[0]);
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
        ops->reduce(target.data + i * target.stride_row, acc.row(i), size.cols, IRIS_REDUCE_SUM);
}

/* Copies the rows of a matrix to `count` others, target(i). */
template <typename T, class Target>
inline void copy_runs(work_group, extent size, const matrix<const T> &source, int32_t count,
                      Target target)
{
    for (int32_t t = 0; t < count; ++t) {
        const matrix<T> to = target(t);
        for (int32_t i = 0; i < size.rows; ++i) {
            T *row = to.data + i * to.stride_row;
            const T *from = source.data + i * source.stride_row;
            if (to.stride_col == 1 && source.stride_col == 1) {
                memcpy(row, from, (size_t)size.cols * sizeof(T));
                continue;
            }
            for (int32_t j = 0; j < size.cols; ++j)
                row[j * to.stride_col] = from[j * source.stride_col];
        }
    }
}

inline void clear_bytes(work_group, void *target, uint64_t nbytes)
{
    if (nbytes > 0)
        memset(target, 0, nbytes);
}

/* Without bytes the addresses may be null, as those of empty tensors are. */
inline void copy_bytes(work_group, void *target, const void *source, uint64_t nbytes)
{
    if (nbytes > 0)
        memcpy(target, source, nbytes);
}

} // namespace iris

#endif
