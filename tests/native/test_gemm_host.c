/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The host's tile product against a plain one in double precision: random shapes, strides and
 * dtypes; equal bits whatever the tiling; nothing written outside the tile or the scratch; every
 * fp16 and bf16 bit pattern. Each instruction set that the machine has runs in a process of its
 * own, because the choice is made once.
 *
 * Build (from the repository's root; add -fsanitize=address,undefined):
 *     g++ -std=c++17 -O3 -fno-exceptions -fno-rtti -fno-threadsafe-statics -c \
 *         csrc/kernels/cpu/gemm_host*.cpp csrc/kernels/cpu/{rows,float8}_host.cpp
 *     gcc -std=c11 -D_GNU_SOURCE -O1 tests/native/test_gemm_host.c gemm_host.o rows_host.o -lm
 * Run: test_gemm_host [seed]      prints a line "ok" for each part, 0 if all hold
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cpu/gemm_host.h"

#define POISON 0x7fc0beefu /* a NaN that no arithmetic makes */

static int failures;
static uint64_t random_state;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition) && ++failures <= 20) {                                                    \
            fprintf(stderr, "FAIL %s %s:%d: ", iris_gemm_isa(), __FILE__, __LINE__);               \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

static uint32_t random_bits(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static int64_t random_between(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1));
}

