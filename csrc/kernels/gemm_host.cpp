/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One tile of a matrix product, after Goto and van de Geijn ("Anatomy of High-Performance Matrix
 * Multiplication", 2008): K is cut into blocks of kBlockK; of each block, A's rows and B's columns
 * are packed into slivers of the micro-kernel's height and width, widened to fp32; the micro-kernel
 * keeps a kRows x kCols piece of the result in registers through the block.
 *
 *   packed A   sliver of kRows rows: row-major with a fixed pitch when A's rows are contiguous, so
 *              packing is a copy; or k-major when its columns are. The pitch is no power of two,
 *              so that the rows of a sliver lie in different sets of the L1 cache.
 *   packed B   sliver of kCols columns, k-major. The whole K x block_n panel is kept for the next
 *              tile of the same columns, unless it is larger than kPanelLimit.
 *
 * An element's sum runs in order of k within a block and block after block: it depends on K alone,
 * not on where in which tile the element lies.
 */
#include "gemm_host.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "rows_host.h"

namespace
{

constexpr int64_t kBlockK = 256;
constexpr int64_t kPitch = kBlockK + 16; /* floats between the rows of a row-major sliver of A */
constexpr int64_t kPitchK = 16;          /* floats between the k of a k-major sliver of A */
constexpr int32_t kMaxRows = 14;
constexpr int32_t kMaxCols = 32;
constexpr size_t kPanelLimit = (size_t)16 << 20;

static_assert(kMaxRows <= kPitchK, "a k-major sliver holds one column of rows per pitch");

/* out (+)= a sliver of A times a sliver of B over kc steps of k; ld in floats. */
typedef void (*micro_kernel)(const float *a, const float *b, int64_t kc, float *out, int64_t ld,
                             bool add);

/* A micro-kernel of an instruction set, for every number of rows, in both layouts of A. */
struct isa {
    const char *name;
    int32_t rows, cols;
    const micro_kernel *row_major; /* [rows], for 1, 2, ... rows */
    const micro_kernel *k_major;
};

/* The body is the same for all: kRows x 2 vectors of accumulators, two loads of B and one
 * broadcast of A per row and k. Spelled as a macro because a template cannot take a target. */
#define DEFINE_MICRO(NAME, TARGET, VECTOR, WIDTH, ZERO, LOAD, SPLAT, FMA, ADD, STORE)              \
    template <int kRows, int64_t kRowStride, int64_t kStepK>                                       \
    TARGET void NAME(const float *a, const float *b, int64_t kc, float *out, int64_t ld, bool add) \
    {                                                                                              \
        VECTOR sum[kRows][2];                                                                      \
        UNROLL for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = ZERO();                     \
        for (int64_t k = 0; k < kc; ++k, a += kStepK, b += 2 * (WIDTH)) {                          \
            const VECTOR b0 = LOAD(b), b1 = LOAD(b + (WIDTH));                                     \
            UNROLL for (int i = 0; i < kRows; ++i)                                                 \
            {                                                                                      \
                const VECTOR x = SPLAT(a[i * kRowStride]);                                         \
                sum[i][0] = FMA(x, b0, sum[i][0]);                                                 \
                sum[i][1] = FMA(x, b1, sum[i][1]);                                                 \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int i = 0; i < kRows; ++i)                                                     \
        {                                                                                          \
            float *row = out + i * ld;                                                             \
            if (add) {                                                                             \
                sum[i][0] = ADD(LOAD(row), sum[i][0]);                                             \
                sum[i][1] = ADD(LOAD(row + (WIDTH)), sum[i][1]);                                   \
            }                                                                                      \
            STORE(row, sum[i][0]);                                                                 \
            STORE(row + (WIDTH), sum[i][1]);                                                       \
        }                                                                                          \
    }

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Plain C: vectors of four floats, without FMA. */
typedef float float4 __attribute__((vector_size(16), aligned(4)));
inline float4 zero4()
{
    return float4{0, 0, 0, 0};
}
inline float4 load4(const float *p)
{
    float4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
inline float4 splat4(float x)
{
    return float4{x, x, x, x};
}
inline float4 fma4(float4 x, float4 y, float4 z)
{
    return x * y + z;
}
inline float4 add4(float4 x, float4 y)
{
    return x + y;
}
inline void store4(float *p, float4 v)
{
    memcpy(p, &v, sizeof v);
}
DEFINE_MICRO(micro_generic, , float4, 4, zero4, load4, splat4, fma4, add4, store4)

#define ROWS_4(K, RS, KS) K<1, RS, KS>, K<2, RS, KS>, K<3, RS, KS>, K<4, RS, KS>
#define ROWS_6(K, RS, KS) ROWS_4(K, RS, KS), K<5, RS, KS>, K<6, RS, KS>
#define ROWS_14(K, RS, KS)                                                                         \
    ROWS_6(K, RS, KS), K<7, RS, KS>, K<8, RS, KS>, K<9, RS, KS>, K<10, RS, KS>, K<11, RS, KS>,     \
        K<12, RS, KS>, K<13, RS, KS>, K<14, RS, KS>

const micro_kernel generic_row_major[] = {ROWS_4(micro_generic, kPitch, 1)};
const micro_kernel generic_k_major[] = {ROWS_4(micro_generic, 1, kPitchK)};
const isa isa_generic = {"generic", 4, 8, generic_row_major, generic_k_major};

#if defined(__x86_64__)
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,fma")))

DEFINE_MICRO(micro_avx2, TARGET_AVX2, __m256, 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps,
             _mm256_fmadd_ps, _mm256_add_ps, _mm256_storeu_ps)
DEFINE_MICRO(micro_avx512, TARGET_AVX512, __m512, 16, _mm512_setzero_ps, _mm512_loadu_ps,
             _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_storeu_ps)

const micro_kernel avx2_row_major[] = {ROWS_6(micro_avx2, kPitch, 1)};
const micro_kernel avx2_k_major[] = {ROWS_6(micro_avx2, 1, kPitchK)};
const isa isa_avx2 = {"avx2", 6, 16, avx2_row_major, avx2_k_major};
const micro_kernel avx512_row_major[] = {ROWS_14(micro_avx512, kPitch, 1)};
const micro_kernel avx512_k_major[] = {ROWS_14(micro_avx512, 1, kPitchK)};
const isa isa_avx512 = {"avx512", 14, 32, avx512_row_major, avx512_k_major};
#endif

/* The best set that the machine has, or the one below it that IRIS_C_CPU_ISA asks for. */
const isa *choose_isa()
{
#if defined(__x86_64__)
    const char *wanted = getenv("IRIS_C_CPU_ISA");
    const bool any = wanted == nullptr || wanted[0] == '\0';
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512 && (any || strcmp(wanted, "avx512") == 0))
        return &isa_avx512;
    if (avx2 && (any || strcmp(wanted, "generic") != 0))
        return &isa_avx2;
#endif
    return &isa_generic;
}

/* Chosen once; threads that race choose the same. */
const isa *current_isa()
{
    static const isa *chosen;
    const isa *seen = __atomic_load_n(&chosen, __ATOMIC_RELAXED);

    if (seen == nullptr) {
        seen = choose_isa();
        __atomic_store_n(&chosen, seen, __ATOMIC_RELAXED);
    }
    return seen;
}

int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

/* ---- packing ---- */

size_t element_nbytes(iris_dtype dtype)
{
    return dtype == IRIS_DTYPE_F32 ? 4 : 2;
}

/* One operand from (row, col) on. */
struct source {
    const char *data;
    int64_t stride_row, stride_col; /* bytes */
    size_t element;
    const iris_row_ops *ops;
};

source source_at(const iris_gemm_operand *operand, iris_dtype dtype, int64_t row, int64_t col)
{
    const int64_t element = (int64_t)element_nbytes(dtype);
    const int64_t offset = row * operand->stride_row + col * operand->stride_col;
    return {static_cast<const char *>(operand->address) + offset * element,
            operand->stride_row * element, operand->stride_col * element, (size_t)element,
            iris_row_ops_for(dtype)};
}

/* out[i] = element i of a run that starts at `run` and steps by `stride` bytes. */
void load_run(const source &from, const char *run, int64_t stride, float *out, int64_t n)
{
    if (stride == (int64_t)from.element) {
        from.ops->load(out, run, n);
        return;
    }
    constexpr int64_t kChunk = 64;
    char gathered[kChunk * 4];
    for (int64_t start = 0; start < n; start += kChunk) {
        const int64_t count = n - start < kChunk ? n - start : kChunk;
        const char *at = run + start * stride;
        if (from.element == 4)
            for (int64_t i = 0; i < count; ++i)
                memcpy(gathered + 4 * i, at + i * stride, 4);
        else
            for (int64_t i = 0; i < count; ++i)
                memcpy(gathered + 2 * i, at + i * stride, 2);
        from.ops->load(out + start, gathered, count);
    }
}

bool is_k_major(const source &a)
{
    return a.stride_row == (int64_t)a.element && a.stride_col != (int64_t)a.element;
}

/* rows x kc of A, in slivers of `height` rows, each kMaxRows * kPitch floats. */
void pack_a(const source &a, int32_t rows, int64_t kc, int32_t height, float *out)
{
    for (int32_t first = 0; first < rows; first += height, out += kMaxRows * kPitch) {
        const int32_t count = rows - first < height ? rows - first : height;
        const char *at = a.data + first * a.stride_row;
        if (is_k_major(a))
            for (int64_t k = 0; k < kc; ++k)
                load_run(a, at + k * a.stride_col, a.stride_row, out + k * kPitchK, count);
        else
            for (int32_t i = 0; i < count; ++i)
                load_run(a, at + i * a.stride_row, a.stride_col, out + i * kPitch, kc);
    }
}

/* A kBlock x kBlock piece at a time, so that lines of B are used whole before they leave L1. */
void pack_b_transposed(const source &b, int64_t kc, int32_t cols, int32_t width, float *out)
{
    constexpr int64_t kBlock = 16;
    float piece[kBlock * kBlock];

    for (int32_t j0 = 0; j0 < cols; j0 += kBlock) {
        const int64_t nj = cols - j0 < kBlock ? cols - j0 : kBlock;
        for (int64_t k0 = 0; k0 < kc; k0 += kBlock) {
            const int64_t nk = kc - k0 < kBlock ? kc - k0 : kBlock;
            for (int64_t j = 0; j < nj; ++j)
                load_run(b, b.data + (j0 + j) * b.stride_col + k0 * b.stride_row, b.stride_row,
                         piece + j * kBlock, nk);
            for (int64_t j = 0; j < nj; ++j) {
                const int64_t column = j0 + j;
                float *to = out + column / width * width * kc + k0 * width + column % width;
                for (int64_t k = 0; k < nk; ++k)
                    to[k * width] = piece[j * kBlock + k];
            }
        }
    }
}

/* kc x cols of B, in slivers of `width` columns, each width * kc floats; the last one is filled up
 * with zeros. */
void pack_b(const source &b, int64_t kc, int32_t cols, int32_t width, float *out)
{
    const int32_t last = cols % width;

    if (last != 0) {
        float *sliver = out + (int64_t)(cols - last) * kc;
        for (int64_t k = 0; k < kc; ++k)
            memset(sliver + k * width + last, 0, (size_t)(width - last) * sizeof(float));
    }
    if (b.stride_row == (int64_t)b.element && b.stride_col != (int64_t)b.element) {
        pack_b_transposed(b, kc, cols, width, out);
        return;
    }
    for (int64_t k = 0; k < kc; ++k)
        for (int32_t j = 0; j < cols; j += width)
            load_run(b, b.data + k * b.stride_row + j * b.stride_col, b.stride_col,
                     out + (int64_t)j * kc + k * width, cols - j < width ? cols - j : width);
}

} // namespace

/* ---- scratch ---- */

struct iris_gemm_scratch {
    float *packed_a; /* one K block of the tile's rows */
    float *packed_b; /* [K block][sliver][k][column] if it all fits, else one K block */
    bool keeps_b;
    /* What packed_b holds: */
    iris_gemm_operand b;
    iris_dtype dtype;
    int64_t n0, K;
    int32_t cols;
};

namespace
{

struct scratch_layout {
    size_t packed_a_offset, packed_b_offset, nbytes;
    bool keeps_b;
};

scratch_layout layout_of(int32_t block_m, int32_t block_n, int64_t K)
{
    scratch_layout l;
    /* For every instruction set alike: the smallest slivers make the most. */
    const size_t slivers = (size_t)(block_m + 3) / 4;
    const size_t columns = (size_t)round_up(block_n, kMaxCols);
    const size_t panel = columns * (size_t)K * sizeof(float);
    const size_t one_block = columns * (size_t)(K < kBlockK ? K : kBlockK) * sizeof(float);

    l.keeps_b = panel <= kPanelLimit;
    l.packed_a_offset = (size_t)round_up(sizeof(iris_gemm_scratch), 64);
    l.packed_b_offset = l.packed_a_offset + slivers * kMaxRows * kPitch * sizeof(float);
    l.nbytes = (size_t)round_up((int64_t)(l.packed_b_offset + (l.keeps_b ? panel : one_block)), 64);
    return l;
}

bool holds(const iris_gemm_scratch *s, const iris_gemm_operand *b, iris_dtype dtype, int64_t n0,
           int64_t K, int32_t cols)
{
    return s->b.address == b->address && s->b.stride_row == b->stride_row &&
           s->b.stride_col == b->stride_col && s->dtype == dtype && s->n0 == n0 && s->K == K &&
           s->cols == cols;
}

/* Multiplies the packed blocks: each sliver of A stays in L1 while B's pass by. */
void multiply(const isa &set, bool k_major, const float *packed_a, const float *packed_b,
              int32_t rows, int32_t cols, int64_t kc, float *out, int64_t ld, bool add)
{
    const micro_kernel *kernels = k_major ? set.k_major : set.row_major;
    float edge[kMaxRows * kMaxCols];

    for (int32_t i = 0; i < rows; i += set.rows, packed_a += kMaxRows * kPitch) {
        const int32_t count = rows - i < set.rows ? rows - i : set.rows;
        const micro_kernel kernel = kernels[count - 1];
        for (int32_t j = 0; j < cols; j += set.cols) {
            const float *b = packed_b + (int64_t)j * kc;
            float *target = out + i * ld + j;
            if (cols - j >= set.cols) {
                kernel(packed_a, b, kc, target, ld, add);
                continue;
            }
            kernel(packed_a, b, kc, edge, kMaxCols, false);
            for (int32_t r = 0; r < count; ++r)
                for (int32_t c = 0; c < cols - j; ++c)
                    target[r * ld + c] =
                        add ? target[r * ld + c] + edge[r * kMaxCols + c] : edge[r * kMaxCols + c];
        }
    }
}

} // namespace

size_t iris_gemm_scratch_nbytes(int32_t block_m, int32_t block_n, int64_t K)
{
    return layout_of(block_m, block_n, K).nbytes;
}

struct iris_gemm_scratch *iris_gemm_scratch_init(void *memory, int32_t block_m, int32_t block_n,
                                                 int64_t K)
{
    const scratch_layout layout = layout_of(block_m, block_n, K);
    char *bytes = static_cast<char *>(memory);
    iris_gemm_scratch *scratch = static_cast<iris_gemm_scratch *>(memory);

    scratch->packed_a = reinterpret_cast<float *>(bytes + layout.packed_a_offset);
    scratch->packed_b = reinterpret_cast<float *>(bytes + layout.packed_b_offset);
    scratch->keeps_b = layout.keeps_b;
    scratch->cols = 0; /* holds nothing: no tile has 0 columns */
    return scratch;
}

void iris_gemm_tile(struct iris_gemm_scratch *scratch, enum iris_dtype dtype,
                    const struct iris_gemm_operand *A, const struct iris_gemm_operand *B,
                    int64_t m0, int64_t n0, int32_t rows, int32_t cols, int64_t K, float *out,
                    int64_t ld)
{
    const isa &set = *current_isa();
    const int64_t columns = round_up(cols, set.cols);
    const bool ready = scratch->keeps_b && holds(scratch, B, dtype, n0, K, cols);

    for (int64_t k = 0; k < K; k += kBlockK) {
        const int64_t kc = K - k < kBlockK ? K - k : kBlockK;
        float *packed_b = scratch->packed_b + (scratch->keeps_b ? columns * k : 0);
        const source a = source_at(A, dtype, m0, k);
        if (!ready)
            pack_b(source_at(B, dtype, k, n0), kc, cols, set.cols, packed_b);
        pack_a(a, rows, kc, set.rows, scratch->packed_a);
        multiply(set, is_k_major(a), scratch->packed_a, packed_b, rows, cols, kc, out, ld, k > 0);
    }
    scratch->b = *B;
    scratch->dtype = dtype;
    scratch->n0 = n0;
    scratch->K = K;
    scratch->cols = cols;
}

const char *iris_gemm_isa(void)
{
    return current_isa()->name;
}
