/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How kernels for CDNA are declared (HIP C++, by clang without a device library).
 */
#ifndef IRIS_LANGUAGE_CDNA_H
#define IRIS_LANGUAGE_CDNA_H

#define IRIS_INLINE __attribute__((device, always_inline)) inline
/* A function for kernels, and in another compilation for the host. */
#define IRIS_FUNCTION static inline __attribute__((device, always_inline))
#define IRIS_SHARED __attribute__((shared))
/* Heap and operands are global memory; saying so spares the flat instructions, which would also
 * wait for LDS. */
#define IRIS_GLOBAL __attribute__((address_space(1)))
/* Before a loop that is to leave no loop behind, or that is to stay one. */
#define IRIS_UNROLL _Pragma("unroll")
#define IRIS_NO_UNROLL _Pragma("unroll 1")
#define IRIS_KERNEL(threads)                                                                       \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(threads, threads))) void
#define IRIS_ARGUMENTS(type) const type

/* Whose launches these are: see launch_limits.h. */
#define IRIS_TARGET_IS_SM90 false

/* Whether there are rows of IRIS_SCALED_INSTANCES. */
#if defined(__gfx942__) || defined(__gfx950__)
#define IRIS_TARGET_HAS_FLOAT8 true
#else
#define IRIS_TARGET_HAS_FLOAT8 false
#endif

#endif
