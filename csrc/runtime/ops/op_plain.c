/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products in the form "plain": launches one after the other on the call's stream, of which one,
 * the collective, is the call as far as the peers, the workspace and its counter are concerned. See
 * docs/protocol.md, "A product and a collective".
 *
 *   operation               launches
 *   matmul_all_reduce       product -> buffer 0; all_reduce -> C, or buffer 1 and a copy
 *   matmul_reduce_scatter   product -> buffer 0, the ranks' shares one after the other;
 *                           reduce_scatter -> C, or buffer 1 and a copy
 *   matmul_all_gather       product -> this rank's rows of C or of buffer 0; all_gather, in place;
 *                           a copy from buffer 0
 *   all_gather_matmul       all_gather -> the joined operand that is wanted, or buffer 0; product
 *                           -> C; shards along K: all_gather -> buffer 0; copies, which join them
 *                           -> the operand that is wanted, or buffer 1; product -> C
 *     pulls                 a copy of the shard -> buffer 0; all_gather of nothing: the ranks meet.
 *                           Beside the call's stream copies of the peers' shards -> buffer 0, and
 *                           the ranks meet again; on it a product of each shard -> rows of C
 *
 * Buffers are the storage's, at equal offsets on all ranks, so that peers can write there. Copies
 * are of what lies as a collective does not take it: C with gaps or transposed, a shard likewise,
 * the joined operand also where peers cannot write.
 * That is each rank's own affair.
 *
 * Of a sum the bias is added by rank 0, to its product before that is rounded.
 */
#include "op_plain.h"

#include "kernels/abi/instances.h"
#include "op_check.h"
#include "op_launch.h"
#include "op_operands.h"
#include "op_product.h"
#include "runtime/fault.h"

struct plain_call {
    struct iris_op_steps steps; /* first: iris_op_run knows no more of it */
    const struct iris_op_launch *launch;
    const struct iris_op_desc *desc;
    const struct iris_plain_tensors *t;
    struct iris_op_desc collective, product;
    struct iris_call_args *call; /* of the collective's arguments, which are one of: */
    struct iris_reduce_args reduce;
    struct iris_copy_collective_args gather;
};

static struct plain_call *as_plain(struct iris_op_steps *steps)
{
    return (struct plain_call *)steps;
}

static uint64_t address_of(const struct iris_tensor *tensor)
{
    return (uint64_t)(uintptr_t)tensor->data;
}

static void *buffer_at(const struct iris_context *ctx, const struct iris_storage *storage, int i)
{
    return (char *)iris_heap_base(ctx->heap, ctx->rank) + storage->buffer_offsets[i];
}

/* A contiguous matrix. */
static struct iris_tensor matrix_at(void *data, enum iris_dtype dtype, int64_t rows, int64_t cols)
{
    return (struct iris_tensor){
        .data = data, .ndim = 2, .shape = {rows, cols}, .stride = {cols, 1}, .dtype = dtype};
}

/* Some rows of it. */
static struct iris_tensor rows_of(const struct iris_tensor *tensor, int64_t first, int64_t rows)
{
    struct iris_tensor part = *tensor;

    part.data =
        (char *)part.data + first * part.stride[0] * (int64_t)iris_dtype_nbytes(tensor->dtype);
    part.shape[0] = rows;
    return part;
}

static enum iris_status copy(struct iris_context *ctx, const struct iris_tensor *target,
                             const struct iris_tensor *source, void *stream)
{
    const int64_t units = ctx->ops->compute_units(ctx->device), rows = source->shape[0];
    struct iris_copy_matrix_args args = {
        .source = iris_matrix_args_of(source),
        .target = iris_matrix_args_of(target),
        .M = rows,
        .N = source->shape[1],
        .element_nbytes = (uint32_t)iris_dtype_nbytes(source->dtype),
    };
    const struct iris_launch launch = {
        .kernel = IRIS_KERNEL_ID(IRIS_OP_COPY_MATRIX, IRIS_VARIANT_NONE, IRIS_DTYPE_U8),
        .work_groups = (uint32_t)(rows < units ? rows : units),
        .args = &args,
        .args_nbytes = sizeof args,
        .stream = stream,
    };

    iris_context_call_args(ctx, IRIS_OP_COPY_MATRIX, &args.call);
    return ctx->ops->launch(ctx->device, &launch);
}

