/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One tile of a matrix product, after Goto and van de Geijn ("Anatomy of High-Performance Matrix
 * Multiplication", 2008): K is cut into blocks of kBlockK; of each block, A's rows and B's columns
 * are packed into panels of the micro-kernel's height and width, widened to fp32; the micro-kernel
 * keeps a piece of the result in registers through the block. A panel of B stays in the L1 cache
 * while A's panels pass by; the packed block of A, that of B and the tile of the result share L2.
 *
 * While the micro-kernels compute, they also fetch into L2 what the next block's packing will read:
 * its source is strided over many pages, which hardware prefetchers follow badly.
 *
 * Packed panels are kept for the next tile where that pays: B's of all blocks of K unless they
 * exceed kKeepB, A's unless they exceed kKeepA (a block of A that is packed anew is at least still
 * in L2).
 *
 * NOTE [order of summation] An element's sum runs in order of k within a block of kBlockK, then
 * block after block; kBlockK is the same for every tile, dtype and instruction set. All
 * micro-kernels do the same arithmetic on an element, so its bits do not depend on the place and
 * size of the tile. Tiles cut by the matrix's edge have panels of fewer rows and lines filled up
 * with zeros, whose products are not stored.
 */
#include "gemm_host.h"

#include <stdlib.h>
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
constexpr int64_t kKeepA = (int64_t)1 << 17; /* floats: a quarter of a common L2 cache */
constexpr int64_t kKeepB = (int64_t)1 << 22; /* floats, for each worker thread */

static_assert(kBlockK % kMaxLanes == 0, "a block is made of whole groups of lines");

/* Storage types beside float; no arithmetic of their own. */
struct half {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
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

struct instruction_set {
    const char *name;
    int32_t lanes, rows;
    pack_function pack_a[3], pack_b[3]; /* by dtype: F32, F16, BF16 */
    micro_kernel kernels[kMaxRows][2];  /* [height - 1][lines of B's panel - 1] */
};

static_assert(IRIS_DTYPE_F32 == 0 && IRIS_DTYPE_F16 == 1 && IRIS_DTYPE_BF16 == 2,
              "dtypes index the tables of packing functions");

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
    return _mm256_fmadd_ps(x, y, z);
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

/* The best set that the machine has, or the one below it that IRIS_C_CPU_ISA asks for. */
const instruction_set *choose_set()
{
#if defined(__x86_64__)
    const char *wanted = getenv("IRIS_C_CPU_ISA");
    const bool at_most_avx2 = wanted != nullptr && strcmp(wanted, "avx2") == 0;
    const bool at_most_generic = wanted != nullptr && strcmp(wanted, "generic") == 0;
    uint32_t leaf_a = 0, leaf_b = 0, leaf_c = 0, leaf_d = 0;
    const bool f16c =
        __get_cpuid(1, &leaf_a, &leaf_b, &leaf_c, &leaf_d) != 0 && (leaf_c & bit_F16C);
    const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");

    if (avx512 && !at_most_avx2 && !at_most_generic)
        return &avx512_set;
    if (avx2 && !at_most_generic)
        return &avx2_set;
#endif
    return &generic_set;
}

/* Chosen once; threads that race choose the same. */
const instruction_set &current_set()
{
    static const instruction_set *chosen;
    const instruction_set *seen = __atomic_load_n(&chosen, __ATOMIC_RELAXED);

    if (seen == nullptr) {
        seen = choose_set();
        __atomic_store_n(&chosen, seen, __ATOMIC_RELAXED);
    }
    return *seen;
}

int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

int64_t at_most(int64_t value, int64_t limit)
{
    return value < limit ? value : limit;
}

int64_t at_least(int64_t value, int64_t limit)
{
    return value > limit ? value : limit;
}

/* What a buffer of packed panels holds, if it holds all of K. */
struct panel_key {
    iris_gemm_operand operand;
    int64_t origin, K;
    iris_dtype dtype;
    int32_t extent; /* rows of A or columns of B; 0: nothing */

