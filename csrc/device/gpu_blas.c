/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products by the library of the GPU's vendor.
 *
 * The library thinks in columns. A result whose rows are contiguous is, read by columns, its
 * transpose: D' = B' A', with the bias along the transpose's columns, which is where the library's
 * epilogue adds one. A result whose columns are contiguous is taken as it is, without a bias.
 *
 * How a product is best done the library says for a shape; it is asked once, and the answer kept
 * with the descriptions it was asked about. Nothing here allocates device memory or waits, so that
 * products can be captured into graphs.
 *
 * Sums are fp32 to the end: where the library divides K it adds in fp32 too.
 */
#include "gpu_blas.h"

#include <stdlib.h>
#include <string.h>

#include "blas_library.h"
#include "gpu_device.h"

enum { WORKSPACE_NBYTES = 32 << 20 }; /* as much as its fastest algorithms on Hopper ask for */
enum { PLANS = 64, MOST_ALIGNED = 256 };
/* Of both libraries. */
enum { TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14, EPILOGUE_NONE = 1, EPILOGUE_BIAS = 4 };
enum { REDUCE_IN_COMPUTE_TYPE = 2 };

/* A matrix as the library is told of it: by columns, `leading` elements apart. */
struct stored {
    int64_t rows, cols, leading, batch_step;
};

/* What an answer is about. Compared by bytes: zeroed before it is filled. */
struct question {
    struct stored a, b, d;
    int64_t workspace_nbytes;
    int32_t type, batch, transpose_a, transpose_b, has_bias;
    int32_t alignment[4]; /* of A, B, D and the bias; bytes */
    int32_t pad;
};

struct plan {
    struct question question;
    bool asked, possible;
    void *product, *a, *b, *d;
    unsigned char algorithm[BLAS_ALGORITHM_NBYTES];
};

struct gpu_blas {
    const struct blas_library *library;
    void *handle;
    pthread_mutex_t lock; /* guards the plans, whose descriptions hold the bias of a call */
    struct plan plans[PLANS];
};

/* ---- plans; under the lock ---- */

static void forget(const struct blas_library *library, struct plan *plan)
{
    if (plan->product != NULL)
        (void)library->product_destroy(plan->product);
    if (plan->a != NULL)
        (void)library->matrix_destroy(plan->a);
    if (plan->b != NULL)
        (void)library->matrix_destroy(plan->b);
    if (plan->d != NULL)
        (void)library->matrix_destroy(plan->d);
    *plan = (struct plan){0};
}

static bool describe_matrix(const struct blas_library *library, const struct question *question,
                            const struct stored *stored, void **out)
{
    const struct blas_numbers *numbers = library->numbers;

    if (library->matrix_create(out, question->type, (uint64_t)stored->rows, (uint64_t)stored->cols,
                               stored->leading) != 0)
        return false;
    return question->batch == 1 ||
           (library->matrix_set(*out, numbers->batch_count, &question->batch,
                                sizeof question->batch) == 0 &&
            library->matrix_set(*out, numbers->batch_step, &stored->batch_step,
                                sizeof stored->batch_step) == 0);
}

static bool set_bias(const struct blas_library *library, struct plan *plan, uint64_t bias)
{
    const void *pointer = (const void *)(uintptr_t)bias;

    return library->product_set(plan->product, library->numbers->bias_pointer, &pointer,
                                sizeof pointer) == 0;
}

static bool describe_product(const struct blas_library *library, struct plan *plan, uint64_t bias)
{
    const struct blas_numbers *numbers = library->numbers;
    const struct question *question = &plan->question;
    const int32_t a = question->transpose_a ? numbers->transpose : numbers->none;
    const int32_t b = question->transpose_b ? numbers->transpose : numbers->none;
    const uint32_t epilogue = question->has_bias ? EPILOGUE_BIAS : EPILOGUE_NONE;

    if (library->product_create(&plan->product, numbers->compute_f32, TYPE_F32) != 0 ||
        library->product_set(plan->product, numbers->transpose_a, &a, sizeof a) != 0 ||
        library->product_set(plan->product, numbers->transpose_b, &b, sizeof b) != 0 ||
        library->product_set(plan->product, numbers->epilogue, &epilogue, sizeof epilogue) != 0)
        return false;
    return !question->has_bias ||
           (library->product_set(plan->product, numbers->bias_type, &question->type,
                                 sizeof question->type) == 0 &&
            set_bias(library, plan, bias));
}

