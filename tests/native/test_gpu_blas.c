/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products by a vendor's library against loops: orders of A, B and D, leading dimensions, stacks,
 * biases, dtypes; what the library refuses; that it is asked once for a shape. The library is
 * blas_stand_in.c, of which argv[1] is the path; argv[2] is "hip" or "cuda".
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/gpu_blas.h"
#include "device/gpu_device.h"

enum order { BY_ROWS, BY_COLUMNS, WITH_GAPS, BACKWARDS, ORDERS };
enum { LARGEST = 40000, PADDING = 3 };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static gpu_result here(void **context)
{
    *context = NULL;
    return 0;
}

static gpu_result device_here(int *device)
{
    *device = 0;
    return 0;
}

static unsigned char storage[4][LARGEST * 4];

static float load(const void *data, enum iris_dtype dtype, int64_t i)
{
    uint32_t bits;
    float value;

    if (dtype == IRIS_DTYPE_F32)
        return ((const float *)data)[i];
    if (dtype == IRIS_DTYPE_F16)
        return (float)((const _Float16 *)data)[i];
    bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    memcpy(&value, &bits, 4);
    return value;
}

static void store(void *data, enum iris_dtype dtype, int64_t i, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    if (dtype == IRIS_DTYPE_F32)
        ((float *)data)[i] = value;
    else if (dtype == IRIS_DTYPE_F16)
        ((_Float16 *)data)[i] = (_Float16)value;
    else
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
}

/* Small whole numbers, so that every sum is exact in every dtype. */
static void fill(void *data, enum iris_dtype dtype, unsigned seed)
{
    for (int64_t i = 0; i < LARGEST; ++i) {
        seed = seed * 1103515245u + 12345u;
        store(data, dtype, i, (float)((int)(seed >> 16) % 3 - 1));
    }
}

static struct iris_blas_matrix laid_out(void *data, enum order order, int64_t rows, int64_t cols)
{
    struct iris_blas_matrix matrix = {(uint64_t)(uintptr_t)data, cols + PADDING, 1, 0};

    if (order == BY_COLUMNS) {
        matrix.stride_row = 1;
        matrix.stride_col = rows + PADDING;
    } else if (order == WITH_GAPS) {
        matrix.stride_row = 2 * cols;
        matrix.stride_col = 2;
    } else if (order == BACKWARDS) {
        matrix.stride_row = -cols;
    }
    matrix.stride_batch = (rows + PADDING) * (cols + PADDING);
    return matrix;
}

static int64_t at(const struct iris_blas_matrix *m, int64_t batch, int64_t i, int64_t j)
{
    return batch * m->stride_batch + i * m->stride_row + j * m->stride_col;
}

static float expected(const struct iris_blas_product *p, int64_t batch, int64_t i, int64_t j)
{
    float sum = p->bias != 0 ? load((void *)(uintptr_t)p->bias, p->dtype, j) : 0;

    for (int64_t k = 0; k < p->K; ++k)
        sum += load((void *)(uintptr_t)p->a.address, p->dtype, at(&p->a, batch, i, k)) *
               load((void *)(uintptr_t)p->b.address, p->dtype, at(&p->b, batch, k, j));
    return sum;
}

static bool contiguous(enum order order, int64_t rows, int64_t cols)
{
    return order <= BY_COLUMNS || (order == BACKWARDS && rows == 1) ||
           (order == WITH_GAPS && (rows == 1 || cols == 1));
}

static void check_product(struct gpu_device *gpu, struct iris_blas_product *p, bool possible)
{
    const size_t nbytes = sizeof storage[2];
    static unsigned char before[sizeof storage[2]];
    int64_t written = 0, changed = 0;
    bool done;

    for (int64_t i = 0; i < LARGEST; ++i)
        store(storage[2], p->dtype, i, -99);
    memcpy(before, storage[2], nbytes);
    CHECK(gpu_multiply((struct iris_device *)gpu, p, &done) == IRIS_OK);
    if (done != possible)
        (void)fprintf(stderr, "%dx%dx%d batch %d bias %d, strides A %d %d, B %d %d, D %d %d\n",
                      (int)p->M, (int)p->N, (int)p->K, p->batch, p->bias != 0, (int)p->a.stride_row,
                      (int)p->a.stride_col, (int)p->b.stride_row, (int)p->b.stride_col,
                      (int)p->d.stride_row, (int)p->d.stride_col);
    CHECK(done == possible);
    for (int64_t batch = 0; done && batch < p->batch; ++batch)
        for (int64_t i = 0; i < p->M; ++i)
            for (int64_t j = 0; j < p->N; ++j, ++written)
                CHECK(load((void *)(uintptr_t)p->d.address, p->dtype, at(&p->d, batch, i, j)) ==
                      expected(p, batch, i, j));
    for (int64_t i = 0; i < LARGEST; ++i)
        changed += load(storage[2], p->dtype, i) != -99;
    CHECK(changed == written);
}

