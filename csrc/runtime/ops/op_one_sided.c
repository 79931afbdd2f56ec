/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * put, get, signal, wait: argument checks, addresses.
 */
#include "op_check.h"
#include "op_direct.h"
#include "runtime/memory/ownership.h"

/* A work-group's share of a copy is at least this many bytes. */
enum { COPY_SHARE = 16 << 10 };

static enum iris_status check_rank(const struct iris_context *ctx, int peer)
{
    if (peer >= 0 && peer < ctx->world_size)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "peer: expected a rank, 0 to %d, got %d", ctx->world_size - 1,
                     peer);
}

/* The place in rank `peer`'s heap, as this process sees it, that `tensor` is in this rank's. */
static enum iris_status translate(const struct iris_context *ctx, const char *name,
                                  const struct iris_tensor *tensor, int peer, uint64_t *out)
{
    const uint64_t offset = iris_tensor_symmetric_offset(ctx, tensor);

    IRIS_TRY(check_rank(ctx, peer));
    if (iris_tensor_numel(tensor) == 0)
        return IRIS_OK; /* no place at all */
    if (offset == IRIS_STAGED)
        return iris_fail_elsewhere(ctx, name, tensor,
                                   (size_t)iris_tensor_numel(tensor) *
                                       iris_dtype_nbytes(tensor->dtype));
    *out = (uint64_t)(uintptr_t)iris_heap_base(ctx->heap, peer) + offset;
    return IRIS_OK;
}

static enum iris_status check_copy(const struct iris_context *ctx, const struct iris_tensor *dst,
                                   const struct iris_tensor *src)
{
    IRIS_TRY(iris_check_pair(ctx, "dst", dst, "src", src));
    return iris_check_numel("src", src, iris_tensor_numel(dst), "as many as dst");
}

static enum iris_status run_copy(struct iris_context *ctx, enum iris_operation operation,
                                 uint64_t target, uint64_t source, uint64_t nbytes, void *stream)
{
    const uint64_t units = (uint64_t)ctx->ops->compute_units(ctx->device);
    const uint64_t shares = (nbytes + COPY_SHARE - 1) / COPY_SHARE;
    struct iris_copy_args args = {.target = target, .source = source, .nbytes = nbytes};
    const struct iris_direct_launch launch = {
        .operation = operation,
        .kernel = IRIS_OP_PUT,
        .dtype = IRIS_DTYPE_U8,
        .work_groups = (uint32_t)(shares < units ? shares : units),
        .call = &args.call,
        .args = &args,
        .args_nbytes = sizeof args,
        .stream = stream,
    };

    return iris_direct_run(ctx, &launch);
}

enum iris_status iris_rma_put(struct iris_context *ctx, const struct iris_tensor *dst,
                              const struct iris_tensor *src, int peer, void *stream)
{
    uint64_t target = 0;

    IRIS_TRY(check_copy(ctx, dst, src));
    IRIS_TRY(translate(ctx, "dst", dst, peer, &target));
    if (peer == ctx->rank)
        IRIS_TRY(iris_check_disjoint("dst", dst, "src", src));
    return run_copy(ctx, IRIS_OP_PUT, target, (uint64_t)(uintptr_t)src->data,
                    (uint64_t)iris_tensor_numel(src) * iris_dtype_nbytes(src->dtype), stream);
}

enum iris_status iris_rma_get(struct iris_context *ctx, const struct iris_tensor *dst,
                              const struct iris_tensor *src, int peer, void *stream)
{
    uint64_t source = 0;

    IRIS_TRY(check_copy(ctx, dst, src));
    IRIS_TRY(translate(ctx, "src", src, peer, &source));
    if (peer == ctx->rank)
        IRIS_TRY(iris_check_disjoint("dst", dst, "src", src));
    return run_copy(ctx, IRIS_OP_GET, (uint64_t)(uintptr_t)dst->data, source,
                    (uint64_t)iris_tensor_numel(src) * iris_dtype_nbytes(src->dtype), stream);
}

static enum iris_status check_word(const struct iris_context *ctx, const struct iris_tensor *word)
{
    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(iris_check_device(ctx, "word", word));
    if (word->dtype != IRIS_DTYPE_I32 || iris_tensor_numel(word) != 1)
        return IRIS_FAIL(IRIS_EINVAL, "word: expected one element of int32, got %lld of %s",
                         (long long)iris_tensor_numel(word), iris_dtype_name(word->dtype));
    return iris_check_output("word", word);
}

static enum iris_status run_word(struct iris_context *ctx, enum iris_operation operation,
                                 struct iris_word_args *args, void *stream)
{
    const struct iris_direct_launch launch = {
        .operation = operation,
        .kernel = operation,
        .dtype = IRIS_DTYPE_U8,
        .work_groups = 1,
        .call = &args->call,
        .args = args,
        .args_nbytes = sizeof *args,
        .counts = operation == IRIS_OP_WAIT,
        .stream = stream,
    };

    return iris_direct_run(ctx, &launch);
}

enum iris_status iris_rma_signal(struct iris_context *ctx, const struct iris_tensor *word, int peer,
                                 int32_t value, enum iris_signal_op op, void *stream)
{
    struct iris_word_args args = {.value = value, .how = (uint32_t)op};

    IRIS_TRY(check_word(ctx, word));
    IRIS_TRY(translate(ctx, "word", word, peer, &args.word));
    return run_word(ctx, IRIS_OP_SIGNAL, &args, stream);
}

enum iris_status iris_rma_wait(struct iris_context *ctx, const struct iris_tensor *word,
                               int32_t value, enum iris_compare compare, bool consume, void *stream)
{
    struct iris_word_args args = {.value = value, .how = (uint32_t)compare, .consume = consume};

    IRIS_TRY(check_word(ctx, word));
    IRIS_TRY(translate(ctx, "word", word, ctx->rank, &args.word));
    return run_word(ctx, IRIS_OP_WAIT, &args, stream);
}
