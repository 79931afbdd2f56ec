/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The whole core, without Python, with the ranks as threads of one process: every operation in
 * every variant, repeatedly, against a plain reference. Shared memory is then mapped once, so a
 * thread sanitizer sees every signal and every access it orders.
 *
 * Build (from the repository's root; add -fsanitize=thread or -fsanitize=address,undefined):
 *     the csrc/runtime, csrc/device and csrc/kernels sources with this file, -pthread
 * Run: test_ranks_as_threads [world sizes ...]      default: 1 2 3 4
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/iris.h"

static int failures;
static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            pthread_mutex_lock(&report_lock);                                                      \
            ++failures;                                                                            \
            fprintf(stderr, "FAIL %s:%d: ", __FILE__, __LINE__);                                   \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            if (failures >= 50)                                                                    \
                _exit(1);                                                                          \
            pthread_mutex_unlock(&report_lock);                                                    \
        }                                                                                          \
    } while (0)

#define MUST(call) CHECK((call) == IRIS_OK, "%s: %s", #call, iris_error_last()->message)

struct rank_args {
    int rank, world;
    char run_key[64];
};

/* Small integers, so that every sum is exact in fp32 whatever the order. */
static float element(int rank, int matrix, int64_t index, int call)
{
    const uint32_t mixed = (uint32_t)(index * 2654435761u + (uint32_t)(rank * 97 + matrix * 31) +
                                      (uint32_t)call * 7919u);
    return (float)((int)(mixed >> 7 & 7) - 3);
}

static struct iris_tensor matrix(void *data, int64_t rows, int64_t cols)
{
    struct iris_tensor t = {.data = data, .ndim = 2, .on_cpu = true, .dtype = IRIS_DTYPE_F32};

    t.shape[0] = rows;
    t.shape[1] = cols;
    t.stride[0] = cols;
    t.stride[1] = 1;
    return t;
}

static float *filled(int rank, int which, int64_t n, int call)
{
    float *data = malloc((size_t)(n > 0 ? n : 1) * sizeof *data);

    for (int64_t i = 0; i < n; ++i)
        data[i] = element(rank, which, i, call);
    return data;
}

/* Other calls of an operation have tiles, and take turns with these on one workspace. */
static const struct iris_config plain = {.form = IRIS_FORM_PLAIN, .num_sms = 2};

static void matmul(struct iris_context *ctx, const struct rank_args *self,
                   enum iris_variant variant, int64_t M, int64_t N, int64_t K, bool on_heap,
                   bool async_op, int call)
{
    const struct iris_config config = {.block_size_m = 16,
                                       .block_size_n = 16,
                                       .block_size_k = 8,
                                       .num_sms = 2,
                                       .variant = variant};
    const bool in_steps = variant == IRIS_VARIANT_TWO_SHOT && call % 2 == 1;
    struct iris_op_options options = {.config = in_steps ? &plain : &config, .async_op = async_op};
    struct iris_allocation *allocation = NULL, *local = NULL, *apart = NULL;
    float *a = filled(self->rank, 0, M * K, call), *b = filled(self->rank, 1, K * N, call);
    float *bias = filled(0, 2, N, call), *c;
    const struct iris_tensor A = matrix(a, M, K), B = matrix(b, K, N), V = matrix(bias, 1, N);

    MUST(iris_allocation_create(ctx, (size_t)(M * N) * sizeof *c, &allocation));
    if (!on_heap && call % 2 == 0) { /* in the arena, elsewhere on each rank */
        MUST(iris_allocation_create_local(ctx, 1 + (size_t)self->rank * 1000, NULL, &apart));
        MUST(iris_allocation_create_local(ctx, (size_t)(M * N) * sizeof *c, NULL, &local));
        c = iris_allocation_data(local);
    } else {
        c = on_heap ? iris_allocation_data(allocation) : malloc((size_t)(M * N) * sizeof *c);
    }
    for (int64_t i = 0; i < M * N; ++i)
        c[i] = NAN;
    const struct iris_tensor C = matrix(c, M, N);
    /* A peer may write c once this rank has arrived, not before: no barrier here. */
    MUST(iris_matmul_all_reduce(ctx, &C, &A, &B, &V, &options));
    for (int64_t i = 0; i < M; ++i) {
        for (int64_t j = 0; j < N; ++j) {
            float want = bias[j];
            for (int r = 0; r < self->world; ++r)
                for (int64_t k = 0; k < K; ++k)
                    want += element(r, 0, i * K + k, call) * element(r, 1, k * N + j, call);
            if (c[i * N + j] != want) {
                CHECK(false,
                      "matmul_all_reduce %s %lldx%lldx%lld call %d rank %d: (%lld, %lld): "
                      "expected %g, got %g",
                      iris_variant_name(variant), (long long)M, (long long)N, (long long)K, call,
                      self->rank, (long long)i, (long long)j, (double)want, (double)c[i * N + j]);
                i = M;
                break;
            }
        }
    }
    if (!on_heap && local == NULL)
        free(c);
    iris_allocation_release(allocation);
    iris_allocation_release(local);
    iris_allocation_release(apart);
    free(a);
    free(b);
    free(bias);
}

