/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The instruction sets that gemm_host.cpp chooses from, each with its vector operations and, made
 * of them by gemm_host_micro.h, its packing functions and micro-kernels. Part of gemm_host.cpp,
 * which alone includes it.
 */
#ifndef IRIS_GEMM_HOST_ISA_H
#define IRIS_GEMM_HOST_ISA_H

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
/* GCC 12 takes the intrinsics' own "undefined" operands for mistakes (its bug 105593). */
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#include "float8_host.h"
#include "gemm_host.h"
#include "rows_host.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace
{

constexpr int64_t kBlockK = 256;
constexpr int32_t kMaxLanes = 16;
constexpr int32_t kMaxRows = 14;
constexpr int32_t kFetches = 6; /* addresses that a micro-kernel prefetches from */
constexpr uintptr_t kFetchStep = 64;
constexpr int64_t kKeepA = (int64_t)1 << 17;    /* floats: a quarter of a common L2 cache */
constexpr int64_t kKeepRows = (int64_t)1 << 19; /* floats, of A's in several tile rows */
constexpr int32_t kSlots = 16;                  /* such tile rows */
constexpr int64_t kKeepB = (int64_t)1 << 22;    /* floats, for each worker thread */

static_assert(kBlockK % kMaxLanes == 0, "a block is made of whole groups of lines");

/* Storage types beside float; no arithmetic of their own. */
struct half {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};
template <iris_dtype kFormat> struct float8 {
    uint8_t bits;
};

/* Rows in panels of nearly equal height, so that no panel is much cheaper to fill than to use. */
struct row_panels {
    int32_t count, base, taller;

    int32_t height(int32_t panel) const
    {
        return base + (panel < taller ? 1 : 0);
    }
    int32_t start(int32_t panel) const
    {
        return panel * base + (panel < taller ? panel : taller);
    }
};

row_panels row_panels_of(int32_t rows, int32_t max_height)
{
    const int32_t count = (rows + max_height - 1) / max_height;
    return {count, rows / count, rows % count};
}

/* out = (or += if add_to_out) a panel of A times a panel of B over kc steps of k. `last`: columns
 * in the last line of B's panel. `soon`: kFetches addresses of what will
 * be read next; from each the kernel prefetches kFetchStep bytes for every group of A. */
typedef void (*micro_kernel)(int64_t kc, const float *a, const float *b, const uintptr_t *soon,
                             float *out, int64_t ld, int32_t last, bool add_to_out);

/* Packs rows (or cols) x kc elements; strides in elements. */
typedef void (*pack_function)(const char *address, int64_t stride_row, int64_t stride_col,
                              int32_t extent, int64_t kc, float *out);

/* The index of a dtype in the tables of packing functions. */
constexpr int32_t packing_of(iris_dtype dtype)
{
    return IRIS_IS_FLOAT8(dtype) ? 3 + (dtype - IRIS_DTYPE_F8_E4M3FN) : (int32_t)dtype;
}
constexpr int32_t kPackings = packing_of(IRIS_DTYPE_F8_E5M2FNUZ) + 1;

static_assert(IRIS_DTYPE_F32 == 0 && IRIS_DTYPE_F16 == 1 && IRIS_DTYPE_BF16 == 2,
              "the first of the tables");

struct instruction_set {
    const char *name;
    int32_t lanes, rows;
    pack_function pack_a[kPackings], pack_b[kPackings]; /* by packing_of the dtype */
    micro_kernel kernels[kMaxRows][2];                  /* [height - 1][lines of B's panel - 1] */
};

/* ---- plain C: vectors of four floats, without FMA ---- */

namespace generic
{
#define TARGET
constexpr int32_t kLanes = 4;
constexpr int32_t kRows = 4;
typedef float vec __attribute__((vector_size(16)));

inline vec zero()
{
    return vec{0, 0, 0, 0};
}
inline vec splat(const float *p)
{
    return vec{*p, *p, *p, *p};
}
inline vec fma(vec x, vec y, vec z)
{
    return x * y + z;
}
inline vec add(vec x, vec y)
{
    return x + y;
}
inline vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}
inline vec load_part(const float *p, int32_t n)
{
    float lanes[kLanes] = {};
    for (int32_t i = 0; i < n; ++i)
        lanes[i] = p[i];
    return load(lanes);
}
inline void store_part(float *p, vec v, int32_t n)
{
    for (int32_t i = 0; i < n; ++i)
        p[i] = v[i];
}
inline vec widen(const float *p, int32_t n)
{
    return n == kLanes ? load(p) : load_part(p, n);
}
inline vec widen_by(enum iris_dtype dtype, const void *p, int32_t n)
{
    float lanes[kLanes] = {};
    iris_row_ops_for(dtype)->load(lanes, p, n);
    return load(lanes);
}
inline vec widen(const half *p, int32_t n)
{
    return widen_by(IRIS_DTYPE_F16, p, n);
}
inline vec widen(const bfloat16 *p, int32_t n)
{
    return widen_by(IRIS_DTYPE_BF16, p, n);
}
inline void transpose(vec (&block)[kLanes])
{
    for (int32_t i = 0; i < kLanes; ++i)
        for (int32_t j = 0; j < i; ++j) {
            const float x = block[i][j];
            block[i][j] = block[j][i];
            block[j][i] = x;
        }
}
#include "gemm_host_micro.h"
#undef TARGET
} // namespace generic

