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

#include "../../csrc/runtime/iris.h"

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

static void matmul(struct iris_context *ctx, const struct rank_args *self,
                   enum iris_variant variant, int64_t M, int64_t N, int64_t K, bool on_heap,
                   bool async_op, int call)
{
    const struct iris_config config = {.block_size_m = 16,
                                       .block_size_n = 16,
                                       .block_size_k = 8,
                                       .num_sms = 2,
                                       .variant = variant};
    struct iris_op_options options = {.config = &config, .async_op = async_op};
    struct iris_allocation *allocation = NULL;
    float *a = filled(self->rank, 0, M * K, call), *b = filled(self->rank, 1, K * N, call);
    float *bias = filled(0, 2, N, call), *c;
    const struct iris_tensor A = matrix(a, M, K), B = matrix(b, K, N), V = matrix(bias, 1, N);

    MUST(iris_allocation_create(ctx, (size_t)(M * N) * sizeof *c, &allocation));
    c = on_heap ? iris_allocation_data(allocation) : malloc((size_t)(M * N) * sizeof *c);
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
    if (!on_heap)
        free(c);
    iris_allocation_release(allocation);
    free(a);
    free(b);
    free(bias);
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

static void *rank_main(void *arg)
{
    const struct rank_args *self = arg;
    static const int64_t shapes[][3] = {{1, 1, 1},    {16, 16, 8}, {17, 33, 5},
                                        {40, 70, 19}, {3, 100, 7}, {100, 3, 30}};
    const struct iris_context_options options = {
        .backend = "cpu",
        .heap_size = 1 << 22,
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
    reuse(ctx, self, 400);
    MUST(iris_context_barrier(ctx, NULL));
    MUST(iris_workspace_set_calls(workspace, INT32_MAX - 100));
    MUST(iris_context_barrier(ctx, NULL));
    reuse(ctx, self, 400);
    MUST(iris_context_barrier(ctx, NULL));
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