static void *must_alloc(size_t nbytes)
{
    void *memory = aligned_alloc(64, (nbytes + 63) / 64 * 64);

    if (memory == NULL) {
        fprintf(stderr, "out of memory: %zu bytes\n", nbytes);
        exit(2);
    }
    return memory;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The formats' tables: which bits are no finite numbers, and the bias. */
static double decode_float8(enum iris_dtype dtype, uint8_t bits)
{
    const bool e4m3 = dtype == IRIS_DTYPE_F8_E4M3FN || dtype == IRIS_DTYPE_F8_E4M3FNUZ;
    const bool fnuz = dtype == IRIS_DTYPE_F8_E4M3FNUZ || dtype == IRIS_DTYPE_F8_E5M2FNUZ;
    const int width = e4m3 ? 3 : 2, bias = (e4m3 ? 7 : 15) + (fnuz ? 1 : 0);
    const int exponent = (bits & 127) >> width, fraction = bits & ((1 << width) - 1);
    const double sign = bits >> 7 ? -1.0 : 1.0;

    if (fnuz ? bits == 128 : e4m3 ? (bits & 127) == 127 : (bits & 127) > 124)
        return NAN;
    if (!fnuz && !e4m3 && (bits & 127) == 124)
        return sign * INFINITY;
    return exponent == 0 ? sign * ldexp(fraction, 1 - bias - width)
                         : sign * ldexp((1 << width) + fraction, exponent - bias - width);
}

/* By the definition of the formats, not by the tricks of the code under test. */
static double decode(enum iris_dtype dtype, const void *element)
{
    uint16_t bits;
    float value;

    if (IRIS_IS_FLOAT8(dtype))
        return decode_float8(dtype, *(const uint8_t *)element);
    if (dtype == IRIS_DTYPE_F32) {
        memcpy(&value, element, sizeof value);
        return value;
    }
    memcpy(&bits, element, sizeof bits);
    if (dtype == IRIS_DTYPE_BF16)
        return float_of((uint32_t)bits << 16);

    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = bits >> 15 ? -1.0 : 1.0;
    if (exponent == 31)
        return fraction != 0 ? NAN : sign * INFINITY;
    return exponent == 0 ? sign * ldexp(fraction, -24)
                         : sign * ldexp(1024 + fraction, exponent - 25);
}

static size_t element_nbytes(enum iris_dtype dtype)
{
    return dtype == IRIS_DTYPE_F32 ? 4 : IRIS_IS_FLOAT8(dtype) ? 1 : 2;
}

/* A finite value of magnitude 1/4 to 2, so that no term of a sum is lost beside the others. */
static void random_element(enum iris_dtype dtype, void *element)
{
    const uint32_t r = random_bits();
    const uint32_t f32 = (r & 0x80000000u) | ((125 + r % 3) << 23) | (r >> 8 & 0x7fffffu);
    const uint16_t f16 = (uint16_t)((r >> 16 & 0x8000u) | ((13 + r % 3) << 10) | (r >> 8 & 0x3ffu));
    const uint16_t bf16 = (uint16_t)(f32 >> 16);

    uint8_t f8 = (uint8_t)r;
    while (IRIS_IS_FLOAT8(dtype) &&
           !(fabs(decode_float8(dtype, f8)) >= 0.25 && fabs(decode_float8(dtype, f8)) <= 2.0))
        f8 = (uint8_t)(f8 * 5 + 1); /* passes through all bytes */
    if (IRIS_IS_FLOAT8(dtype))
        memcpy(element, &f8, 1);
    else if (dtype == IRIS_DTYPE_F32)
        memcpy(element, &f32, 4);
    else
        memcpy(element, dtype == IRIS_DTYPE_F16 ? &f16 : &bf16, 2);
}

/* A matrix with strides, in an allocation that ends with its last element. */
struct matrix {
    struct iris_gemm_operand operand;
    enum iris_dtype dtype;
    int64_t rows, cols;
    void *allocation;
};

enum layout {
    ROW_MAJOR,
    TRANSPOSED,
    BOTH_STRIDED,
    NEGATIVE_ROW,
    NEGATIVE_COL,
    NEGATIVE_TRANSPOSED,
    ZERO_ROW,
    ZERO_COL,
    BOTH_UNIT,
    LAYOUTS
};

static const char *const layout_names[] = {"row-major",    "transposed",      "both strided",
                                           "negative row", "negative column", "negative transposed",
                                           "zero row",     "zero column",     "both unit"};

static struct matrix matrix_make(enum iris_dtype dtype, int64_t rows, int64_t cols,
                                 enum layout layout)
{
    struct matrix m = {.dtype = dtype, .rows = rows, .cols = cols};
    const int64_t pad = random_between(0, 1) * random_between(0, 9), step = random_between(2, 4);
    const size_t size = element_nbytes(dtype);
    int64_t sr = cols + pad, sc = 1;

    switch (layout) {
    case TRANSPOSED:
        sr = 1, sc = rows + pad;
        break;
    case BOTH_STRIDED:
        sr = (cols + pad) * step, sc = step;
        break;
    case NEGATIVE_ROW:
        sr = -sr;
        break;
    case NEGATIVE_COL:
        sc = -1;
        break;
    case NEGATIVE_TRANSPOSED:
        sr = 1, sc = -(rows + pad);
        break;
    case ZERO_ROW:
        sr = 0;
        break;
    case ZERO_COL:
        sr = 1, sc = 0;
        break;
    case BOTH_UNIT:
        sr = 1;
        break;
    case ROW_MAJOR:
    case LAYOUTS:
        break;
    }

    const int64_t end_row = (rows - 1) * sr, end_col = (cols - 1) * sc;
    const int64_t low = (end_row < 0 ? end_row : 0) + (end_col < 0 ? end_col : 0);
    const int64_t high = (end_row > 0 ? end_row : 0) + (end_col > 0 ? end_col : 0);
    const int64_t count = high - low + 1;
    m.allocation = malloc((size_t)count * size);
    if (m.allocation == NULL)
        exit(2);
    for (int64_t i = 0; i < count; ++i)
        random_element(dtype, (char *)m.allocation + (size_t)i * size);
    m.operand.address = (char *)m.allocation - low * (int64_t)size;
    m.operand.stride_row = sr;
    m.operand.stride_col = sc;
    m.operand.dtype = dtype;
    return m;
}

static double matrix_at(const struct matrix *m, int64_t i, int64_t j)
{
    const int64_t offset = i * m->operand.stride_row + j * m->operand.stride_col;
    return decode(m->dtype,
                  (const char *)m->operand.address + offset * (int64_t)element_nbytes(m->dtype));
}

/* Scratch memory that starts as NaN and ends in a canary. */
struct arena {
    unsigned char *memory;
    size_t nbytes;
    struct iris_gemm_scratch *scratch;
};

static struct arena arena_make(int32_t block_m, int32_t block_n, int64_t K)
{
    struct arena a = {.nbytes = iris_gemm_scratch_nbytes(block_m, block_n, K)};

    CHECK(a.nbytes % 64 == 0, "scratch of %dx%dx%lld: %zu bytes, not a multiple of 64", block_m,
          block_n, (long long)K, a.nbytes);
    a.memory = must_alloc(a.nbytes + 4096);
    memset(a.memory, 0xff, a.nbytes);
    memset(a.memory + a.nbytes, 0xa5, 4096);
    a.scratch = iris_gemm_scratch_init(a.memory, block_m, block_n, K);
    return a;
}

static void arena_free(struct arena *a)
{
    bool intact = true;
    for (size_t i = 0; i < 4096; ++i)
        intact = intact && a->memory[a->nbytes + i] == 0xa5;
    CHECK(intact, "wrote past the scratch of %zu bytes", a->nbytes);
    free(a->memory);
}

/* A product, its reference and the sums of magnitudes that scale the tolerance. */
struct product {
    struct matrix A, B;
    int64_t M, N, K;
    double *sum, *magnitude;
    double error_factor; /* bound of an element's error, in units of 2^-24 of its magnitude */
    const char *layout_a, *layout_b;
};

static struct product product_make(enum iris_dtype dtype, int64_t M, int64_t N, int64_t K,
                                   enum layout layout_a, enum layout layout_b)
{
    struct product p = {.M = M, .N = N, .K = K};
    double *b;

    /* Rounding errors add up like a random walk, unless all the terms of a sum are the same. */
    p.error_factor =
        4 + (layout_a == ZERO_COL && layout_b == ZERO_ROW ? (double)K : 2 * sqrt((double)K));
    p.A = matrix_make(dtype, M, K, layout_a);
    p.B = matrix_make(dtype, K, N, layout_b);
    p.layout_a = layout_names[layout_a];
    p.layout_b = layout_names[layout_b];
    p.sum = must_alloc((size_t)(M * N) * sizeof(double));
    p.magnitude = must_alloc((size_t)(M * N) * sizeof(double));
    b = must_alloc((size_t)N * sizeof(double));
    memset(p.sum, 0, (size_t)(M * N) * sizeof(double));
    memset(p.magnitude, 0, (size_t)(M * N) * sizeof(double));
    for (int64_t k = 0; k < K; ++k) {
        for (int64_t j = 0; j < N; ++j)
            b[j] = matrix_at(&p.B, k, j);
        for (int64_t i = 0; i < M; ++i) {
            const double a = matrix_at(&p.A, i, k);
            for (int64_t j = 0; j < N; ++j) {
                p.sum[i * N + j] += a * b[j];
                p.magnitude[i * N + j] += fabs(a * b[j]);
            }
        }
    }
    free(b);
    return p;
}

static void product_free(struct product *p)
{
    free(p->A.allocation);
    free(p->B.allocation);
    free(p->sum);
    free(p->magnitude);
}

/* Computes one tile into poisoned memory, checks it and what surrounds it, copies it to C. */
static void check_tile(const struct product *p, struct iris_gemm_scratch *scratch, int64_t m0,
                       int64_t n0, int32_t rows, int32_t cols, float *C)
{
    const int64_t ld = cols + random_between(0, 1) * random_between(0, 20);
    const int64_t before = ld + random_between(0, 17), after = ld + 16;
    const int64_t count = before + rows * ld + after;
    const double unit = ldexp(1, -24);
    float *memory = must_alloc((size_t)count * sizeof(float)), *out = memory + before;

    for (int64_t i = 0; i < count; ++i)
        memory[i] = float_of(POISON);
    iris_gemm_tile(scratch, &p->A.operand, &p->B.operand, m0, n0, rows, cols, p->K, out, ld);
    for (int64_t at = -before; at < count - before; ++at) {
        const int64_t i = at < 0 ? -1 : at / ld, j = at < 0 ? 0 : at % ld;
        if (at < 0 || i >= rows || j >= cols) {
            CHECK(bits_of(out[at]) == POISON, "wrote outside a %dx%d tile at row %lld, column %lld",
                  rows, cols, (long long)i, (long long)j);
            continue;
        }
        const int64_t in_c = (m0 + i) * p->N + n0 + j;
        const double error = fabs(out[at] - p->sum[in_c]);
        const double bound = p->error_factor * unit * p->magnitude[in_c];
        CHECK(error <= bound,
              "dtype %d, A %s, B %s, %lldx%lldx%lld, tile %dx%d at (%lld, %lld): element "
              "(%lld, %lld) is %.9g, expected %.9g +- %.2g",
              p->A.dtype, p->layout_a, p->layout_b, (long long)p->M, (long long)p->N,
              (long long)p->K, rows, cols, (long long)m0, (long long)n0, (long long)i, (long long)j,
              (double)out[at], p->sum[in_c], bound);
        C[in_c] = out[at];
    }
    free(memory);
}

/* The whole product in tiles of block_m x block_n, in rows or columns of tiles or at random. */
static void check_tiling(const struct product *p, int32_t block_m, int32_t block_n, int order,
                         float *C)
{
    struct arena arena = arena_make(block_m, block_n, p->K);
    const int64_t tiles_m = (p->M + block_m - 1) / block_m,
                  tiles_n = (p->N + block_n - 1) / block_n;
    const int64_t tiles = tiles_m * tiles_n;

    for (int64_t i = 0; i < p->M * p->N; ++i)
        C[i] = float_of(POISON);
    for (int64_t t = 0; t < (order == 2 ? 2 * tiles : tiles); ++t) {
        const int64_t tile = order == 2 && t < tiles ? random_between(0, tiles - 1) : t % tiles;
        const int64_t m0 = (order == 0 ? tile % tiles_m : tile / tiles_n) * block_m;
        const int64_t n0 = (order == 0 ? tile / tiles_m : tile % tiles_n) * block_n;
        const int64_t rows = p->M - m0 < block_m ? p->M - m0 : block_m;
        const int64_t cols = p->N - n0 < block_n ? p->N - n0 : block_n;
        check_tile(p, arena.scratch, m0, n0, (int32_t)rows, (int32_t)cols, C);
    }
    arena_free(&arena);
}

static void check_product(enum iris_dtype dtype, int64_t M, int64_t N, int64_t K, enum layout a,
                          enum layout b, int tilings)
{
    struct product p = product_make(dtype, M, N, K, a, b);
    float *whole = must_alloc((size_t)(M * N) * sizeof(float));
    float *C = must_alloc((size_t)(M * N) * sizeof(float));

    check_tiling(&p, (int32_t)M, (int32_t)N, 0, whole);
    for (int t = 0; t < tilings; ++t) {
        const int32_t block_m = (int32_t)random_between(1, M);
        const int32_t block_n = (int32_t)random_between(1, N);
        if (M * N / block_m / block_n > 200)
            continue;
        check_tiling(&p, block_m, block_n, t % 3, C);
        for (int64_t i = 0; i < M * N; ++i)
            CHECK(bits_of(C[i]) == bits_of(whole[i]),
                  "dtype %d, A %s, B %s, %lldx%lldx%lld: element (%lld, %lld) is %.9g in tiles of "
                  "%dx%d, %.9g in one",
                  dtype, p.layout_a, p.layout_b, (long long)M, (long long)N, (long long)K,
                  (long long)(i / N), (long long)(i % N), (double)C[i], block_m, block_n,
                  (double)whole[i]);
    }
    free(C);
    free(whole);
    product_free(&p);
}

/* Every layout of A with every layout of B, tails in all three dimensions. */
static void test_layouts(enum iris_dtype dtype)
{
    for (int a = 0; a < LAYOUTS; ++a)
        for (int b = 0; b < LAYOUTS; ++b) {
            check_product(dtype, random_between(1, 80), random_between(1, 100),
                          random_between(1, 90), (enum layout)a, (enum layout)b, 3);
            check_product(dtype, random_between(15, 60), random_between(33, 70),
                          random_between(240, 600), (enum layout)a, (enum layout)b, 1);
        }
}

/* Every edge of the register blocks: 1 to 33 rows and 1 to 70 columns. */
static void test_edges(enum iris_dtype dtype)
{
    for (int rows = 1; rows <= 33; ++rows)
        check_product(dtype, rows, random_between(1, 70), random_between(1, 40),
                      (enum layout)(rows % 2), (enum layout)(rows / 2 % 2), 2);
    for (int cols = 1; cols <= 70; ++cols)
        check_product(dtype, random_between(1, 33), cols, random_between(1, 40),
                      (enum layout)(cols % 2), (enum layout)(cols / 2 % 2), 2);
}

/* K around the boundaries of its blocks, and a panel of B too large to keep. */
static void test_depths(enum iris_dtype dtype)
{
    static const int64_t depths[] = {1,   2,   15,  16,  17,  127,  128,  129,  191,  192,
                                     193, 239, 240, 255, 256, 257,  383,  384,  385,  511,
                                     512, 513, 767, 768, 769, 1023, 1024, 1025, 2047, 2049};

    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; ++i)
        check_product(dtype, random_between(1, 40), random_between(1, 70), depths[i],
                      (enum layout)(i % 3), (enum layout)(i / 3 % 3), 2);
    check_product(dtype, 3, 65, 70001, ROW_MAJOR, ROW_MAJOR, 1);
    check_product(dtype, 17, 6, 70001, TRANSPOSED, TRANSPOSED, 1);
}

