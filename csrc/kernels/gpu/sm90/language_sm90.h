/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How kernels for Hopper are declared (CUDA C++, by nvcc).
 */
#ifndef IRIS_LANGUAGE_SM90_H
#define IRIS_LANGUAGE_SM90_H

#define IRIS_INLINE __device__ __forceinline__
/* A function for the host and for kernels. */
#define IRIS_FUNCTION static __host__ __device__ __forceinline__
#define IRIS_SHARED __shared__
#define IRIS_GLOBAL
/* Before a loop that is to leave no loop behind, or that is to stay one. */
#define IRIS_UNROLL _Pragma("unroll")
#define IRIS_NO_UNROLL _Pragma("unroll 1")
#define IRIS_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define IRIS_ARGUMENTS(type) const __grid_constant__ type

/* Whose launches these are: see launch_limits.h. */
#define IRIS_TARGET_IS_SM90 true

/* Whether there are rows of IRIS_SCALED_INSTANCES. */
#define IRIS_TARGET_HAS_FLOAT8 true

#endif