/* matmul_reduce_scatter by rows and by columns, M or N of them for each rank, and
 * matmul_all_gather; results off the heap and on it. */
static void shared_products(struct iris_context *ctx, const struct rank_args *self, int64_t M,
                            int64_t N, int64_t K, int call)
{
    const struct iris_config config = {.block_size_m = 16, .block_size_n = 16, .num_sms = 2};
    const struct iris_op_options options = {.config = call % 3 == 1 ? &plain : &config,
                                            .async_op = call % 2 == 0};
    const int64_t W = self->world;
    struct iris_allocation *allocation = NULL;
    int wrong = 0;

    MUST(iris_allocation_create(ctx, (size_t)(M * W * N) * sizeof(float), &allocation));
    for (int dim = 0; dim < 2; ++dim) {
        const int64_t rows = dim == 0 ? M * W : M, cols = dim == 0 ? N : N * W;
        float *a = filled(self->rank, 0, rows * K, call);
        float *b = filled(self->rank, 1, K * cols, call), *c = malloc((size_t)(M * N) * sizeof *c);
        const struct iris_tensor A = matrix(a, rows, K), B = matrix(b, K, cols),
                                 C = matrix(c, M, N);

        MUST(iris_matmul_reduce_scatter(ctx, &C, &A, &B, NULL, dim, &options));
        for (int64_t i = 0; i < M * N; ++i) {
            const int64_t row = i / N + (dim == 0 ? self->rank * M : 0);
            const int64_t col = i % N + (dim == 1 ? self->rank * N : 0);
            float want = 0;
            for (int r = 0; r < W; ++r)
                for (int64_t k = 0; k < K; ++k)
                    want += element(r, 0, row * K + k, call) * element(r, 1, k * cols + col, call);
            wrong += c[i] != want;
        }
        free(a);
        free(b);
        free(c);
    }
    CHECK(wrong == 0, "matmul_reduce_scatter call %d rank %d: %d wrong", call, self->rank, wrong);

    float *a = filled(self->rank, 0, M * K, call), *b = filled(self->rank, 1, K * N, call);
    float *c = call % 3 == self->rank % 3 ? malloc((size_t)(M * W * N) * sizeof *c)
                                          : iris_allocation_data(allocation);
    const struct iris_tensor A = matrix(a, M, K), B = matrix(b, K, N), C = matrix(c, M * W, N);

    MUST(iris_matmul_all_gather(ctx, &C, &A, &B, NULL, &options));
    for (int64_t i = 0; i < M * W * N; ++i) {
        const int r = (int)(i / N / M);
        float want = 0;
        for (int64_t k = 0; k < K; ++k)
            want +=
                element(r, 0, (i / N - r * M) * K + k, call) * element(r, 1, k * N + i % N, call);
        wrong += c[i] != want;
    }
    CHECK(wrong == 0, "matmul_all_gather call %d rank %d: %d wrong", call, self->rank, wrong);
    if (c != iris_allocation_data(allocation))
        free(c);
    free(a);
    free(b);
    iris_allocation_release(allocation);
}