/* The product of A and the caller's B, with a result at D. */
static struct iris_product_step product_step(const struct plain_call *plain,
                                             const struct iris_op_options *options,
                                             const struct iris_tensor *A,
                                             const struct iris_tensor *D)
{
    return (struct iris_product_step){
        .D = *D,
        .A = *A,
        .B = *plain->t->B,
        .scaling = plain->t->scaling,
        .batch = 1,
        .desc = &plain->product,
        .config = options->config,
        .call = plain->call,
        .work_groups = plain->desc->local.product.work_groups,
        .stream = options->stream,
    };
}

/* ---- sums: matmul_all_reduce, matmul_reduce_scatter ---- */

/* Into buffer 0; by columns, those of one rank after the other. */
static struct iris_product_step step_of_sum(const struct plain_call *plain,
                                            const struct iris_context *ctx,
                                            const struct iris_storage *storage,
                                            const struct iris_op_options *options)
{
    const struct iris_op_desc *desc = plain->desc;
    const int64_t cols = plain->product.N;
    const struct iris_tensor partial =
        matrix_at(buffer_at(ctx, storage, 0), plain->t->C->dtype, desc->M, cols);
    struct iris_product_step step = product_step(plain, options, plain->t->A, &partial);

    step.B.shape[1] = cols;
    step.batch = desc->share_n != 0 ? ctx->world_size : 1;
    step.step_B = cols * step.B.stride[1];
    step.step_D = desc->M * cols;
    if (ctx->rank == 0)
        step.bias = plain->t->bias;
    return step;
}

static enum iris_status begin_sum(struct iris_op_steps *steps, struct iris_context *ctx,
                                  struct iris_storage *storage,
                                  const struct iris_op_options *options)
{
    struct plain_call *plain = as_plain(steps);
    const struct iris_product_step step = step_of_sum(plain, ctx, storage, options);
    bool completed; /* if not, the collective finds out why */

    plain->reduce.a.address = address_of(&step.D);
    if (!iris_tensor_is_contiguous(plain->t->C)) {
        plain->reduce.output.address = (uint64_t)(uintptr_t)buffer_at(ctx, storage, 1);
        plain->reduce.output_offset = storage->buffer_offsets[1];
    }
    return iris_product_run(ctx, storage, &step, &completed);
}

static enum iris_status end_sum(struct iris_op_steps *steps, struct iris_context *ctx,
                                struct iris_storage *storage, const struct iris_op_options *options)
{
    const struct iris_tensor *C = as_plain(steps)->t->C;
    const struct iris_tensor result =
        matrix_at(buffer_at(ctx, storage, 1), C->dtype, C->shape[0], C->shape[1]);

    return iris_tensor_is_contiguous(C) ? IRIS_OK : copy(ctx, C, &result, options->stream);
}

static void describe_sum(const struct iris_context *ctx, struct plain_call *plain)
{
    const struct iris_op_desc *collective = &plain->collective;
    const struct iris_tensor *C = plain->t->C;
    const int64_t n = collective->N;

    plain->steps.begin = begin_sum;
    plain->steps.end = end_sum;
    plain->call = &plain->reduce.call;
    plain->reduce = (struct iris_reduce_args){
        .a = {0, n, 1},
        .output = {address_of(C), n, 1},
        .output_offset = iris_tensor_reachable_offset(ctx, C),
        .M = collective->M,
        .N = n,
        .share_m = collective->share_m,
        .block_m = collective->block_m,
        .block_n = collective->block_n,
        .block_k = collective->block_k,
        .group_size_m = collective->group_size_m,
        .ending = IRIS_ENDING_LOCAL,
        .reduce_op = IRIS_REDUCE_SUM,
        .root = -1,
        .reduce_scale = 1.0f,
    };
}

/* ---- rows of the result: matmul_all_gather ---- */

/* Whether the rows of the whole result can be written to C as they come, by the peers or, where
 * they come as packets, by this rank; else they are to a buffer. */
