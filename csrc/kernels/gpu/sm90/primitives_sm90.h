/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Hopper's primitives: see kernels/base/primitives.h.
 */
#ifndef IRIS_PRIMITIVES_SM90_H
#define IRIS_PRIMITIVES_SM90_H

#include "kernels/abi/launch_limits.h"
#include "kernels/base/kernel.h"
#include "kernels/gpu/chunk.h"

namespace iris
{

/* ---- the launch ---- */

IRIS_INLINE int32_t block_index()
{
    return (int32_t)blockIdx.x;
}

IRIS_INLINE int32_t block_count(int32_t)
{
    return (int32_t)gridDim.x;
}

IRIS_INLINE int32_t thread_index()
{
    return (int32_t)threadIdx.x;
}

/* The warps of a tensor-core product have roles: see gemm_sm90.h. */
IRIS_INLINE iris_trace_role traced_role()
{
    const int32_t warp = (int32_t)threadIdx.x / 32;
    return blockDim.x != IRIS_SM90_THREADS ? IRIS_TRACE_GROUP
           : warp >= 4                     ? IRIS_TRACE_MATH
           : warp >= 2                     ? IRIS_TRACE_EXCHANGE
           : warp == 1                     ? IRIS_TRACE_STORER
                                           : IRIS_TRACE_LOADER;
}

/* ---- registers: nvcc needs no help ---- */

template <class S> IRIS_INLINE S to_vector_registers(S uniform)
{
    return uniform;
}

IRIS_INLINE int32_t opaque(int32_t value)
{
    return value;
}

IRIS_INLINE int64_t uniform(int64_t value)
{
    return value;
}

IRIS_INLINE uint32_t narrow(uint32_t value)
{
    return value;
}

IRIS_INLINE float round_alone(float value)
{
    return value;
}

/* ---- values ---- */

IRIS_INLINE float reciprocal_sqrt(float x)
{
    return rsqrtf(x);
}

/* The larger, or the smaller one; a NaN on either side stays. */
IRIS_INLINE float extreme(float a, float b, bool larger)
{
    float high, low;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(high) : "f"(a), "f"(b));
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(low) : "f"(a), "f"(b));
    return larger ? high : low;
}

IRIS_INLINE float bits_to_float(uint32_t bits)
{
    return __uint_as_float(bits);
}

IRIS_INLINE uint32_t float_to_bits(float value)
{
    return __float_as_uint(value);
}

IRIS_INLINE double bits_to_double(uint64_t bits)
{
    return __longlong_as_double((long long)bits);
}

IRIS_INLINE uint64_t double_to_bits(double value)
{
    return (uint64_t)__double_as_longlong(value);
}

IRIS_INLINE float to_float(half_t value)
{
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

/* Two elements side by side, the first in the low half. */
template <typename T> IRIS_INLINE uint32_t pack_pair(float low, float high);

template <> IRIS_INLINE uint32_t pack_pair<half_t>(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <> IRIS_INLINE uint32_t pack_pair<bfloat16_t>(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <typename T> IRIS_INLINE uint32_t pack_finite_pair(float low, float high)
{
    return pack_pair<T>(low, high);
}

IRIS_INLINE uint32_t low_halves(uint32_t first, uint32_t second)
{
    return (first & 0xffffu) | second << 16;
}

IRIS_INLINE uint32_t high_halves(uint32_t first, uint32_t second)
{
    return first >> 16 | (second & 0xffff0000u);
}

IRIS_INLINE uint32_t low_bytes(uint32_t first, uint32_t second)
{
    return __byte_perm(first, second, 0x5140u);
}

IRIS_INLINE uint32_t high_bytes(uint32_t first, uint32_t second)
{
    return __byte_perm(first, second, 0x7362u);
}

/* ---- memory ---- */

IRIS_INLINE chunk16 load_chunk(const char *source)
{
    chunk16 c;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.word[0]), "=r"(c.word[1]), "=r"(c.word[2]), "=r"(c.word[3])
                 : "l"(source)
                 : "memory");
    return c;
}

/* Neither reading 8 rows' chunks nor writing a column of every eighth row meets a bank twice more
 * than it must. */
constexpr stage_rows kStageRows = {80, 0, 16, 0};
constexpr int32_t kDirectBytes = 16; /* none */

constexpr bool kLoadsPacketsFirst = false;

/* More than one, since few threads of a block sum; most where they store to one place only, so that
 * sums are all there is to do. */
constexpr int32_t kSumBatch = 2, kScatteredSumBatch = 3;

} // namespace iris

#endif