/* A whole number below 2,048 as float16. */
static uint16_t half_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    if (value == 0)
        return 0;
    return (uint16_t)((bits >> 31) << 15 | ((bits >> 23 & 0xff) - 112) << 10 |
                      (bits >> 13 & 0x3ff));
}

static uint16_t *halves(int rank, int which, int64_t n, int call)
{
    uint16_t *data = malloc((size_t)n * sizeof *data);

    for (int64_t i = 0; i < n; ++i)
        data[i] = half_of(element(rank, which, i, call));
    return data;
}

/* matmul_all_reduce in the form DECODE, over one hop and over two; K so small that sums are exact.
 */
static void few_rows(struct iris_context *ctx, const struct rank_args *self, int64_t M, int64_t N,
                     int call)
{
    enum { K = 6 };
    const struct iris_config config = {
        .form = IRIS_FORM_DECODE,
        .variant = call % 2 == 0 ? IRIS_VARIANT_LL : IRIS_VARIANT_LL_TWO_SHOT,
        .num_sms = 2,
    };
    const struct iris_op_options options = {.config = &config};
    uint16_t *a = halves(self->rank, 0, M * K, call), *b = halves(self->rank, 1, K * N, call);
    uint16_t *c = calloc((size_t)(M * N), sizeof *c);
    struct iris_tensor A = matrix(a, M, K), B = matrix(b, K, N), C = matrix(c, M, N);
    int wrong = 0;

    A.dtype = B.dtype = C.dtype = IRIS_DTYPE_F16;
    MUST(iris_matmul_all_reduce(ctx, &C, &A, &B, NULL, &options));
    for (int64_t i = 0; i < M * N; ++i) {
        float want = 0;
        for (int r = 0; r < self->world; ++r)
            for (int64_t k = 0; k < K; ++k)
                want += element(r, 0, i / N * K + k, call) * element(r, 1, k * N + i % N, call);
        wrong += c[i] != half_of(want);
    }
    CHECK(wrong == 0, "few rows %lldx%lld call %d rank %d: %d wrong", (long long)M, (long long)N,
          call, self->rank, wrong);
    free(a);
    free(b);
    free(c);
}

/* all_gather_matmul and its overlapped form along both dimensions, in pieces of a few columns. */
static void joined_operands(struct iris_context *ctx, const struct rank_args *self, int64_t M,
                            int64_t N, int64_t K, int call)
{
    const struct iris_config config = {.block_size_m = 16,
                                       .block_size_n = 16,
                                       .block_size_k = 4,
                                       .num_sms = 2,
                                       .k_per_flag = 1 + call % 2,
                                       .m_contiguous = call % 3 == 0};
    const struct iris_op_options options = {.config = call % 4 == 1 ? &plain : &config};
    const int64_t W = self->world;
    int wrong = 0;

    for (int dim = 0; dim < 2; ++dim) {
        const int64_t rows = dim == 0 ? M * W : M, inner = dim == 1 ? K * W : K;
        float *a = filled(self->rank, 0, M * K, call), *b = filled(self->rank, 1, inner * N, call);
        float *c = malloc((size_t)(rows * N) * sizeof *c);
        float *all = malloc((size_t)(rows * inner) * sizeof *all);
        const struct iris_tensor A = matrix(a, M, K), B = matrix(b, inner, N),
                                 C = matrix(c, rows, N), joined = matrix(all, rows, inner);
        const struct iris_gather_tensors tensors = {.C = &C, .A = &A, .B = &B, .joined = &joined};

        MUST(iris_all_gather_matmul(ctx, &tensors, dim, call % 2 == 0, &options));
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t k = 0; k < inner; ++k) {
                const int r = (int)(dim == 0 ? i / M : k / K);
                wrong += all[i * inner + k] != element(r, 0, i % M * K + k % K, call);
            }
            for (int64_t j = 0; j < N; ++j) {
                float want = 0;
                for (int64_t k = 0; k < inner; ++k)
                    want += element((int)(dim == 0 ? i / M : k / K), 0, i % M * K + k % K, call) *
                            element(self->rank, 1, k * N + j, call);
                wrong += c[i * N + j] != want;
            }
        }
        free(a);
        free(b);
        free(c);
        free(all);
    }
    CHECK(wrong == 0, "all_gather_matmul call %d rank %d: %d wrong", call, self->rank, wrong);
}