/* One scratch for tiles of changing size at the same place, and for other matrices. */
static void test_reuse(enum iris_dtype dtype)
{
    struct product p[3];
    struct arena arena = arena_make(48, 96, 300);
    float *C = must_alloc(100 * 200 * sizeof(float));

    p[0] = product_make(dtype, 100, 200, 300, ROW_MAJOR, ROW_MAJOR);
    p[1] = product_make(dtype, 100, 200, 300, TRANSPOSED, ROW_MAJOR);
    p[2] = product_make(dtype, 100, 200, 300, ROW_MAJOR, TRANSPOSED);
    for (int i = 0; i < 150; ++i) {
        const struct product *q = &p[i % 10 == 9 ? random_between(0, 2) : 0];
        check_tile(q, arena.scratch, random_between(0, 1) * 52, random_between(0, 1) * 104,
                   (int32_t)random_between(1, 48), (int32_t)random_between(1, 96), C);
    }
    /* The same memory with other contents, after the scratch was made anew. */
    check_tile(&p[0], arena.scratch, 0, 0, 48, 96, C);
    for (int64_t i = 0; i < 300 * 200; ++i)
        random_element(dtype, (char *)p[0].B.allocation + i * (int64_t)element_nbytes(dtype));
    arena.scratch = iris_gemm_scratch_init(arena.memory, 48, 96, 300);
    for (int64_t i = 0; i < 100; ++i)
        for (int64_t j = 0; j < 200; ++j) {
            p[0].sum[i * 200 + j] = p[0].magnitude[i * 200 + j] = 0;
            for (int64_t k = 0; k < 300; ++k) {
                const double term = matrix_at(&p[0].A, i, k) * matrix_at(&p[0].B, k, j);
                p[0].sum[i * 200 + j] += term;
                p[0].magnitude[i * 200 + j] += fabs(term);
            }
        }
    check_tile(&p[0], arena.scratch, 0, 0, 48, 96, C);
    arena_free(&arena);
    free(C);
    for (int i = 0; i < 3; ++i)
        product_free(&p[i]);
}

