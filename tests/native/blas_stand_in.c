/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A library with the entry points of cuBLASLt, or with HIP of hipBLASLt, that gpu_blas.c uses, over
 * host memory, with loops. Numbers are those of the libraries' headers, written down here a second
 * time. Refuses what it is not told in the way the headers ask for.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef HIP
#define NAME(rest) hipblasLt##rest
enum { COMPUTE = 2, OP_N = 111, OP_T = 112 };
enum { TRANSA = 0, TRANSB = 1, EPILOGUE = 2, BIAS = 3, BIAS_TYPE = 4 };
enum { BATCH = 0, BATCH_STEP = 1, ALGORITHM = 24 };
#else
#define NAME(rest) cublasLt##rest
enum { COMPUTE = 68, OP_N = 0, OP_T = 1 };
enum { TRANSA = 3, TRANSB = 4, EPILOGUE = 7, BIAS = 8, BIAS_TYPE = 26 };
enum { BATCH = 5, BATCH_STEP = 6, ALGORITHM = 64 };
#endif
enum { OK = 0, INVALID = 7, NOT_SUPPORTED = 15 };

struct product {
    int transa, transb, epilogue, bias_type;
    const void *bias;
};
struct matrix {
    int type, batch;
    int64_t rows, cols, leading, step;
};
struct preference {
    uint64_t workspace;
    uint32_t reductions, alignment[4];
};

int stand_in_alive; /* objects that have been made and not destroyed */
int stand_in_asked; /* choices */

#define LIVES(type)                                                                                \
    do {                                                                                           \
        *out = calloc(1, sizeof(struct type));                                                     \
        ++stand_in_alive;                                                                          \
    } while (0)

static int end(void *object)
{
    free(object);
    --stand_in_alive;
    return OK;
}

int NAME(Create)(void **out)
{
    LIVES(product);
    return OK;
}

int NAME(Destroy)(void *handle)
{
    return end(handle);
}

int NAME(MatmulDescCreate)(void **out, int compute, int scale)
{
    if (compute != COMPUTE || scale != 0)
        return INVALID;
    LIVES(product);
    *(struct product *)*out = (struct product){.transa = OP_N, .transb = OP_N, .epilogue = 1};
    return OK;
}

int NAME(MatmulDescDestroy)(void *product)
{
    return end(product);
}

int NAME(MatmulDescSetAttribute)(struct product *product, int attribute, const void *value,
                                 size_t nbytes)
{
    void *target = attribute == TRANSA      ? &product->transa
                   : attribute == TRANSB    ? &product->transb
                   : attribute == EPILOGUE  ? &product->epilogue
                   : attribute == BIAS_TYPE ? &product->bias_type
                   : attribute == BIAS      ? (void *)&product->bias
                                            : NULL;

    if (target == NULL || nbytes != (attribute == BIAS ? 8 : 4))
        return INVALID;
    memcpy(target, value, nbytes);
    return OK;
}

int NAME(MatrixLayoutCreate)(void **out, int type, uint64_t rows, uint64_t cols, int64_t leading)
{
    if (leading < (int64_t)rows)
        return INVALID;
    LIVES(matrix);
    *(struct matrix *)*out = (struct matrix){
        .type = type, .batch = 1, .rows = (int64_t)rows, .cols = (int64_t)cols, .leading = leading};
    return OK;
}

int NAME(MatrixLayoutDestroy)(void *matrix)
{
    return end(matrix);
}

int NAME(MatrixLayoutSetAttribute)(struct matrix *matrix, int attribute, const void *value,
                                   size_t nbytes)
{
    if (attribute == BATCH && nbytes == 4)
        memcpy(&matrix->batch, value, 4);
    else if (attribute == BATCH_STEP && nbytes == 8)
        memcpy(&matrix->step, value, 8);
    else
        return INVALID;
    return OK;
}

int NAME(MatmulPreferenceCreate)(void **out)
{
    LIVES(preference);
    return OK;
}

int NAME(MatmulPreferenceDestroy)(void *preference)
{
    return end(preference);
}

int NAME(MatmulPreferenceSetAttribute)(struct preference *preference, int attribute,
                                       const void *value, size_t nbytes)
{
    if (attribute == 1 && nbytes == 8)
        memcpy(&preference->workspace, value, 8);
#ifndef HIP
    else if (attribute == 3 && nbytes == 4)
        memcpy(&preference->reductions, value, 4);
    else if (attribute >= 5 && attribute <= 8 && nbytes == 4)
        memcpy(&preference->alignment[attribute - 5], value, 4);
#endif
    else
        return INVALID;
    return OK;
}