static bool gathers_into_C(const struct iris_context *ctx, const struct plain_call *plain)
{
    const struct iris_tensor *C = plain->t->C;

    return iris_tensor_is_contiguous(C) && (iris_is_by_packets(plain->collective.variant) ||
                                            iris_tensor_reachable_offset(ctx, C) != IRIS_STAGED);
}

/* Into this rank's rows of the whole result. */
static struct iris_product_step step_of_rows(const struct plain_call *plain,
                                             const struct iris_context *ctx,
                                             const struct iris_tensor *whole,
                                             const struct iris_op_options *options)
{
    const int64_t share = plain->desc->share_m;
    const struct iris_tensor own = rows_of(whole, ctx->rank * share, share);
    struct iris_product_step step = product_step(plain, options, plain->t->A, &own);

    step.bias = plain->t->bias;
    return step;
}

static enum iris_status begin_gather_result(struct iris_op_steps *steps, struct iris_context *ctx,
                                            struct iris_storage *storage,
                                            const struct iris_op_options *options)
{
    struct plain_call *plain = as_plain(steps);
    const struct iris_tensor *C = plain->t->C;
    const bool direct = gathers_into_C(ctx, plain);
    const struct iris_tensor whole =
        direct ? *C : matrix_at(buffer_at(ctx, storage, 0), C->dtype, C->shape[0], C->shape[1]);
    const struct iris_product_step step = step_of_rows(plain, ctx, &whole, options);
    bool completed; /* if not, the collective finds out why */

    plain->gather.input = address_of(&step.D);
    plain->gather.output = address_of(&whole);
    plain->gather.output_offset =
        direct ? iris_tensor_reachable_offset(ctx, C) : storage->buffer_offsets[0];
    return iris_product_run(ctx, storage, &step, &completed);
}

static enum iris_status end_gather_result(struct iris_op_steps *steps, struct iris_context *ctx,
                                          struct iris_storage *storage,
                                          const struct iris_op_options *options)
{
    const struct plain_call *plain = as_plain(steps);
    const struct iris_tensor *C = plain->t->C;
    const struct iris_tensor whole =
        matrix_at(buffer_at(ctx, storage, 0), C->dtype, C->shape[0], C->shape[1]);

    return gathers_into_C(ctx, plain) ? IRIS_OK : copy(ctx, C, &whole, options->stream);
}

/* ---- shards of the operand: all_gather_matmul ---- */

/* Whether the operand is joined where the caller wants it, and multiplied from there: where peers
 * can write it as it comes, or, along K, this rank's copies. The library takes it for what it has
 * prepared for, a buffer, by its alignment. */
static bool joins_for_caller(const struct plain_call *plain, const struct iris_context *ctx)
{
    const struct iris_tensor *joined = plain->t->joined;

    return joined != NULL && !plain->desc->pulls && iris_tensor_is_contiguous(joined) &&
           address_of(joined) % IRIS_HEAP_ALIGNMENT == 0 &&
           (plain->desc->share_k != 0 || iris_tensor_reachable_offset(ctx, joined) != IRIS_STAGED);
}

/* The whole operand, once it has been gathered. */
static struct iris_tensor joined_operand(const struct plain_call *plain,
                                         const struct iris_context *ctx,
                                         const struct iris_storage *storage)
{
    const struct iris_op_desc *desc = plain->desc;
    void *const place = joins_for_caller(plain, ctx)
                            ? plain->t->joined->data
                            : buffer_at(ctx, storage, desc->share_k != 0 ? 1 : 0);

    return matrix_at(place, desc->dtype, desc->M, desc->K);
}

static enum iris_status begin_gather_operand(struct iris_op_steps *steps, struct iris_context *ctx,
                                             struct iris_storage *storage,
                                             const struct iris_op_options *options)
{
    struct plain_call *plain = as_plain(steps);
    const struct iris_tensor *A = plain->t->A;
    const bool direct = plain->desc->share_k == 0 && joins_for_caller(plain, ctx);
    char *const shards = direct ? plain->t->joined->data : buffer_at(ctx, storage, 0);
    const struct iris_tensor own = matrix_at(shards + (uint64_t)ctx->rank * plain->gather.nbytes,
                                             A->dtype, A->shape[0], A->shape[1]);

    plain->gather.input = address_of(A);
    plain->gather.output = (uint64_t)(uintptr_t)shards;
    plain->gather.output_offset =
        direct ? iris_tensor_reachable_offset(ctx, plain->t->joined) : storage->buffer_offsets[0];
    if (iris_tensor_is_contiguous(A))
        return IRIS_OK;
    plain->gather.input = address_of(&own); /* in place */
    return copy(ctx, &own, A, options->stream);
}