static void check_widened(enum iris_dtype dtype, uint16_t pattern, float got, const char *how)
{
    const double expected = decode(dtype, &pattern);
    CHECK(isnan(expected) ? isnan(got) : (double)got == expected,
          "dtype %d, %s: pattern 0x%04x became %.9g, expected %.9g", dtype, how, pattern,
          (double)got, expected);
}

/* Each of the 65536 patterns through every way of packing. */
static void test_patterns(enum iris_dtype dtype)
{
    enum { RUN = 64, DEPTH = 20, AT = 7 };
    struct arena arena = arena_make(RUN, RUN, DEPTH);
    const uint16_t one = dtype == IRIS_DTYPE_F16 ? 0x3c00 : 0x3f80;
    const struct iris_gemm_operand unit = {&one, 0, 0, dtype};
    uint16_t hot[DEPTH] = {0}, run[RUN], matrix[RUN * DEPTH];
    float out[RUN];

    hot[AT] = one;
    for (uint32_t first = 0; first < 65536; first += RUN) {
        for (int i = 0; i < RUN; ++i)
            run[i] = (uint16_t)(first + (uint32_t)i);
        for (int i = 0; i < RUN; ++i) {
            const struct iris_gemm_operand x = {run + i, 1, 1, dtype};
            arena.scratch = iris_gemm_scratch_init(arena.memory, RUN, RUN, DEPTH);
            iris_gemm_tile(arena.scratch, &x, &unit, 0, 0, 1, 1, 1, out, 1);
            check_widened(dtype, run[i], out[0], "1x1x1, A");
            iris_gemm_tile(arena.scratch, &unit, &x, 0, 0, 1, 1, 1, out, 1);
            check_widened(dtype, run[i], out[0], "1x1x1, B");
        }
        const struct iris_gemm_operand row = {run, RUN, 1, dtype}, column = {run, 1, RUN, dtype};
        iris_gemm_tile(arena.scratch, &unit, &row, 0, 0, 1, RUN, 1, out, RUN);
        for (int i = 0; i < RUN; ++i)
            check_widened(dtype, run[i], out[i], "a row of B");
        iris_gemm_tile(arena.scratch, &column, &unit, 0, 0, RUN, 1, 1, out, 1);
        for (int i = 0; i < RUN; ++i)
            check_widened(dtype, run[i], out[i], "a column of A");

        /* The finite ones again among others, in a row-major A and a transposed B. */
        for (int i = 0; i < RUN * DEPTH; ++i) {
            uint16_t pattern = (uint16_t)(first + (uint32_t)(i / DEPTH) + (uint32_t)(i % DEPTH));
            matrix[i] = isfinite(decode(dtype, &pattern)) ? pattern : 0;
        }
        const struct iris_gemm_operand a = {matrix, DEPTH, 1, dtype}, pick = {hot, 1, 0, dtype};
        const struct iris_gemm_operand pick_row = {hot, 0, 1, dtype}, b = {matrix, 1, DEPTH, dtype};
        arena.scratch = iris_gemm_scratch_init(arena.memory, RUN, RUN, DEPTH);
        iris_gemm_tile(arena.scratch, &a, &pick, 0, 0, RUN, 1, DEPTH, out, 1);
        for (int i = 0; i < RUN; ++i)
            check_widened(dtype, matrix[i * DEPTH + AT], out[i], "a row-major A");
        iris_gemm_tile(arena.scratch, &pick_row, &b, 0, 0, 1, RUN, DEPTH, out, RUN);
        for (int i = 0; i < RUN; ++i)
            check_widened(dtype, matrix[i * DEPTH + AT], out[i], "a transposed B");
    }
    arena_free(&arena);
}