static bool describe_preference(const struct blas_library *library, const struct question *question,
                                void *preference)
{
    const struct blas_numbers *numbers = library->numbers;
    const uint64_t nbytes = (uint64_t)question->workspace_nbytes;
    const uint32_t reductions = REDUCE_IN_COMPUTE_TYPE;
    const int of[] = {0, 1, 2, 2}; /* A, B, C, which is D, and D */

    if (library->preference_set(preference, numbers->workspace_nbytes, &nbytes, sizeof nbytes) != 0)
        return false;
    if (numbers->reductions >= 0 && library->preference_set(preference, numbers->reductions,
                                                            &reductions, sizeof reductions) != 0)
        return false;
    for (int i = 0; numbers->alignment_a >= 0 && i < 4; ++i) {
        const uint32_t alignment = (uint32_t)question->alignment[of[i]];
        if (library->preference_set(preference, numbers->alignment_a + i, &alignment,
                                    sizeof alignment) != 0)
            return false;
    }
    return true;
}

static bool ask(struct gpu_blas *blas, struct plan *plan)
{
    const struct blas_library *library = blas->library;
    unsigned char choice[BLAS_CHOICE_NBYTES] = {0};
    void *preference = NULL;
    int count = 0;
    bool chosen;

    if (library->preference_create(&preference) != 0)
        return false;
    chosen = describe_preference(library, &plan->question, preference) &&
             library->choose(blas->handle, plan->product, plan->a, plan->b, plan->d, plan->d,
                             preference, 1, choice, &count) == 0 &&
             count == 1;
    (void)library->preference_destroy(preference);
    memcpy(plan->algorithm, choice, library->numbers->algorithm_nbytes);
    return chosen;
}

static uint64_t hash(const struct question *question)
{
    const unsigned char *bytes = (const unsigned char *)question;
    uint64_t value = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < sizeof *question; ++i)
        value = (value ^ bytes[i]) * UINT64_C(0x100000001b3);
    return value ^ value >> 32;
}

/* The plan for the question; whoever had its place before goes. */
static struct plan *plan_for(struct gpu_blas *blas, const struct question *question, uint64_t bias)
{
    struct plan *plan = &blas->plans[hash(question) % PLANS];

    if (plan->asked && memcmp(&plan->question, question, sizeof *question) == 0)
        return plan;
    forget(blas->library, plan);
    plan->question = *question;
    plan->asked = true;
    plan->possible = describe_matrix(blas->library, question, &question->a, &plan->a) &&
                     describe_matrix(blas->library, question, &question->b, &plan->b) &&
                     describe_matrix(blas->library, question, &question->d, &plan->d) &&
                     describe_product(blas->library, plan, bias) && ask(blas, plan);
    return plan;
}

/* ---- products ---- */

/* How a matrix of this rank's, (rows, cols), is stored: by rows, which for the library is its
 * transpose, or by columns. false: neither of them is contiguous. */
static bool find_order(const struct iris_blas_matrix *matrix, int64_t rows, int64_t cols,
                       bool *by_rows, struct stored *out)
{
    *by_rows = (matrix->stride_col == 1 || cols == 1) && (rows == 1 || matrix->stride_row >= cols);
    if (*by_rows) {
        *out = (struct stored){cols, rows, rows == 1 ? cols : matrix->stride_row,
                               matrix->stride_batch};
        return true;
    }
    *out = (struct stored){rows, cols, cols == 1 ? rows : matrix->stride_col, matrix->stride_batch};
    return (matrix->stride_row == 1 || rows == 1) && (cols == 1 || matrix->stride_col >= rows);
}

static int32_t alignment_of(uint64_t address)
{
    const uint64_t lowest = address & (~address + 1);

    return address == 0 || lowest > MOST_ALIGNED ? MOST_ALIGNED : (int32_t)lowest;
}

/* What the library is to do, and whether its A is the caller's B: for a result by rows. false: the
 * library cannot. */