/* Shards that lie one after the other, side by side. */
static enum iris_status join_columns(const struct plain_call *plain, struct iris_context *ctx,
                                     const struct iris_storage *storage,
                                     const struct iris_tensor *joined, void *stream)
{
    const struct iris_op_desc *desc = plain->desc;
    const int64_t element = (int64_t)iris_dtype_nbytes(desc->dtype);
    char *const buffer = buffer_at(ctx, storage, 0);

    for (int rank = 0; rank < ctx->world_size; ++rank) {
        const struct iris_tensor shard = matrix_at(buffer + (uint64_t)rank * plain->gather.nbytes,
                                                   desc->dtype, desc->M, desc->share_k);
        struct iris_tensor columns = *joined;
        columns.data = (char *)columns.data + rank * desc->share_k * element;
        IRIS_TRY(copy(ctx, &columns, &shard, stream));
    }
    return IRIS_OK;
}

static enum iris_status end_gather_operand(struct iris_op_steps *steps, struct iris_context *ctx,
                                           struct iris_storage *storage,
                                           const struct iris_op_options *options)
{
    struct plain_call *plain = as_plain(steps);
    const struct iris_plain_tensors *t = plain->t;
    const struct iris_tensor joined = joined_operand(plain, ctx, storage);
    struct iris_product_step step = product_step(plain, options, &joined, t->C);
    bool completed;

    step.bias = t->bias;
    if (plain->desc->share_k != 0)
        IRIS_TRY(join_columns(plain, ctx, storage, &joined, options->stream));
    if (t->joined != NULL && !joins_for_caller(plain, ctx))
        IRIS_TRY(copy(ctx, t->joined, &joined, options->stream));
    IRIS_TRY(iris_product_run(ctx, storage, &step, &completed));
    return completed ? IRIS_OK : iris_context_abort_status(ctx, plain->desc->operation);
}

/* ---- shards of the operand, by copy engines: a product of each, as they come ---- */

/* Rank `rank`'s shard in the buffer of rank `at`. */
static char *shard_at(const struct plain_call *plain, const struct iris_context *ctx,
                      const struct iris_storage *storage, int at, int rank)
{
    return (char *)iris_heap_base(ctx->heap, at) + storage->buffer_offsets[0] +
           (uint64_t)rank * (uint64_t)plain->collective.M;
}

static struct iris_tensor shard_of(const struct plain_call *plain, const struct iris_context *ctx,
                                   const struct iris_storage *storage, int rank)
{
    const struct iris_op_desc *desc = plain->desc;

    return matrix_at(shard_at(plain, ctx, storage, ctx->rank, rank), desc->dtype, desc->share_m,
                     desc->K);
}

static enum iris_status make_side_stream(struct iris_context *ctx, struct iris_storage *storage)
{
    return storage->side.stream != NULL
               ? IRIS_OK
               : ctx->ops->stream_create(ctx->device, &storage->side.stream);
}

/* The ranks meet when each has its shard where the others copy it from. */
static enum iris_status begin_pull(struct iris_op_steps *steps, struct iris_context *ctx,
                                   struct iris_storage *storage,
                                   const struct iris_op_options *options)
{
    struct plain_call *plain = as_plain(steps);
    const struct iris_tensor *A = plain->t->A;
    const struct iris_tensor own = shard_of(plain, ctx, storage, ctx->rank);

    IRIS_TRY(make_side_stream(ctx, storage));
    return iris_tensor_is_contiguous(A) ? ctx->ops->copy(ctx->device, options->stream, own.data,
                                                         A->data, (size_t)plain->collective.M)
                                        : copy(ctx, &own, A, options->stream);
}

/* On the side stream: the peers' shards, the next rank's first, so that each rank is read by one
 * other at a time; then the ranks meet again, for what was copied may be written over after that.
 */
