/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The types that every kernel header builds on: what a work-group is, matrices and tiles in
 * memory, and how 64-bit addresses and offsets become pointers, which happens only here.
 */
#ifndef IRIS_KERNEL_H
#define IRIS_KERNEL_H

#include <stdint.h>

#include "kernels/abi/abi.h"
#include "kernels/abi/target.h"
#include IRIS_TARGET_LANGUAGE

namespace iris
{

#if defined(IRIS_GPU)
/* The threads that do one thing together: a block of the launch, or some of its waves. They share a
 * barrier and follow one path; thread 0 leads. */
struct work_group {
    int32_t index; /* of the launch's blocks */
    int32_t count;
    int32_t thread; /* of the group */
    int32_t threads;
    int32_t barrier;  /* sm_90a: the hardware barrier that is this group's */
    uint32_t *shared; /* gfx: a word of LDS that is this group's */
};
#else
/* One thread of the cpu device, running one work-group of a launch. */
struct work_group {
    int32_t index;
    int32_t count;
    char *scratch; /* 64-byte aligned, as large as the launch asked for */
    static constexpr int32_t thread = 0, threads = 1;
};
#endif

/* The storage types of fp16 and bf16: two bytes, no arithmetic of their own. */
struct half_t {
    uint16_t bits;
};
struct bfloat16_t {
    uint16_t bits;
};

/* A float8 operand's storage; which format, the arguments say (struct iris_scaling). */
struct float8_t {
    uint8_t bits;
};

/* What products of float8 operands are instantiated with: T is the result's type. Any other product
 * is instantiated with the one type of its operands and its result. */
template <typename T> struct scaled {};
template <typename P> struct product_types {
    typedef P result;
    typedef P operand;
    static constexpr bool kIsScaled = false;
};
template <typename T> struct product_types<scaled<T>> {
    typedef T result;
    typedef float8_t operand;
    static constexpr bool kIsScaled = true;
};

template <typename T> struct is_float8 {
    static constexpr bool value = false;
};
template <> struct is_float8<float8_t> {
    static constexpr bool value = true;
};

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
template <> struct dtype_of<int32_t> {
    static constexpr iris_dtype value = IRIS_DTYPE_I32;
};
template <> struct dtype_of<int64_t> {
    static constexpr iris_dtype value = IRIS_DTYPE_I64;
};
template <> struct dtype_of<double> {
    static constexpr iris_dtype value = IRIS_DTYPE_F64;
};
template <> struct dtype_of<int8_t> {
    static constexpr iris_dtype value = IRIS_DTYPE_I8;
};
template <> struct dtype_of<uint8_t> {
    static constexpr iris_dtype value = IRIS_DTYPE_U8;
};

/* A matrix, or a tile of one: element (i, j) at data[i * stride_row + j * stride_col]. */
template <typename T> struct matrix {
    T *data;
    int64_t stride_row;
    int64_t stride_col;

    IRIS_INLINE matrix tile(int64_t row, int64_t col) const
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

/* A pointer to device memory from its address. */
template <typename T> IRIS_INLINE T *device_pointer(uint64_t address)
{
    return (T *)reinterpret_cast<IRIS_GLOBAL T *>(address);
}

template <typename T> IRIS_INLINE matrix<T> as_matrix(const iris_matrix_args &args)
{
    return {device_pointer<T>(args.address), args.stride_row, args.stride_col};
}

/* The scale of row mn of A, or of column mn of B, in a block of K: see iris_scale_args. */
IRIS_INLINE const float *scale_address(const iris_scale_args &scales, int64_t mn, int64_t block)
{
    const int32_t shift = scales.kind == IRIS_SCALE_SQUARE ? IRIS_SCALE_BLOCK_LOG2 : 0;
    return device_pointer<const float>(scales.address) + (mn >> shift) * scales.stride_mn +
           block * scales.stride_k;
}

/* `offset` bytes into rank `rank`'s heap, as this process sees it. */
template <typename T>
IRIS_INLINE T *heap_pointer(const iris_call_args &call, int32_t rank, uint64_t offset)
{
    return device_pointer<T>(call.heap_bases[rank] + offset);
}

} // namespace iris

#endif
