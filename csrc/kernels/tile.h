/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The tile verbs: all that a kernel of this folder may do with data. A kernel is written for one
 * work-group and handles whole tiles; what a work-group is belongs to the implementation behind
 * this header: on the host one thread with vector loops (tile_host.h), on a GPU a block of waves.
 *
 *   tile_gemm        accumulator  = A[m0.., :] @ B[:, n0..]
 *   tile_load        accumulator  = a tile in memory
 *   tile_rank_sum    accumulator  = sum over ranks, in rank order, of partial tiles in memory
 *                                   and the accumulator itself at its own rank's place
 *   tile_add         accumulator += a tile in memory (broadcast by stride 0)
 *   tile_store       a tile in memory = accumulator, rounded to the tile's dtype
 *   tile_atomic_add  a tile of float in memory += accumulator, element by element, atomically
 *   copy_bytes       plain bytes from here to there
 *
 * Accumulators are fp32 whatever the dtype in memory. Every verb is called by the whole
 * work-group and handles tiles cut by the matrix's edge (`extent`).
 *
 * Also here: how 64-bit offsets become pointers (`heap_pointer`), the only place that does.
 */
#ifndef IRIS_TILE_H
#define IRIS_TILE_H

#include <stdint.h>

#include "abi.h"

namespace iris
{

/* The storage types of fp16 and bf16: two bytes, no arithmetic of their own. */
struct half_t {
    uint16_t bits;
};
struct bfloat16_t {
    uint16_t bits;
};

/* A matrix, or a tile of one: element (i, j) at data[i * stride_row + j * stride_col]. */
template <typename T> struct matrix {
    T *data;
    int64_t stride_row;
    int64_t stride_col;

    matrix tile(int64_t row, int64_t col) const
    {
        return {data + row * stride_row + col * stride_col, stride_row, stride_col};
    }
};

/* The part of a tile that lies inside the matrix. */
struct extent {
    int32_t rows;
    int32_t cols;
};

/* Work-group tile sizes. */
struct block_shape {
    int32_t m, n, k;
};

template <typename T> inline matrix<T> as_matrix(const iris_matrix_args &args)
{
    return {reinterpret_cast<T *>(args.address), args.stride_row, args.stride_col};
}

/* `offset` bytes into rank `rank`'s heap, as this process sees it. */
template <typename T>
inline T *heap_pointer(const iris_call_args &call, int32_t rank, uint64_t offset)
{
    return reinterpret_cast<T *>(call.heap_bases[rank] + offset);
}

} // namespace iris

#if defined(__HIP_DEVICE_COMPILE__) || defined(__CUDA_ARCH__)
#error "no GPU tile implementation is part of this build"
#else
#include "tile_host.h"
#endif

#endif