static enum iris_status pull_shards(const struct plain_call *plain, struct iris_context *ctx,
                                    struct iris_storage *storage, void *stream)
{
    struct iris_side_stream *side = &storage->side;

    IRIS_TRY(ctx->ops->event_record(ctx->device, stream, &side->began));
    IRIS_TRY(ctx->ops->event_wait(ctx->device, side->stream, side->began));
    for (int hop = 1; hop < ctx->world_size; ++hop) {
        const int peer = (ctx->rank + hop) % ctx->world_size;
        IRIS_TRY(ctx->ops->copy(
            ctx->device, side->stream, shard_at(plain, ctx, storage, ctx->rank, peer),
            shard_at(plain, ctx, storage, peer, peer), (size_t)plain->collective.M));
        IRIS_TRY(ctx->ops->event_record(ctx->device, side->stream, &side->come[peer]));
    }
    IRIS_TRY(iris_op_launch_again(ctx, &plain->collective, plain->launch, side->stream));
    return ctx->ops->event_record(ctx->device, side->stream, &side->ended);
}

/* The product of one rank's shard, into as many rows of C. */
static struct iris_product_step step_of_shard(const struct plain_call *plain,
                                              const struct iris_context *ctx,
                                              const struct iris_storage *storage,
                                              const struct iris_op_options *options,
                                              const struct iris_tensor *C, int rank)
{
    const int64_t share = plain->desc->share_m;
    const struct iris_tensor A = shard_of(plain, ctx, storage, rank);
    const struct iris_tensor D = rows_of(C, rank * share, share);
    struct iris_product_step step = product_step(plain, options, &A, &D);

    step.bias = plain->t->bias;
    if (step.bias.address != 0)
        step.bias.address += (uint64_t)(rank * share * step.bias.stride_row) *
                             iris_dtype_nbytes(plain->product.dtype);
    return step;
}

static enum iris_status end_pull(struct iris_op_steps *steps, struct iris_context *ctx,
                                 struct iris_storage *storage,
                                 const struct iris_op_options *options)
{
    const struct plain_call *plain = as_plain(steps);
    const struct iris_tensor whole = joined_operand(plain, ctx, storage);
    struct iris_product_step step;
    bool completed;

    IRIS_TRY(pull_shards(plain, ctx, storage, options->stream));
    for (int hop = 0; hop < ctx->world_size; ++hop) {
        const int rank = (ctx->rank + hop) % ctx->world_size;
        if (hop > 0)
            IRIS_TRY(ctx->ops->event_wait(ctx->device, options->stream, storage->side.come[rank]));
        step = step_of_shard(plain, ctx, storage, options, plain->t->C, rank);
        IRIS_TRY(iris_product_run(ctx, storage, &step, &completed));
    }
    if (plain->t->joined != NULL)
        IRIS_TRY(copy(ctx, plain->t->joined, &whole, options->stream));
    return ctx->ops->event_wait(ctx->device, options->stream, storage->side.ended);
}

static void describe_pull(struct plain_call *plain)
{
    plain->steps.begin = begin_pull;
    plain->steps.end = end_pull;
    plain->call = &plain->gather.call;
    plain->gather = (struct iris_copy_collective_args){.output_offset = IRIS_STAGED,
                                                       .ending = IRIS_ENDING_LOCAL};
}

static void describe_gather(const struct iris_context *ctx, struct plain_call *plain)
{
    const uint64_t nbytes = (uint64_t)plain->collective.M;
    const uint32_t everybody = (uint32_t)((UINT64_C(1) << ctx->world_size) - 1);
    const bool of_result = plain->desc->operation == IRIS_OP_MATMUL_ALL_GATHER;

    plain->steps.begin = of_result ? begin_gather_result : begin_gather_operand;
    plain->steps.end = of_result ? end_gather_result : end_gather_operand;
    plain->call = &plain->gather.call;
    plain->gather = (struct iris_copy_collective_args){
        .nbytes = nbytes,
        .target_step = nbytes,
        .senders = everybody,
        .receivers = everybody,
        .ending = IRIS_ENDING_LOCAL,
    };
}

/* The products of a call, with a result that nobody reads. The library chooses by shapes and
 * alignments, so these are the call's: of shards, each rank's. */
