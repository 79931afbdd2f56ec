/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * fp16 and bf16 to fp32 and back on GPUs, to nearest with ties to even. NaN stays NaN.
 */
#ifndef IRIS_CONVERT_GPU_H
#define IRIS_CONVERT_GPU_H

#include "kernels/base/kernel.h"

namespace iris
{

IRIS_INLINE float bits_to_float(uint32_t bits)
{
#if defined(__CUDACC__)
    return __uint_as_float(bits);
#else
    return __builtin_bit_cast(float, bits);
#endif
}

IRIS_INLINE uint32_t float_to_bits(float value)
{
#if defined(__CUDACC__)
    return __float_as_uint(value);
#else
    return __builtin_bit_cast(uint32_t, value);
#endif
}

IRIS_INLINE float to_float(float value)
{
    return value;
}

IRIS_INLINE float to_float(bfloat16_t value)
{
    return bits_to_float((uint32_t)value.bits << 16);
}

IRIS_INLINE float to_float(half_t value)
{
#if defined(__CUDACC__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    return (float)__builtin_bit_cast(_Float16, value.bits);
#endif
}

/* Two elements side by side, the first in the low half. */
template <typename T> IRIS_INLINE uint32_t pack_pair(float low, float high);

#if defined(__CUDACC__)
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
#else
/* Without a comparison: eight at once would take more mask registers than there are. NaN made by
 * arithmetic, or widened from bf16, has a bit of its payload above those cut off; rounding may
 * carry it into the sign's place, from where the minimum takes it back. */
IRIS_INLINE uint32_t bfloat16_bits(float value)
{
    const uint32_t bits = float_to_bits(value), magnitude = bits & 0x7fffffffu;
    const uint32_t rounded = (magnitude + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (rounded < 0x7fffu ? rounded : 0x7fffu) | (bits >> 16 & 0x8000u);
}

template <> IRIS_INLINE uint32_t pack_pair<half_t>(float low, float high)
{
    return (uint32_t)__builtin_bit_cast(uint16_t, (_Float16)low) |
           (uint32_t)__builtin_bit_cast(uint16_t, (_Float16)high) << 16;
}

template <> IRIS_INLINE uint32_t pack_pair<bfloat16_t>(float low, float high)
{
    return bfloat16_bits(low) | bfloat16_bits(high) << 16;
}
#endif

template <typename T> IRIS_INLINE T from_float(float value)
{
    return T{(uint16_t)pack_pair<T>(value, 0.0f)};
}

template <> IRIS_INLINE float from_float<float>(float value)
{
    return value;
}

} // namespace iris

#endif