    bool operator==(const panel_key &other) const
    {
        return extent == other.extent && origin == other.origin && K == other.K &&
               dtype == other.dtype && operand.address == other.operand.address &&
               operand.stride_row == other.operand.stride_row &&
               operand.stride_col == other.operand.stride_col;
    }
};

/* A buffer for packed panels: of all blocks of K one after the other, if they fit, else of one. */
struct panel_buffer {
    float *data;
    int64_t capacity; /* floats */
    panel_key held;
};

/* The floats that the buffers need; for any instruction set, so a line's width is the largest. */
struct capacities {
    int64_t a, b;
};

capacities capacities_of(int32_t block_m, int32_t block_n, int64_t K)
{
    const int64_t rows = block_m, cols = round_up(block_n, kMaxLanes);
    const int64_t depth = round_up(K, kMaxLanes), block = at_most(depth, kBlockK);

    /* Whole blocks of K, if not all of them fit into what may be kept. */
    return {at_least(rows * block, at_most(rows * depth, kKeepA)),
            depth <= kKeepB / cols ? cols * depth : cols * block};
}

const char *element_address(const iris_gemm_operand *operand, iris_dtype dtype, int64_t row,
                            int64_t col)
{
    const int64_t offset = row * operand->stride_row + col * operand->stride_col;
    return static_cast<const char *>(operand->address) + offset * (dtype == IRIS_DTYPE_F32 ? 4 : 2);
}

/* The runs of contiguous elements of a source that will be packed next, to be fetched into L2 while
 * the micro-kernels have the memory to spare. */
struct upcoming {
    uintptr_t address;
    int64_t step; /* bytes from one run to the next */
    int32_t runs;

    uintptr_t next()
    {
        const uintptr_t at = address;
        if (--runs > 0)
            address += (uintptr_t)step;
        return at;
    }
};

upcoming upcoming_block(const iris_gemm_operand *operand, iris_dtype dtype, int64_t row,
                        int64_t col, int64_t rows, int64_t cols)
{
    const int64_t size = dtype == IRIS_DTYPE_F32 ? 4 : 2;
    const bool by_row = operand->stride_col == 1;
    return {reinterpret_cast<uintptr_t>(element_address(operand, dtype, row, col)),
            (by_row ? operand->stride_row : operand->stride_col) * size,
            (int32_t)(by_row ? rows : cols)};
}

/* One block of K: out (+)= packed A times packed B. */
void multiply(const instruction_set &set, const float *a, const float *b, int32_t rows,
              int32_t cols, int64_t kc, float *out, int64_t ld, bool add_to_out, upcoming next_a,
              upcoming next_b)
{
    const row_panels panels = row_panels_of(rows, set.rows);
    const int64_t depth = round_up(kc, set.lanes);
    /* B's next panel may be in L3. When B is packed as it goes, its panels are still in L2, but the
     * memory that the next block will be packed into is not. */
    const bool packs_b = next_b.runs > 0;
    uintptr_t ahead = reinterpret_cast<uintptr_t>(b + kc * round_up(cols, set.lanes));
    const uintptr_t fetched = (uintptr_t)(kc / set.lanes) * kFetchStep;

    for (int32_t j = 0; j < cols; j += 2 * set.lanes) {
        const int32_t left = cols - j;
        const int32_t lines = left > set.lanes ? 2 : 1;
        const int32_t last = (int32_t)at_most(left - (lines - 1) * set.lanes, set.lanes);
        const float *next_panel = b + kc * lines * set.lanes;
        if (!packs_b)
            ahead = reinterpret_cast<uintptr_t>(next_panel);

        for (int32_t p = 0; p < panels.count; ++p, ahead += 2 * fetched) {
            const int32_t height = panels.height(p), start = panels.start(p);
            uintptr_t soon[kFetches] = {ahead, ahead + fetched, ahead, ahead, ahead, ahead};
            if (next_a.runs > 0) {
                soon[2] = next_a.next();
                soon[3] = next_a.next();
            }
            if (next_b.runs > 0) {
                soon[4] = next_b.next();
                soon[5] = next_b.next();
            }
            set.kernels[height - 1][lines - 1](kc, a + start * depth, b, soon, out + start * ld + j,
                                               ld, last, add_to_out);
        }
        b = next_panel;
    }
}

} // namespace