static void check_orders(struct gpu_device *gpu, enum iris_dtype dtype, int64_t M, int64_t N,
                         int64_t K)
{
    for (int orders = 0; orders < ORDERS * ORDERS * ORDERS; ++orders)
        for (int batch = 1; batch <= 3; batch += 2)
            for (int with_bias = 0; with_bias < 2; ++with_bias) {
                const enum order a = orders % ORDERS, b = orders / ORDERS % ORDERS;
                const enum order d = orders / ORDERS / ORDERS;
                /* Rows that run backwards start at the end. */
                struct iris_blas_product p = {
                    .dtype = dtype,
                    .M = M,
                    .N = N,
                    .K = K,
                    .batch = batch,
                    .a = laid_out(storage[0] + (a == BACKWARDS ? 4000 : 0), a, M, K),
                    .b = laid_out(storage[1] + (b == BACKWARDS ? 4000 : 0), b, K, N),
                    .d = laid_out(storage[2] + (d == BACKWARDS ? 4000 : 0), d, M, N),
                    .bias = with_bias ? (uint64_t)(uintptr_t)storage[3] : 0,
                };
                const bool by_rows = (d == BY_ROWS || N == 1) || (d == BACKWARDS && M == 1);
                if (d == BY_COLUMNS && M == 1)
                    continue; /* by rows too, if N is 1 */
                check_product(gpu, &p,
                              contiguous(a, M, K) && contiguous(b, K, N) && contiguous(d, M, N) &&
                                  (!with_bias || by_rows));
            }
}

int main(int argc, char **argv)
{
    static struct gpu_driver driver = {.context_get = here, .get_device = device_here};
    static struct gpu_device gpu = {.driver = &driver};
    struct iris_device *const device = (struct iris_device *)&gpu;
    void *library;
    int *asked;
    int before;

    CHECK(argc == 3);
    driver.platform = strcmp(argv[2], "hip") == 0 ? GPU_HIP : GPU_CUDA;
    CHECK(!gpu_has_blas(device)); /* not in the process */
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    asked = dlsym(library, "stand_in_asked");
    CHECK(gpu_has_blas(device));
    for (enum iris_dtype dtype = IRIS_DTYPE_F32; dtype <= IRIS_DTYPE_BF16; ++dtype) {
        for (unsigned i = 0; i < 4; ++i)
            fill(storage[i], dtype, i + 1);
        check_orders(&gpu, dtype, 5, 7, 11);
        check_orders(&gpu, dtype, 1, 9, 4);
        check_orders(&gpu, dtype, 6, 1, 3);
    }
    fill(storage[0], IRIS_DTYPE_F32, 5);
    fill(storage[1], IRIS_DTYPE_F32, 6);
    struct iris_blas_product p = {.dtype = IRIS_DTYPE_F32,
                                  .M = 4,
                                  .N = 5,
                                  .K = 13,
                                  .batch = 1,
                                  .a = laid_out(storage[0], BY_ROWS, 4, 13),
                                  .b = laid_out(storage[1], BY_ROWS, 13, 5),
                                  .d = laid_out(storage[2], BY_ROWS, 4, 5)};
    check_product(&gpu, &p, false); /* it has no algorithm for it */
    p.K = 17;
    p.a = laid_out(storage[0], BY_ROWS, 4, 17);
    check_product(&gpu, &p, false); /* it refuses */
    p.K = 6;
    check_product(&gpu, &p, true);
    before = *asked;
    for (int i = 0; i < 3; ++i)
        check_product(&gpu, &p, true);
    CHECK(*asked == before);
    p.a.address += 4; /* less aligned: another question to cuBLASLt */
    check_product(&gpu, &p, true);
    p.M = INT64_C(1) << 31;
    CHECK(gpu_multiply(device, &p, &(bool){true}) == IRIS_OK);
    gpu_blas_destroy(gpu.blas);
    CHECK(*(int *)dlsym(library, "stand_in_alive") == 0);
    return 0;
}