static int fits(const struct product *p, const struct matrix *a, const struct matrix *b,
                const struct matrix *d)
{
    const int64_t m = p->transa == OP_T ? a->cols : a->rows;
    const int64_t k = p->transa == OP_T ? a->rows : a->cols;
    const int64_t n = p->transb == OP_T ? b->rows : b->cols;

    return m == d->rows && n == d->cols && k == (p->transb == OP_T ? b->cols : b->rows) &&
           a->type == d->type && b->type == d->type && a->batch == d->batch &&
           b->batch == d->batch &&
           (p->epilogue == 1 || (p->epilogue == 4 && p->bias != NULL && p->bias_type == d->type));
}

/* With K 13 it has no algorithm; with K 17 the one it gives will be refused. */
int NAME(MatmulAlgoGetHeuristic)(void *handle, struct product *product, struct matrix *a,
                                 struct matrix *b, struct matrix *c, struct matrix *d,
                                 struct preference *preference, int wanted, void *choices,
                                 int *count)
{
    ++stand_in_asked;
    if (handle == NULL || c != d || wanted != 1 || !fits(product, a, b, d))
        return INVALID;
#ifndef HIP
    for (int i = 0; i < 4; ++i)
        if (preference->alignment[i] == 0)
            return INVALID;
    if (preference->reductions != 2)
        return INVALID;
#endif
    *count = (product->transa == OP_T ? a->rows : a->cols) != 13;
    memset(choices, 0x5a, ALGORITHM);
    memcpy((char *)choices + ALGORITHM, &preference->workspace, 8);
    return OK;
}

static float load(const void *data, int type, int64_t i)
{
    uint32_t bits;
    float value;

    if (type == 0)
        return ((const float *)data)[i];
    if (type == 2)
        return (float)((const _Float16 *)data)[i];
    bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    memcpy(&value, &bits, 4);
    return value;
}

static void store(void *data, int type, int64_t i, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    if (type == 0)
        ((float *)data)[i] = value;
    else if (type == 2)
        ((_Float16 *)data)[i] = (_Float16)value;
    else
        ((uint16_t *)data)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float element(const void *data, const struct matrix *m, int op, int64_t batch, int64_t i,
                     int64_t j)
{
    const int64_t row = op == OP_T ? j : i, col = op == OP_T ? i : j;

    return load(data, m->type, batch * m->step + col * m->leading + row);
}

/* What the stream holds comes first, where there is a driver that has streams: the emulated one. */
static void wait_for(void *stream)
{
    void *driver = dlopen("libamdhip64.so", RTLD_NOW | RTLD_NOLOAD);
    int (*synchronize)(void *) = NULL;

    if (driver != NULL)
        *(void **)&synchronize = dlsym(driver, "hipStreamSynchronize");
    if (synchronize != NULL)
        (void)synchronize(stream);
}

int stand_in_multiplied;

int NAME(Matmul)(void *handle, struct product *p, const float *alpha, const void *A,
                 struct matrix *a, const void *B, struct matrix *b, const float *beta,
                 const void *C, struct matrix *c, void *D, struct matrix *d,
                 const unsigned char *algorithm, void *workspace, size_t nbytes, void *stream)
{
    const int64_t K = p->transa == OP_T ? a->rows : a->cols;

    if (handle == NULL || C != D || c != d || *alpha != 1.0f || *beta != 0.0f ||
        !fits(p, a, b, d) || algorithm[0] != 0x5a || algorithm[ALGORITHM - 1] != 0x5a || K == 17 ||
        (workspace == NULL) != (nbytes == 0))
        return NOT_SUPPORTED;
    ++stand_in_multiplied;
    wait_for(stream);
    for (int64_t batch = 0; batch < d->batch; ++batch)
        for (int64_t i = 0; i < d->rows; ++i)
            for (int64_t j = 0; j < d->cols; ++j) {
                float sum = p->epilogue == 4 ? load(p->bias, d->type, i) : 0;
                for (int64_t k = 0; k < K; ++k)
                    sum += element(A, a, p->transa, batch, i, k) *
                           element(B, b, p->transb, batch, k, j);
                store(D, d->type, batch * d->step + j * d->leading + i, sum);
            }
    return OK;
}
