/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * CDNA's primitives: see kernels/base/primitives.h. A kernel has about a hundred scalar registers,
 * too few for all that is the same in a wave's lanes; several of these move values out of them.
 */
#ifndef IRIS_PRIMITIVES_CDNA_H
#define IRIS_PRIMITIVES_CDNA_H

#include "kernels/base/kernel.h"
#include "kernels/gpu/chunk.h"

namespace iris
{

/* ---- the launch ---- */

IRIS_INLINE int32_t block_index()
{
    return (int32_t)__builtin_amdgcn_workgroup_id_x();
}

IRIS_INLINE int32_t block_count(int32_t threads)
{
    return (int32_t)(__builtin_amdgcn_grid_size_x() / (uint32_t)threads);
}

IRIS_INLINE int32_t thread_index()
{
    return (int32_t)__builtin_amdgcn_workitem_id_x();
}

IRIS_INLINE iris_trace_role traced_role()
{
    return IRIS_TRACE_GROUP;
}

/* ---- registers ---- */

template <class S> IRIS_INLINE S to_vector_registers(S uniform)
{
    struct words {
        uint32_t word[sizeof(S) / 4];
    };
    words w = __builtin_bit_cast(words, uniform);
    for (uint32_t &word : w.word)
        asm volatile("" : "+v"(word));
    return __builtin_bit_cast(S, w);
}

/* What is computed from the value stays here: each comparison made early would hold two scalar
 * registers until it is used. */
IRIS_INLINE int32_t opaque(int32_t value)
{
    asm volatile("" : "+v"(value)::"memory");
    return value;
}

IRIS_INLINE int64_t uniform(int64_t value)
{
    const uint32_t low = (uint32_t)__builtin_amdgcn_readfirstlane((int32_t)value);
    const uint32_t high = (uint32_t)__builtin_amdgcn_readfirstlane((int32_t)(value >> 32));
    return (int64_t)((uint64_t)high << 32 | low);
}

/* A load at an offset of 32 bits from a uniform address takes no addition. */
IRIS_INLINE uint32_t narrow(uint32_t value)
{
    asm volatile("" : "+v"(value));
    return value;
}

IRIS_INLINE float round_alone(float value)
{
    asm("" : "+v"(value));
    return value;
}

/* ---- values ---- */

IRIS_INLINE float reciprocal_sqrt(float x)
{
    return __builtin_amdgcn_rsqf(x);
}

IRIS_INLINE float bits_to_float(uint32_t bits)
{
    return __builtin_bit_cast(float, bits);
}

IRIS_INLINE uint32_t float_to_bits(float value)
{
    return __builtin_bit_cast(uint32_t, value);
}

IRIS_INLINE double bits_to_double(uint64_t bits)
{
    return __builtin_bit_cast(double, bits);
}

IRIS_INLINE uint64_t double_to_bits(double value)
{
    return __builtin_bit_cast(uint64_t, value);
}

IRIS_INLINE float to_float(half_t value)
{
    return (float)__builtin_bit_cast(_Float16, value.bits);
}

/* Without a comparison: eight at once would take more mask registers than there are. NaN made by
 * arithmetic, or widened from bf16, has a bit of its payload above those cut off; rounding may
 * carry it into the sign's place, from where the minimum takes it back. */
IRIS_INLINE uint32_t bfloat16_bits(float value)
{
    const uint32_t bits = float_to_bits(value), magnitude = bits & 0x7fffffffu;
    const uint32_t rounded = (magnitude + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (rounded < 0x7fffu ? rounded : 0x7fffu) | (bits >> 16 & 0x8000u);
}

/* Two elements side by side, the first in the low half. */
template <typename T> IRIS_INLINE uint32_t pack_pair(float low, float high);

template <> IRIS_INLINE uint32_t pack_pair<half_t>(float low, float high)
{
    return (uint32_t)__builtin_bit_cast(uint16_t, (_Float16)low) |
           (uint32_t)__builtin_bit_cast(uint16_t, (_Float16)high) << 16;
}

#if defined(__gfx950__)
template <> IRIS_INLINE uint32_t pack_pair<bfloat16_t>(float low, float high)
{
    typedef __bf16 bfloats2 __attribute__((ext_vector_type(2)));
    return __builtin_bit_cast(uint32_t, bfloats2{(__bf16)low, (__bf16)high});
}
#else
template <> IRIS_INLINE uint32_t pack_pair<bfloat16_t>(float low, float high)
{
    return bfloat16_bits(low) | bfloat16_bits(high) << 16;
}
#endif

IRIS_INLINE uint32_t low_halves(uint32_t first, uint32_t second)
{
    return __builtin_amdgcn_perm(second, first, 0x05040100u);
}

IRIS_INLINE uint32_t high_halves(uint32_t first, uint32_t second)
{
    return __builtin_amdgcn_perm(second, first, 0x07060302u);
}

IRIS_INLINE uint32_t low_bytes(uint32_t first, uint32_t second)
{
    return __builtin_amdgcn_perm(second, first, 0x05010400u);
}

IRIS_INLINE uint32_t high_bytes(uint32_t first, uint32_t second)
{
    return __builtin_amdgcn_perm(second, first, 0x07030602u);
}

/* As pack_pair, of values that are no NaN but such as are widened from the dtype: rounding does not
 * carry these into the sign's place. */
constexpr bool kRoundsInHardware =
#if defined(__gfx950__)
    true;
#else
    false;
#endif

template <typename T> IRIS_INLINE uint32_t pack_finite_pair(float low, float high)
{
    return pack_pair<T>(low, high);
}

#if !defined(__gfx950__)
IRIS_INLINE uint32_t rounded_to_high_half(float value)
{
    const uint32_t bits = float_to_bits(value);
    return bits + 0x7fffu + (bits >> 16 & 1u);
}

template <> IRIS_INLINE uint32_t pack_finite_pair<bfloat16_t>(float low, float high)
{
    return high_halves(rounded_to_high_half(low), rounded_to_high_half(high));
}
#endif

/* ---- memory ---- */

IRIS_INLINE chunk16 load_chunk(const char *source)
{
    return *reinterpret_cast<const chunk16 *>(source);
}

/* A write of 16 bytes a lane serves eight consecutive lanes at a time, which hold two rows. A read
 * serves, of each half-wave, lanes 0-3 and 20-23, 4-7 and 16-19, 8-11 and 28-31, 12-15 and 24-27, a
 * row each; on gfx950, which has 64 banks, two such groups at once. A write of 4 bytes serves a
 * half-wave, which holds every eighth row (run_of). None of them meets a bank twice, but for the
 * last on gfx950. */
#if defined(__gfx950__)
constexpr stage_rows kStageRows = {64, 16, 64, 16};
constexpr int32_t kDirectBytes = 4 * 32768; /* see direct_cdna.h */
#else
constexpr stage_rows kStageRows = {64, 16, 32, 16};
constexpr int32_t kDirectBytes = 16; /* none */
#endif

constexpr bool kLoadsPacketsFirst = true;

constexpr int32_t kSumBatch = 1, kScatteredSumBatch = 1;

} // namespace iris

#endif