constexpr instruction_set generic_set = generic::describe("generic");

#if defined(__x86_64__)

/* ---- AVX2: 6 x 16 floats in registers ---- */

namespace avx2
{
#define TARGET __attribute__((target("avx2,fma,f16c")))
constexpr int32_t kLanes = 8;
constexpr int32_t kRows = 6;
typedef __m256 vec;

TARGET ALWAYS_INLINE vec zero()
{
    return _mm256_setzero_ps();
}
TARGET ALWAYS_INLINE vec splat(const float *p)
{
    return _mm256_broadcast_ss(p);
}
TARGET ALWAYS_INLINE vec fma(vec x, vec y, vec z)
{
    /* Adds in place: of sixteen registers the sums take twelve, and a compiler that may also choose
     * the forms that overwrite a factor moves the sums about and spills one. */
    asm("vfmadd231ps %2, %1, %0" : "+x"(z) : "x"(x), "x"(y));
    return z;
}
TARGET ALWAYS_INLINE vec add(vec x, vec y)
{
    return _mm256_add_ps(x, y);
}
TARGET ALWAYS_INLINE vec load(const float *p)
{
    return _mm256_loadu_ps(p);
}
TARGET ALWAYS_INLINE void store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}
TARGET ALWAYS_INLINE __m256i first(int32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
TARGET ALWAYS_INLINE vec load_part(const float *p, int32_t n)
{
    return _mm256_maskload_ps(p, first(n));
}
TARGET ALWAYS_INLINE void store_part(float *p, vec v, int32_t n)
{
    _mm256_maskstore_ps(p, first(n), v);
}
/* There is no masked load of 16-bit elements: the part goes through the stack. */
TARGET ALWAYS_INLINE __m128i load_16(const void *p, int32_t n)
{
    if (n == kLanes)
        return _mm_loadu_si128(static_cast<const __m128i *>(p));
    uint16_t part[kLanes] = {};
    memcpy(part, p, (size_t)n * sizeof part[0]);
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(part));
}
TARGET ALWAYS_INLINE vec widen(const float *p, int32_t n)
{
    return n == kLanes ? load(p) : load_part(p, n);
}
TARGET ALWAYS_INLINE vec widen(const half *p, int32_t n)
{
    return _mm256_cvtph_ps(load_16(p, n));
}
TARGET ALWAYS_INLINE vec widen(const bfloat16 *p, int32_t n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(p, n)), 16));
}
/* Pairs of rows, then pairs of pairs, then the two halves change places. */
TARGET ALWAYS_INLINE void transpose(vec (&block)[kLanes])
{
    vec four[kLanes];

    for (int32_t i = 0; i < kLanes; i += 4) {
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(block[i], block[i + 1]));
        const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(block[i], block[i + 1]));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(block[i + 2], block[i + 3]));
        const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(block[i + 2], block[i + 3]));
        four[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        four[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        four[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        four[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    for (int32_t i = 0; i < 4; ++i) {
        block[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
        block[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
    }
}
#include "gemm_host_micro.h"
#undef TARGET
} // namespace avx2

/* ---- AVX-512: 14 x 32 floats in registers ---- */

namespace avx512
{
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))
constexpr int32_t kLanes = 16;
constexpr int32_t kRows = 14;
typedef __m512 vec;

TARGET ALWAYS_INLINE vec zero()
{
    return _mm512_setzero_ps();
}
TARGET ALWAYS_INLINE vec splat(const float *p)
{
    return _mm512_set1_ps(*p);
}
TARGET ALWAYS_INLINE vec fma(vec x, vec y, vec z)
{
    return _mm512_fmadd_ps(x, y, z);
}
TARGET ALWAYS_INLINE vec add(vec x, vec y)
{
    return _mm512_add_ps(x, y);
}
TARGET ALWAYS_INLINE vec load(const float *p)
{
    return _mm512_loadu_ps(p);
}
TARGET ALWAYS_INLINE void store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}
TARGET ALWAYS_INLINE __mmask16 first(int32_t n)
{
    return (__mmask16)((1u << n) - 1);
}
TARGET ALWAYS_INLINE vec load_part(const float *p, int32_t n)
{
    return _mm512_maskz_loadu_ps(first(n), p);
}
TARGET ALWAYS_INLINE void store_part(float *p, vec v, int32_t n)
{
    _mm512_mask_storeu_ps(p, first(n), v);
}
TARGET ALWAYS_INLINE __m256i load_16(const void *p, int32_t n)
{
    return n == kLanes ? _mm256_loadu_si256(static_cast<const __m256i *>(p))
                       : _mm256_maskz_loadu_epi16(first(n), p);
}
TARGET ALWAYS_INLINE vec widen(const float *p, int32_t n)
{
    return n == kLanes ? load(p) : load_part(p, n);
}
TARGET ALWAYS_INLINE vec widen(const half *p, int32_t n)
{
    return _mm512_cvtph_ps(load_16(p, n));
}
TARGET ALWAYS_INLINE vec widen(const bfloat16 *p, int32_t n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_16(p, n)), 16));
}
/* As for AVX2, with four quarters to change places. */
TARGET ALWAYS_INLINE void transpose(vec (&block)[kLanes])
{
    vec four[kLanes];

    UNROLL for (int32_t i = 0; i < kLanes; i += 4)
    {
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(block[i], block[i + 1]));
        const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(block[i], block[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(block[i + 2], block[i + 3]));
        const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(block[i + 2], block[i + 3]));
        four[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        four[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        four[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        four[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    UNROLL for (int32_t i = 0; i < 4; ++i)
    {
        const vec even_low = _mm512_shuffle_f32x4(four[i], four[i + 4], 0x88);
        const vec odd_low = _mm512_shuffle_f32x4(four[i], four[i + 4], 0xdd);
        const vec even_high = _mm512_shuffle_f32x4(four[i + 8], four[i + 12], 0x88);
        const vec odd_high = _mm512_shuffle_f32x4(four[i + 8], four[i + 12], 0xdd);
        block[i] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        block[i + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        block[i + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        block[i + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
}
#include "gemm_host_micro.h"
#undef TARGET
} // namespace avx512

constexpr instruction_set avx2_set = avx2::describe("avx2");
constexpr instruction_set avx512_set = avx512::describe("avx512");

#endif

} // namespace

#endif