static void collectives(struct iris_context *ctx, const struct rank_args *self, int64_t n, int call)
{
    const int W = self->world;
    struct iris_op_options options = {0};
    float *in = filled(self->rank, 3, n * W, call), *out = calloc((size_t)(n * W + 1), sizeof *out);
    const struct iris_tensor all_in = matrix(in, 1, n * W), part_in = matrix(in, 1, n);
    const struct iris_tensor all_out = matrix(out, 1, n * W), part_out = matrix(out, 1, n);

    for (int v = IRIS_VARIANT_ATOMIC; v < IRIS_VARIANT_COUNT; ++v) {
        const struct iris_config config = {.variant = (enum iris_variant)v,
                                           .block_size_n = v % 2 == 0 ? 64 : 0,
                                           .num_sms = v % 2 == 0 ? 0 : 2};
        options.config = &config;
        MUST(iris_all_reduce(ctx, &all_out, &all_in, &options));
        for (int64_t i = 0; i < n * W; ++i) {
            float want = 0;
            for (int r = 0; r < W; ++r)
                want += element(r, 3, i, call);
            CHECK(out[i] == want, "all_reduce %s, n %lld, element %lld",
                  iris_variant_name(config.variant), (long long)n, (long long)i);
        }
    }
    options.config = NULL;
    MUST(iris_reduce_scatter(ctx, &part_out, &all_in, &options));
    for (int64_t i = 0; i < n; ++i) {
        float want = 0;
        for (int r = 0; r < W; ++r)
            want += element(r, 3, self->rank * n + i, call);
        CHECK(out[i] == want, "reduce_scatter n %lld element %lld", (long long)n, (long long)i);
    }
    MUST(iris_all_gather(ctx, &all_out, &part_in, &options));
    for (int64_t i = 0; i < n * W; ++i)
        CHECK(out[i] == element((int)(i / n), 3, i % n, call), "all_gather n %lld element %lld",
              (long long)n, (long long)i);
    MUST(iris_all_to_all(ctx, &all_out, &all_in, &options));
    for (int64_t i = 0; i < n * W; ++i)
        CHECK(out[i] == element((int)(i / n), 3, self->rank * n + i % n, call),
              "all_to_all n %lld element %lld", (long long)n, (long long)i);
    MUST(iris_scatter(ctx, &part_out, &all_in, call % W, &options));
    for (int64_t i = 0; i < n; ++i)
        CHECK(out[i] == element(call % W, 3, self->rank * n + i, call), "scatter n %lld",
              (long long)n);
    MUST(iris_gather(ctx, &all_out, &part_in, call % W, &options));
    for (int64_t i = 0; self->rank == call % W && i < n * W; ++i)
        CHECK(out[i] == element((int)(i / n), 3, i % n, call), "gather n %lld", (long long)n);
    MUST(iris_reduce(ctx, &all_out, &all_in, call % W, &options));
    for (int64_t i = 0; self->rank == call % W && i < n * W; ++i) {
        float want = 0;
        for (int r = 0; r < W; ++r)
            want += element(r, 3, i, call);
        CHECK(out[i] == want, "reduce n %lld element %lld", (long long)n, (long long)i);
    }
    MUST(iris_broadcast(ctx, &all_in, call % W, &options));
    for (int64_t i = 0; i < n * W; ++i)
        CHECK(in[i] == element(call % W, 3, i, call), "broadcast n %lld element %lld", (long long)n,
              (long long)i);
    free(in);
    free(out);
}

static struct iris_tensor vector(void *data, int64_t n)
{
    return (struct iris_tensor){.data = data,
                                .ndim = 1,
                                .shape = {n},
                                .stride = {1},
                                .dtype = IRIS_DTYPE_F32,
                                .on_cpu = true};
}