static bool make_question(const struct iris_blas_product *product, struct question *out,
                          bool *swapped)
{
    bool a_by_rows, b_by_rows, d_by_rows;
    struct stored a, b, d;

    memset(out, 0, sizeof *out);
    if (product->M > INT32_MAX || product->N > INT32_MAX || product->K > INT32_MAX ||
        !find_order(&product->a, product->M, product->K, &a_by_rows, &a) ||
        !find_order(&product->b, product->K, product->N, &b_by_rows, &b) ||
        !find_order(&product->d, product->M, product->N, &d_by_rows, &d) ||
        (product->bias != 0 && !d_by_rows))
        return false;
    *swapped = d_by_rows;
    out->type = product->dtype == IRIS_DTYPE_F32   ? TYPE_F32
                : product->dtype == IRIS_DTYPE_F16 ? TYPE_F16
                                                   : TYPE_BF16;
    out->batch = product->batch;
    out->has_bias = product->bias != 0;
    out->workspace_nbytes = (int64_t)product->workspace_nbytes;
    out->a = d_by_rows ? b : a;
    out->b = d_by_rows ? a : b;
    out->d = d;
    /* D' = B' A': what lies by rows is there as it is wanted. D = A B: what lies by columns. */
    out->transpose_a = d_by_rows ? !b_by_rows : a_by_rows;
    out->transpose_b = d_by_rows ? !a_by_rows : b_by_rows;
    out->alignment[0] = alignment_of(d_by_rows ? product->b.address : product->a.address);
    out->alignment[1] = alignment_of(d_by_rows ? product->a.address : product->b.address);
    out->alignment[2] = alignment_of(product->d.address);
    out->alignment[3] = alignment_of(product->bias);
    return true;
}

static bool multiply(struct gpu_blas *blas, const struct iris_blas_product *product)
{
    const float one = 1.0f, zero = 0.0f;
    struct question question;
    struct plan *plan;
    bool swapped, done;

    if (!make_question(product, &question, &swapped))
        return false;
    pthread_mutex_lock(&blas->lock);
    plan = plan_for(blas, &question, product->bias);
    done = plan->possible && (product->bias == 0 || set_bias(blas->library, plan, product->bias));
    if (done) {
        const void *a = (const void *)(uintptr_t)product->a.address;
        const void *b = (const void *)(uintptr_t)product->b.address;
        void *d = (void *)(uintptr_t)product->d.address;
        done = blas->library->multiply(blas->handle, plan->product, &one, swapped ? b : a, plan->a,
                                       swapped ? a : b, plan->b, &zero, d, plan->d, d, plan->d,
                                       plan->algorithm, product->workspace,
                                       product->workspace_nbytes, product->stream) == 0;
        plan->possible = done; /* what it has refused once it will refuse again */
    }
    pthread_mutex_unlock(&blas->lock);
    return done;
}

enum iris_status gpu_multiply(struct iris_device *device, const struct iris_blas_product *product,
                              bool *done)
{
    struct gpu_device *gpu = as_gpu(device);
    struct gpu_scope scope;

    IRIS_TRY(gpu_enter(gpu, &scope));
    *done = multiply(gpu->blas, product);
    gpu_leave(gpu, &scope);
    return IRIS_OK;
}

/* ---- life ---- */

static struct gpu_blas *create(const struct blas_library *library)
{
    struct gpu_blas *blas = library != NULL ? calloc(1, sizeof *blas) : NULL;

    if (blas == NULL || library->create(&blas->handle) != 0) {
        free(blas);
        return NULL;
    }
    blas->library = library;
    pthread_mutex_init(&blas->lock, NULL);
    return blas;
}

bool gpu_has_blas(struct iris_device *device)
{
    struct gpu_device *gpu = as_gpu(device);
    struct gpu_scope scope;

    if (gpu->blas == NULL && gpu_enter(gpu, &scope) == IRIS_OK) {
        gpu->blas = create(blas_library_find(gpu->driver->platform));
        gpu_leave(gpu, &scope);
    }
    return gpu->blas != NULL;
}

void gpu_blas_destroy(struct gpu_blas *blas)
{
    if (blas == NULL)
        return;
    for (size_t i = 0; i < PLANS; ++i)
        forget(blas->library, &blas->plans[i]);
    (void)blas->library->destroy(blas->handle);
    pthread_mutex_destroy(&blas->lock);
    free(blas);
}

/* Ordinary memory: nobody but this GPU touches it. */
static enum iris_status allocate(const struct gpu_device *gpu, void **data)
{
    if (gpu->driver->platform == GPU_CUDA)
        return GPU_CALL(gpu->driver, memory_allocate, data, WORKSPACE_NBYTES);
    return GPU_CALL(gpu->driver, memory_allocate_flags, data, WORKSPACE_NBYTES, 0);
}

enum iris_status gpu_blas_workspace(struct iris_device *device, struct iris_memory *out)
{
    struct gpu_device *gpu = as_gpu(device);
    struct iris_memory memory = {.device = device, .nbytes = WORKSPACE_NBYTES};
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status, allocate(gpu, &memory.data));
    if (status != IRIS_OK)
        return status;
    atomic_fetch_add(&gpu->references, 1); /* which gpu_memory_release drops */
    *out = memory;
    return IRIS_OK;
}