static enum iris_status try_products(const struct plain_call *plain, struct iris_context *ctx,
                                     struct iris_storage *storage,
                                     const struct iris_op_options *options)
{
    const struct iris_op_desc *desc = plain->desc;
    /* The staging of our own products has room for a result, and so has the buffer of one that is
     * gathered. */
    char *const place =
        desc->operation == IRIS_OP_MATMUL_ALL_GATHER
            ? buffer_at(ctx, storage, 0)
            : (char *)iris_heap_base(ctx->heap, ctx->rank) + storage->product_data_offset;
    const struct iris_tensor target = matrix_at(place, plain->t->C->dtype, desc->M, desc->N);
    struct iris_tensor joined;
    struct iris_product_step step;

    if (desc->pulls) {
        for (int rank = 0; rank < ctx->world_size; ++rank) {
            step = step_of_shard(plain, ctx, storage, options, &target, rank);
            IRIS_TRY(iris_product_try(ctx, storage, &step));
        }
        return IRIS_OK;
    }
    if (desc->operation == IRIS_OP_MATMUL_ALL_GATHER) {
        step = step_of_rows(plain, ctx, &target, options);
    } else if (IRIS_IS_GATHERED_PRODUCT(desc->operation)) {
        joined = joined_operand(plain, ctx, storage);
        step = product_step(plain, options, &joined, &target);
        step.bias = plain->t->bias;
    } else {
        step = step_of_sum(plain, ctx, storage, options);
    }
    return iris_product_try(ctx, storage, &step);
}

/* Of a preamble, also the products: the library loads what a shape needs when it multiplies it
 * first, which should not be while a graph is captured. */
static enum iris_status prepare(struct iris_op_steps *steps, struct iris_context *ctx,
                                struct iris_storage *storage, const struct iris_op_options *options)
{
    const struct plain_call *plain = as_plain(steps);

    if (!ctx->has_blas)
        return IRIS_OK;
    if (plain->desc->pulls)
        IRIS_TRY(make_side_stream(ctx, storage));
    iris_product_prepare(ctx, storage);
    if (!options->prepare)
        return IRIS_OK;
    IRIS_TRY(
        iris_stream_order_before(ctx->ops, ctx->device, &storage->order, options->stream, false));
    IRIS_TRY(try_products(plain, ctx, storage, options));
    return iris_stream_order_after(ctx->ops, ctx->device, &storage->order, options->stream, false);
}

enum iris_status iris_plain_run(struct iris_context *ctx, struct iris_op_desc *desc,
                                const struct iris_plain_tensors *tensors, uint32_t work_groups,
                                const struct iris_op_options *options)
{
    const bool sums = desc->operation == IRIS_OP_MATMUL_ALL_REDUCE ||
                      desc->operation == IRIS_OP_MATMUL_REDUCE_SCATTER;
    struct plain_call plain = {.desc = desc, .t = tensors};
    struct iris_op_launch launch = {.work_groups = work_groups, .steps = &plain.steps};

    /* Only an all_reduce pushes results, and only where C is the place for them. */
    desc->local.stages_results =
        desc->operation == IRIS_OP_MATMUL_ALL_REDUCE && iris_tensor_is_contiguous(tensors->C) &&
        iris_may_stage(ctx, tensors->C, iris_tensor_reachable_offset(ctx, tensors->C));
    plain.collective = iris_op_desc_collective(desc, ctx->world_size);
    plain.product = iris_op_desc_product(desc, ctx->world_size);
    if (desc->pulls) /* one for each shard */
        plain.product.M = desc->share_m;
    plain.steps.prepare = prepare;
    plain.steps.runs_as = &plain.collective;
    if (sums) {
        describe_sum(ctx, &plain);
        launch.args = &plain.reduce;
        launch.args_nbytes = sizeof plain.reduce;
    } else {
        if (desc->pulls)
            describe_pull(&plain);
        else
            describe_gather(ctx, &plain);
        launch.args = &plain.gather;
        launch.args_nbytes = sizeof plain.gather;
    }
    launch.call = plain.call;
    plain.launch = &launch;
    launch.kernel_dtype = plain.collective.dtype;
    return iris_op_run(ctx, desc, &launch, options);
}