/* Round a ring: even ranks send first, so that messages longer than the slots get through too. */
static void messages(struct iris_context *ctx, const struct rank_args *self, int64_t n, int call)
{
    const int W = self->world, right = (self->rank + 1) % W, left = (self->rank + W - 1) % W;
    int64_t sent[IRIS_MAX_RANKS], received[IRIS_MAX_RANKS], at = 0;
    float *in = filled(self->rank, 3, n * W, call), *out = malloc((size_t)(n * W) * sizeof *out);
    const struct iris_tensor message = vector(in, n), got = vector(out, n);
    struct iris_tensor dealt = vector(in, 0), swapped = vector(out, 0);

    for (int turn = 0; W > 1 && turn < 2; ++turn) {
        if (self->rank % 2 == turn)
            MUST(iris_send(ctx, &message, right, NULL));
        else
            MUST(iris_recv(ctx, &got, left, NULL));
    }
    for (int64_t i = 0; W > 1 && i < n; ++i)
        CHECK(out[i] == element(left, 3, i, call), "recv n %lld element %lld", (long long)n,
              (long long)i);
    {
        float *ring = malloc((size_t)n * sizeof *ring);
        const struct iris_tensor round_it = vector(ring, n);
        const struct iris_message messages[] = {{"recv_tensor", &round_it, left, true},
                                                {"send_tensor", &message, right, false}};

        MUST(iris_messages(ctx, IRIS_OP_SENDRECV, messages, 2, NULL));
        for (int64_t i = 0; i < n; ++i)
            CHECK(ring[i] == element(left, 3, i, call), "sendrecv n %lld element %lld",
                  (long long)n, (long long)i);
        free(ring);
    }
    for (int r = 0; r < W; ++r) { /* some of them nothing */
        sent[r] = (self->rank + 2 * r + call) % 3 * n / 2;
        received[r] = (r + 2 * self->rank + call) % 3 * n / 2;
        dealt.shape[0] += sent[r] = sent[r] < n ? sent[r] : n;
        swapped.shape[0] += received[r] = received[r] < n ? received[r] : n;
    }
    const struct iris_op_options options = {.output_sizes = received, .input_sizes = sent};
    MUST(iris_all_to_all(ctx, &swapped, &dealt, &options));
    for (int r = 0; r < W; ++r) {
        int64_t first = 0; /* of what r deals out to this rank */
        for (int to = 0; to < self->rank; ++to) {
            const int64_t size = (r + 2 * to + call) % 3 * n / 2;
            first += size < n ? size : n;
        }
        for (int64_t i = 0; i < received[r]; ++i)
            CHECK(out[at + i] == element(r, 3, first + i, call), "all_to_all_v n %lld from %d",
                  (long long)n, r);
        at += received[r];
    }
    free(in);
    free(out);
}

/* put, signal, wait: the words are semaphores, nothing else brings the ranks together. */
static void remote_memory(struct iris_context *ctx, const struct rank_args *self, int calls)
{
    enum { N = 5000 };
    const int W = self->world, right = (self->rank + 1) % W, left = (self->rank + W - 1) % W;
    struct iris_allocation *place = NULL, *words = NULL;

    MUST(iris_allocation_create(ctx, N * sizeof(float), &place));
    MUST(iris_allocation_create(ctx, 2 * sizeof(int32_t), &words));
    int32_t *word = iris_allocation_data(words);
    const float *arrived = iris_allocation_data(place);
    struct iris_tensor full = vector(word, 1), taken = vector(word + 1, 1);
    const struct iris_tensor target = vector(iris_allocation_data(place), N);

    full.dtype = taken.dtype = IRIS_DTYPE_I32;
    word[0] = word[1] = 0;
    MUST(iris_context_barrier(ctx, NULL));
    for (int call = 0; call < calls; ++call) {
        float *in = filled(self->rank, 3, N, call);
        const struct iris_tensor source = vector(in, N);

        MUST(iris_rma_put(ctx, &target, &source, right, NULL));
        MUST(iris_rma_signal(ctx, &full, right, 1, IRIS_SIGNAL_OP_ADD, NULL));
        MUST(iris_rma_wait(ctx, &full, 1, IRIS_COMPARE_GE, true, NULL));
        for (int64_t i = 0; i < N; ++i)
            CHECK(arrived[i] == element(left, 3, i, call), "put call %d element %lld", call,
                  (long long)i);
        MUST(iris_rma_signal(ctx, &taken, left, call + 1, IRIS_SIGNAL_OP_SET, NULL));
        MUST(iris_rma_wait(ctx, &taken, call + 1, IRIS_COMPARE_EQ, false, NULL));
        free(in);
    }
    MUST(iris_context_barrier(ctx, NULL));
    iris_allocation_release(words);
    iris_allocation_release(place);
}