/* Each of the 256 patterns as an element of A and of B, whose other operand is bfloat16: formats
 * may differ. */
static void test_bytes(enum iris_dtype dtype)
{
    enum { RUN = 256 };
    struct arena arena = arena_make(RUN, RUN, 1);
    const uint16_t one = 0x3f80;
    const struct iris_gemm_operand unit = {&one, 0, 0, IRIS_DTYPE_BF16};
    uint8_t run[RUN];
    float out[RUN];

    for (int i = 0; i < RUN; ++i)
        run[i] = (uint8_t)i;
    const struct iris_gemm_operand row = {run, RUN, 1, dtype}, column = {run, 1, RUN, dtype};
    iris_gemm_tile(arena.scratch, &unit, &row, 0, 0, 1, RUN, 1, out, RUN);
    for (int i = 0; i < RUN; ++i)
        check_widened(dtype, run[i], out[i], "a row of B");
    iris_gemm_tile(arena.scratch, &column, &unit, 0, 0, RUN, 1, 1, out, 1);
    for (int i = 0; i < RUN; ++i)
        check_widened(dtype, run[i], out[i], "a column of A");
    arena_free(&arena);
}

static const struct {
    const enum iris_dtype dtype;
    const char *name;
} formats[] = {
    {IRIS_DTYPE_F32, "f32"},
    {IRIS_DTYPE_F16, "f16"},
    {IRIS_DTYPE_BF16, "bf16"},
    {IRIS_DTYPE_F8_E4M3FN, "e4m3fn"},
    {IRIS_DTYPE_F8_E5M2, "e5m2"},
    {IRIS_DTYPE_F8_E4M3FNUZ, "e4m3fnuz"},
    {IRIS_DTYPE_F8_E5M2FNUZ, "e5m2fnuz"},
};