struct iris_gemm_scratch {
    panel_buffer a, b;
};

/* The buffers follow the struct, from the next multiple of this on. */
static const size_t kHeadNbytes = 256;
static_assert(sizeof(iris_gemm_scratch) <= kHeadNbytes, "the buffers lie behind the struct");

size_t iris_gemm_scratch_nbytes(int32_t block_m, int32_t block_n, int64_t K)
{
    const capacities floats = capacities_of(block_m, block_n, K);
    return kHeadNbytes + (size_t)(floats.a + floats.b) * sizeof(float);
}

struct iris_gemm_scratch *iris_gemm_scratch_init(void *memory, int32_t block_m, int32_t block_n,
                                                 int64_t K)
{
    const capacities floats = capacities_of(block_m, block_n, K);
    iris_gemm_scratch *scratch = static_cast<iris_gemm_scratch *>(memory);

    memset(memory, 0, sizeof *scratch);
    scratch->a.data = reinterpret_cast<float *>(static_cast<char *>(memory) + kHeadNbytes);
    scratch->a.capacity = floats.a;
    scratch->b.data = scratch->a.data + floats.a;
    scratch->b.capacity = floats.b;
    return scratch;
}

void iris_gemm_tile(struct iris_gemm_scratch *scratch, enum iris_dtype dtype,
                    const struct iris_gemm_operand *A, const struct iris_gemm_operand *B,
                    int64_t m0, int64_t n0, int32_t rows, int32_t cols, int64_t K, float *out,
                    int64_t ld)
{
    const instruction_set &set = current_set();
    const int64_t width = round_up(cols, set.lanes); /* of B's packed panels together */
    panel_buffer &a = scratch->a, &b = scratch->b;
    const panel_key key_a = {*A, m0, K, dtype, rows}, key_b = {*B, n0, K, dtype, cols};
    const bool keep_a = rows * round_up(K, set.lanes) <= a.capacity,
               keep_b = width * K <= b.capacity;
    const bool have_a = a.held == key_a, have_b = b.held == key_b;

    for (int64_t k = 0; k < K; k += kBlockK) {
        const int64_t kc = at_most(K - k, kBlockK);
        float *packed_a = a.data + (keep_a ? rows * k : 0);
        float *packed_b = b.data + (keep_b ? width * k : 0);
        if (!have_a)
            set.pack_a[dtype](element_address(A, dtype, m0, k), A->stride_row, A->stride_col, rows,
                              kc, packed_a);
        if (!have_b)
            set.pack_b[dtype](element_address(B, dtype, k, n0), B->stride_row, B->stride_col, cols,
                              kc, packed_b);
        const int64_t next_kc = at_most(K - k - kc, kBlockK);
        upcoming next_a = {}, next_b = {};
        if (!have_a && next_kc > 0)
            next_a = upcoming_block(A, dtype, m0, k + kc, rows, next_kc);
        if (!have_b && next_kc > 0)
            next_b = upcoming_block(B, dtype, k + kc, n0, next_kc, cols);
        multiply(set, packed_a, packed_b, rows, cols, kc, out, ld, k > 0, next_a, next_b);
    }
    a.held = key_a;
    b.held = key_b;
    if (!keep_a)
        a.held.extent = 0;
    if (!keep_b)
        b.held.extent = 0;
}

const char *iris_gemm_isa(void)
{
    return current_set().name;
}