/* Back-to-back calls on one workspace with nothing between them that would bring the ranks
 * together: no allocation, no barrier, no wait for the peers' completion. What keeps a fast rank
 * from overwriting what a slow one still reads is the protocol alone. Runs across the wrap. */
static void reuse(struct iris_context *ctx, const struct rank_args *self, int calls)
{
    enum { M = 24, N = 40, K = 3 };
    struct iris_op_options options = {.async_op = true};
    struct iris_allocation *allocation = NULL;
    uint32_t random = 12345u + (uint32_t)self->rank;

    MUST(iris_allocation_create(ctx, M * N * sizeof(float), &allocation));
    float *off_heap = malloc(M * N * sizeof *off_heap), *on_heap = iris_allocation_data(allocation);
    for (int call = 0; call < calls; ++call) {
        const struct iris_config config = {.block_size_m = call % 7 < 3 ? 8 : 16,
                                           .block_size_n = 8,
                                           .num_sms = 1 + call % 2,
                                           .variant = call % 5 == 4     ? IRIS_VARIANT_TWO_SHOT
                                                      : call % 11 == 10 ? IRIS_VARIANT_RING
                                                                        : IRIS_VARIANT_ONE_SHOT};
        float *a = filled(self->rank, 0, M * K, call), *b = filled(self->rank, 1, K * N, call);
        float *c = (call / 3 + self->rank) % 2 == 0 ? off_heap : on_heap;
        const struct iris_tensor A = matrix(a, M, K), B = matrix(b, K, N), C = matrix(c, M, N);
        int wrong = 0;

        options.config = &config;
        MUST(iris_matmul_all_reduce(ctx, &C, &A, &B, NULL, &options));
        for (int64_t i = 0; i < M * N; ++i) {
            float want = 0;
            for (int r = 0; r < self->world; ++r)
                for (int64_t k = 0; k < K; ++k)
                    want += element(r, 0, i / N * K + k, call) * element(r, 1, k * N + i % N, call);
            wrong += c[i] != want;
        }
        CHECK(wrong == 0, "reuse: world %d rank %d call %d %s: %d elements of %d", self->world,
              self->rank, call, iris_variant_name(config.variant), wrong, M * N);
        free(a);
        free(b);
        random = random * 1664525u + 1013904223u;
        if ((random >> 28) < 2)
            usleep(random >> 8 & 511);
    }
    free(off_heap);
    iris_allocation_release(allocation);
}

/* The last rank leaves, the others go on without it, and at once again with everybody, while a
 * tensor of the first context is still read. Returns the last context. */
static struct iris_context *survive(struct iris_context *ctx, const struct rank_args *self)
{
    struct iris_allocation *kept = NULL;
    struct iris_context *next = NULL;
    int ranks[IRIS_MAX_RANKS];
    float *values;

    MUST(iris_allocation_create(ctx, sizeof *values, &kept));
    values = iris_allocation_data(kept);
    *values = (float)self->rank;
    MUST(iris_context_barrier(ctx, NULL));
    for (int turn = 0; turn < 2 && self->rank < self->world - 1; ++turn) {
        struct rank_args smaller = *self;

        smaller.world = self->world - 1;
        next = NULL;
        MUST(iris_context_survivors(ctx, NULL, &next, ranks));
        iris_context_release(ctx);
        ctx = next;
        if (ctx == NULL)
            break;
        CHECK(iris_context_world_size(ctx) == smaller.world && ranks[self->rank] == self->rank,
              "survivors: rank %d of %d has world size %d", self->rank, self->world,
              iris_context_world_size(ctx));
        collectives(ctx, &smaller, 100, turn);
        CHECK(*values == (float)self->rank, "survivors: old tensor of rank %d", self->rank);
        MUST(iris_context_barrier(ctx, NULL));
    }
    iris_allocation_release(kept);
    return ctx;
}