static const struct {
    const char *name;
    void (*run)(enum iris_dtype dtype);
    int dtypes; /* bit i: runs with formats[i] */
} tests[] = {
    {"layouts", test_layouts, 0x1f}, {"edges", test_edges, 0xf},     {"depths", test_depths, 7},
    {"reuse", test_reuse, 0xf},      {"patterns", test_patterns, 6}, {"bytes", test_bytes, 0x78},
};

static int run_all(const char *isa, uint64_t seed)
{
    setenv("IRIS_C_CPU_ISA", isa, 1);
    if (isa[0] != '\0' && strcmp(iris_gemm_isa(), isa) != 0) {
        printf("skip %s: this machine lacks it\n", isa);
        return 0;
    }
    for (size_t t = 0; t < sizeof tests / sizeof tests[0]; ++t)
        for (size_t f = 0; f < sizeof formats / sizeof formats[0]; ++f) {
            if ((tests[t].dtypes >> f & 1) == 0)
                continue;
            const int failures_before = failures;
            random_state = seed * 1000 + t * 10 + f;
            tests[t].run(formats[f].dtype);
            if (failures == failures_before)
                printf("ok %s %s %s\n", isa[0] != '\0' ? isa : "best", tests[t].name,
                       formats[f].name);
            else
                printf("FAILED %s %s %s\n", isa[0] != '\0' ? isa : "best", tests[t].name,
                       formats[f].name);
            fflush(stdout);
        }
    return failures == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    /* The last, with nothing asked for, takes the tile unit for bfloat16 where there is one. */
    static const char *const isas[] = {"generic", "avx2", "avx512", ""};
    const uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    int result = 0;

    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; ++i) {
        const pid_t child = fork();
        int status = -1;
        if (child == 0)
            exit(run_all(isas[i], seed));
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            WEXITSTATUS(status) != 0) {
            printf("FAILED %s\n", isas[i]);
            result = 1;
        }
    }
    return result;
}
