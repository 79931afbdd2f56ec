/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Row conversions, written once as inline loops and compiled for each instruction set: the loops
 * are always_inline, so a wrapper with a target attribute vectorises them for that target. (No
 * target_clones: their resolvers run before a sanitizer's runtime is up.)
 */
#include "rows_host.h"

#include <string.h>

#include "gemm_host.h"
#include "kernels/base/reduce_ops.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace
{

ALWAYS_INLINE uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

ALWAYS_INLINE float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* What is reduced as it is stored. */
template <typename T> struct plain_codec {
    typedef T storage;
    typedef T accumulator;
    static ALWAYS_INLINE T decode(T stored)
    {
        return stored;
    }
    static ALWAYS_INLINE T encode(T value)
    {
        return value;
    }
};

template <typename T> struct byte_codec {
    typedef T storage;
    typedef int32_t accumulator;
    static ALWAYS_INLINE int32_t decode(T stored)
    {
        return stored;
    }
    static ALWAYS_INLINE T encode(int32_t value)
    {
        return (T)value;
    }
};
typedef plain_codec<int32_t> int32_codec;
typedef plain_codec<int64_t> int64_codec;
typedef plain_codec<double> float64_codec;
typedef byte_codec<int8_t> int8_codec;
typedef byte_codec<uint8_t> uint8_codec;
typedef plain_codec<float> float32_codec;

struct bfloat16_codec {
    typedef uint16_t storage;
    typedef float accumulator;
    static ALWAYS_INLINE float decode(uint16_t stored)
    {
        return float_of((uint32_t)stored << 16);
    }
    static ALWAYS_INLINE uint16_t encode(float value)
    {
        const uint32_t bits = bits_of(value);
        const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        const uint32_t quiet_nan = (bits >> 16) | 0x40u;
        return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
    }
};

/* fp16 by arithmetic on the float's bits; branch-free enough to vectorise. The fp16 exponent is
 * moved by multiplying with a power of two, which also normalises subnormals exactly. */
struct float16_codec {
    typedef uint16_t storage;
    typedef float accumulator;
    static ALWAYS_INLINE float decode(uint16_t stored)
    {
        const uint32_t sign = (uint32_t)(stored & 0x8000u) << 16;
        const uint32_t magnitude = (uint32_t)(stored & 0x7fffu) << 13;
        const float scaled = float_of(magnitude) * 0x1p112f;
        /* inf and NaN: exponent 31 became 31 + 112; it must become 255. */
        const uint32_t special = magnitude | 0x7f800000u;
        const uint32_t bits = (stored & 0x7c00u) == 0x7c00u ? special : bits_of(scaled);
        return float_of(bits | sign);
    }
    static ALWAYS_INLINE uint16_t encode(float value)
    {
        const uint32_t bits = bits_of(value);
        const uint32_t sign = (bits >> 16) & 0x8000u;
        const uint32_t magnitude = bits & 0x7fffffffu;
        /* Normal results: round the mantissa in place, then move the exponent by -112. */
        const uint32_t odd = (magnitude >> 13) & 1u;
        const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
        /* Subnormal results: adding 0.5 lets the float adder align and round the mantissa. */
        const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
        uint32_t result = magnitude < (113u << 23) ? subnormal : normal;
        result = magnitude >= 0x477ff000u ? 0x7c00u : result; /* rounds to 65536 or more */
        result = magnitude > 0x7f800000u ? 0x7e00u : result;
        return (uint16_t)(result | sign);
    }
};

template <class Codec> ALWAYS_INLINE void load_row(void *accumulators, const void *row, int64_t n)
{
    const typename Codec::storage *in = (const typename Codec::storage *)row;
    typename Codec::accumulator *out = (typename Codec::accumulator *)accumulators;
    for (int64_t i = 0; i < n; ++i)
        out[i] = Codec::decode(in[i]);
}

/* One loop for each op, so that each is vectorised. */
template <class Codec, uint32_t kOp>
ALWAYS_INLINE void reduce_row_by(void *accumulators, const void *row, int64_t n)
{
    const typename Codec::storage *in = (const typename Codec::storage *)row;
    typename Codec::accumulator *out = (typename Codec::accumulator *)accumulators;
    for (int64_t i = 0; i < n; ++i)
        out[i] = iris::reduced(out[i], (typename Codec::accumulator)Codec::decode(in[i]), kOp);
}

template <class Codec>
ALWAYS_INLINE void reduce_row(void *accumulators, const void *row, int64_t n, uint32_t op)
{
    switch (op) {
    case IRIS_REDUCE_MAX:
        return reduce_row_by<Codec, IRIS_REDUCE_MAX>(accumulators, row, n);
    case IRIS_REDUCE_MIN:
        return reduce_row_by<Codec, IRIS_REDUCE_MIN>(accumulators, row, n);
    case IRIS_REDUCE_PROD:
        return reduce_row_by<Codec, IRIS_REDUCE_PROD>(accumulators, row, n);
    default:
        return reduce_row_by<Codec, IRIS_REDUCE_SUM>(accumulators, row, n);
    }
}

template <class Codec> ALWAYS_INLINE void store_row(void *row, const void *accumulators, int64_t n)
{
    const typename Codec::accumulator *in = (const typename Codec::accumulator *)accumulators;
    typename Codec::storage *out = (typename Codec::storage *)row;
    for (int64_t i = 0; i < n; ++i)
        out[i] = Codec::encode(in[i]);
}

#define TARGET_GENERIC
#define TARGET_AVX2 __attribute__((target("avx2")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

#define DEFINE_ROW_OPS(ISA, TARGET, Codec)                                                         \
    TARGET void Codec##_load_##ISA(void *out, const void *row, int64_t n)                          \
    {                                                                                              \
        load_row<Codec>(out, row, n);                                                              \
    }                                                                                              \
    TARGET void Codec##_reduce_##ISA(void *out, const void *row, int64_t n, uint32_t op)           \
    {                                                                                              \
        reduce_row<Codec>(out, row, n, op);                                                        \
    }                                                                                              \
    TARGET void Codec##_store_##ISA(void *row, const void *in, int64_t n)                          \
    {                                                                                              \
        store_row<Codec>(row, in, n);                                                              \
    }

#define ROW_OPS(ISA, Codec) {Codec##_load_##ISA, Codec##_reduce_##ISA, Codec##_store_##ISA}

#define DEFINE_ISA(ISA, TARGET)                                                                    \
    DEFINE_ROW_OPS(ISA, TARGET, float32_codec)                                                     \
    DEFINE_ROW_OPS(ISA, TARGET, float16_codec)                                                     \
    DEFINE_ROW_OPS(ISA, TARGET, bfloat16_codec)                                                    \
    DEFINE_ROW_OPS(ISA, TARGET, int32_codec)                                                       \
    DEFINE_ROW_OPS(ISA, TARGET, int64_codec)                                                       \
    DEFINE_ROW_OPS(ISA, TARGET, float64_codec)                                                     \
    DEFINE_ROW_OPS(ISA, TARGET, int8_codec)                                                        \
    DEFINE_ROW_OPS(ISA, TARGET, uint8_codec)                                                       \
    const iris_row_ops row_ops_##ISA[kCodecs] = {                                                  \
        ROW_OPS(ISA, float32_codec), ROW_OPS(ISA, float16_codec), ROW_OPS(ISA, bfloat16_codec),    \
        ROW_OPS(ISA, int32_codec),   ROW_OPS(ISA, int64_codec),   ROW_OPS(ISA, float64_codec),     \
        ROW_OPS(ISA, int8_codec),    ROW_OPS(ISA, uint8_codec)};

constexpr int kCodecs = 8;

/* The codec of a dtype in the tables below. */
int codec_of(enum iris_dtype dtype)
{
    switch (dtype) {
    case IRIS_DTYPE_F16:
        return 1;
    case IRIS_DTYPE_BF16:
        return 2;
    case IRIS_DTYPE_I32:
        return 3;
    case IRIS_DTYPE_I64:
        return 4;
    case IRIS_DTYPE_F64:
        return 5;
    case IRIS_DTYPE_I8:
        return 6;
    case IRIS_DTYPE_U8:
        return 7;
    default:
        return 0;
    }
}

DEFINE_ISA(generic, TARGET_GENERIC)
#if defined(__x86_64__)
DEFINE_ISA(avx2, TARGET_AVX2)
DEFINE_ISA(avx512, TARGET_AVX512)
#endif

} // namespace

const struct iris_row_ops *iris_row_ops_for(enum iris_dtype dtype)
{
#if defined(__x86_64__)
    const char *isa = iris_gemm_isa();
    if (strcmp(isa, "avx512") == 0)
        return &row_ops_avx512[codec_of(dtype)];
    if (strcmp(isa, "avx2") == 0)
        return &row_ops_avx2[codec_of(dtype)];
#endif
    return &row_ops_generic[codec_of(dtype)];
}