static void *rank_main(void *arg)
{
    const struct rank_args *self = arg;
    static const int64_t shapes[][3] = {{1, 1, 1},    {16, 16, 8}, {17, 33, 5},
                                        {40, 70, 19}, {3, 100, 7}, {100, 3, 30}};
    const struct iris_context_options options = {
        .backend = "cpu",
        .heap_size = 1 << 22,
        .local_size = 1 << 18,
        .rank = self->rank,
        .world_size = self->world,
        .timeout = 5,
        .run_key = self->run_key,
        .num_threads = 2,
    };
    struct iris_context *ctx = NULL;
    struct iris_workspace *workspace;
    int call = 0;

    MUST(iris_context_create(&options, &ctx));
    if (ctx == NULL)
        return NULL;
    for (int round = 0; round < 3; ++round) {
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; ++s)
            for (int v = IRIS_VARIANT_ATOMIC; v <= IRIS_VARIANT_RING; ++v, ++call)
                matmul(ctx, self, (enum iris_variant)v, shapes[s][0], shapes[s][1], shapes[s][2],
                       call % 3 != (self->rank & 1), call % 2 == 0, call);
        for (int64_t n = 1; n < 3000; n = n * 5 + 2, ++call)
            collectives(ctx, self, n, call);
        for (size_t s = 0; round == 1 && s < sizeof shapes / sizeof shapes[0]; ++s, ++call) {
            shared_products(ctx, self, shapes[s][0], shapes[s][1], shapes[s][2], call);
            few_rows(ctx, self, 1 + call % 9, 300 + shapes[s][1] % 7, call);
            joined_operands(ctx, self, shapes[s][0], shapes[s][1], shapes[s][2], call);
        }
        if (round == 0) { /* the rest runs across the wrap of the signal values */
            MUST(iris_context_workspace(ctx, IRIS_OP_MATMUL_ALL_REDUCE, &workspace));
            MUST(iris_context_barrier(ctx, NULL));
            MUST(iris_workspace_set_calls(workspace, INT32_MAX - 3));
            MUST(iris_context_workspace(ctx, IRIS_OP_ALL_REDUCE, &workspace));
            MUST(iris_workspace_set_calls(workspace, INT32_MAX - 11));
            MUST(iris_context_workspace(ctx, IRIS_OP_MATMUL_ALL_REDUCE, &workspace));
            MUST(iris_context_barrier(ctx, NULL));
        }
        MUST(iris_context_device_barrier(ctx, NULL));
    }
    for (int64_t n = 1; n < 200000; n = n * 6 + 1, ++call)
        messages(ctx, self, n, call);
    remote_memory(ctx, self, 50);
    reuse(ctx, self, 400);
    MUST(iris_context_barrier(ctx, NULL));
    MUST(iris_workspace_set_calls(workspace, INT32_MAX - 100));
    MUST(iris_context_barrier(ctx, NULL));
    reuse(ctx, self, 400);
    MUST(iris_context_barrier(ctx, NULL));
    ctx = survive(ctx, self);
    iris_context_release(ctx);
    return NULL;
}

static void run_world(int world)
{
    struct rank_args ranks[IRIS_MAX_RANKS];
    pthread_t threads[IRIS_MAX_RANKS];

    for (int r = 0; r < world; ++r) {
        ranks[r].rank = r;
        ranks[r].world = world;
        (void)snprintf(ranks[r].run_key, sizeof ranks[r].run_key, "ranks_as_threads-%ld-%d",
                       (long)getpid(), world);
        pthread_create(&threads[r], NULL, rank_main, &ranks[r]);
    }
    for (int r = 0; r < world; ++r)
        pthread_join(threads[r], NULL);
    printf("world size %d: %s\n", world, failures == 0 ? "ok" : "FAILED");
}

int main(int argc, char **argv)
{
    if (argc == 1)
        for (int world = 1; world <= 4; ++world)
            run_world(world);
    for (int i = 1; i < argc; ++i)
        run_world(atoi(argv[i]));
    return failures == 0 ? 0 : 1;
}
