/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The types that every kernel header builds on: what a work-group is, matrices and tiles in
 * memory, and how 64-bit addresses and offsets become pointers, which happens only here.
 */
#ifndef IRIS_KERNEL_H
#define IRIS_KERNEL_H

#include <stdint.h>

#include "abi.h"

namespace iris
{

#if defined(__HIP_DEVICE_COMPILE__) || defined(__CUDA_ARCH__)
#error "no GPU implementation of work_group is part of this build"
#else
/* One thread of the cpu device, running one work-group of a launch. */
struct work_group {
    int32_t index;
    int32_t count;
    char *scratch; /* 64-byte aligned, as large as the launch asked for */
};
#endif

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

#endif
