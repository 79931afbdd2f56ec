/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The plain collectives: argument checks, descriptions, kernel arguments.
 */
#include "op_check.h"

#include <float.h>

#include "op_direct.h"
#include "op_launch.h"
#include "op_messages.h"
#include "runtime/select/op_select.h"

static enum iris_status check_pair(const struct iris_context *ctx, const struct iris_tensor *output,
                                   const struct iris_tensor *input)
{
    return iris_check_pair(ctx, "output", output, "input", input);
}

static enum iris_status check_root(const struct iris_context *ctx, enum iris_operation operation,
                                   int root)
{
    if (root >= 0 && root < ctx->world_size)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected a rank, 0 to %d, got %d", iris_root_name(operation),
                     ctx->world_size - 1, root);
}

/* For a rank that has no part in one end of a rooted collective. */
static const struct iris_tensor *only_at(const struct iris_context *ctx, int root,
                                         const struct iris_tensor *tensor)
{
    return ctx->rank == root ? tensor : NULL;
}

static enum iris_status check_present(const char *name, const struct iris_tensor *tensor)
{
    return tensor != NULL
               ? IRIS_OK
               : IRIS_FAIL(IRIS_EINVAL, "%s: expected a tensor on this rank, got None", name);
}

/* NULL: none on this rank. */
static uint64_t address_of(const struct iris_tensor *tensor)
{
    return tensor != NULL ? (uint64_t)(uintptr_t)tensor->data : 0;
}

/* ---- reductions: all_reduce, reduce_scatter, reduce ---- */

/* Where a rank's input has been read, by itself alone, before anything is written over it. */
static bool can_be_in_place(enum iris_variant variant)
{
    return variant == IRIS_VARIANT_TWO_SHOT || variant == IRIS_VARIANT_RING ||
           variant == IRIS_VARIANT_ATOMIC || variant == IRIS_VARIANT_SPINLOCK ||
           iris_is_by_packets(variant);
}

static enum iris_status check_overlap(const struct iris_op_desc *desc,
                                      const struct iris_tensor *output,
                                      const struct iris_tensor *input)
{
    if (!desc->local.in_place)
        return iris_check_disjoint("output", output, "input", input);
    if (can_be_in_place(desc->variant))
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "output: expected memory apart from input's in the variant '%s'; in place "
                     "work two_shot, ll, ll_two_shot, ring, atomic and spinlock",
                     iris_variant_name(desc->variant));
}

/* What the kernel of bytes does for bool: a sum is a logical or, a product a logical and. */
static enum iris_status reduce_op_for(enum iris_dtype dtype, enum iris_reduce_op op, uint32_t *out)
{
    *out = (uint32_t)op;
    if (dtype != IRIS_DTYPE_BOOL)
        return IRIS_OK;
    if (op == IRIS_REDUCE_AVG)
        return IRIS_FAIL(IRIS_EINVAL, "op: expected 'sum', 'max', 'min' or 'prod' for bool, got "
                                      "'avg'");
    if (op == IRIS_REDUCE_SUM || op == IRIS_REDUCE_PROD)
        *out = op == IRIS_REDUCE_SUM ? IRIS_REDUCE_MAX : IRIS_REDUCE_MIN;
    return IRIS_OK;
}

/* The input as a rows x n matrix of runs. output NULL: another rank gets the result. `addend`,
 * equal on all ranks and added once, may be NULL. */
static enum iris_status run_reduction(struct iris_context *ctx, enum iris_operation operation,
                                      const struct iris_tensor *output,
                                      const struct iris_tensor *input,
                                      const struct iris_tensor *addend, int64_t rows, int64_t n,
                                      int root, const struct iris_op_options *options)
{
    const bool averages = options->reduce_op == IRIS_REDUCE_AVG;
    const int64_t share_m = operation == IRIS_OP_REDUCE_SCATTER ? 1 : 0; /* of rows */
    struct iris_op_desc desc = {.operation = operation,
                                .dtype = input->dtype,
                                .M = rows,
                                .N = n,
                                .share_m = share_m,
                                .prepare = options->prepare,
                                .reduce_op =
                                    options->prepare ? IRIS_REDUCE_SUM : options->reduce_op,
                                /* Tensors without elements share nothing, whatever their
                                 * addresses, so that all ranks choose alike. */
                                .local.in_place = output != NULL && output->data == input->data &&
                                                  iris_tensor_numel(input) > 0,
                                .root = root};
    struct iris_reduce_args args = {
        .a = {(uint64_t)(uintptr_t)input->data, n, 1},
        .output = {output != NULL ? (uint64_t)(uintptr_t)output->data : 0, n, 1},
        .bias = {address_of(addend), n, 1},
        .output_offset = output != NULL ? iris_tensor_reachable_offset(ctx, output) : IRIS_STAGED,
        .M = rows,
        .N = n,
        .share_m = share_m,
        .ending = IRIS_ENDING_LOCAL,
        .root = root,
        .reduce_scale = averages ? 1.0f / (float)ctx->world_size : 1.0f,
    };
    struct iris_op_launch launch = {.call = &args.call,
                                    .args = &args,
                                    .args_nbytes = sizeof args,
                                    .kernel_dtype = input->dtype == IRIS_DTYPE_BOOL ? IRIS_DTYPE_U8
                                                                                    : input->dtype};

    desc.local.stages_results =
        output != NULL && share_m == 0 && iris_may_stage(ctx, output, args.output_offset);
    IRIS_TRY(reduce_op_for(input->dtype, options->reduce_op, &args.reduce_op));
    IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
    if (output != NULL)
        IRIS_TRY(check_overlap(&desc, output, input));
    args.block_m = desc.block_m;
    args.block_n = desc.block_n;
    args.block_k = desc.block_k;
    desc.group_size_m = 1;
    args.group_size_m = desc.group_size_m;
    return iris_op_run(ctx, &desc, &launch, options);
}

enum iris_status iris_all_reduce(struct iris_context *ctx, const struct iris_tensor *output,
                                 const struct iris_tensor *input,
                                 const struct iris_op_options *options)
{
    IRIS_TRY(check_pair(ctx, output, input));
    IRIS_TRY(iris_check_reducible("input", input));
    IRIS_TRY(iris_check_numel("output", output, iris_tensor_numel(input), "as many as input"));
    return run_reduction(ctx, IRIS_OP_ALL_REDUCE, output, input, NULL, 1, iris_tensor_numel(input),
                         -1, options);
}

enum iris_status iris_reduce_scatter(struct iris_context *ctx, const struct iris_tensor *output,
                                     const struct iris_tensor *input,
                                     const struct iris_op_options *options)
{
    const int64_t n = iris_tensor_numel(output);

    IRIS_TRY(check_pair(ctx, output, input));
    IRIS_TRY(iris_check_reducible("input", input));
    IRIS_TRY(iris_check_numel("input", input, n * ctx->world_size, "world_size times output's"));
    IRIS_TRY(iris_check_disjoint("output", output, "input", input));
    return run_reduction(ctx, IRIS_OP_REDUCE_SCATTER, output, input, NULL, ctx->world_size, n, -1,
                         options);
}

enum iris_status iris_reduce(struct iris_context *ctx, const struct iris_tensor *output,
                             const struct iris_tensor *input, int dst,
                             const struct iris_op_options *options)
{
    const struct iris_tensor *here = only_at(ctx, dst, output);

    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(check_root(ctx, IRIS_OP_REDUCE, dst));
    IRIS_TRY(check_present("input", input));
    if (ctx->rank == dst)
        IRIS_TRY(check_present("output", output));
    IRIS_TRY(check_pair(ctx, here, input));
    IRIS_TRY(iris_check_reducible("input", input));
    if (here != NULL)
        IRIS_TRY(iris_check_numel("output", here, iris_tensor_numel(input), "as many as input"));
    return run_reduction(ctx, IRIS_OP_REDUCE, here, input, NULL, 1, iris_tensor_numel(input), dst,
                         options);
}

/* `out` may be the very tensor `in`, and else shares nothing with it. */
static enum iris_status check_same_or_apart(const char *out_name, const struct iris_tensor *out,
                                            const char *in_name, const struct iris_tensor *in)
{
    return out->data == in->data ? IRIS_OK : iris_check_disjoint(out_name, out, in_name, in);
}

static enum iris_status check_row_tensor(const struct iris_context *ctx, const char *name,
                                         const struct iris_tensor *tensor,
                                         const struct iris_tensor *input)
{
    IRIS_TRY(iris_check_device(ctx, name, tensor));
    IRIS_TRY(iris_check_dtype(name, tensor, input->dtype, "input"));
    IRIS_TRY(iris_check_contiguous(name, tensor));
    return iris_check_numel(name, tensor, iris_tensor_numel(input), "as many as input");
}

/* Of at least one dimension. */
static int64_t count_rows(const struct iris_tensor *tensor)
{
    int64_t rows = 1;

    for (int d = 0; d < tensor->ndim - 1; ++d)
        rows *= tensor->shape[d];
    return rows;
}

/* How many elements of a row have one scale. */
static int64_t scale_cols_of(const struct iris_rmsnorm_tensors *t)
{
    const int64_t columns = t->input->shape[t->input->ndim - 1];
    const int64_t rows = count_rows(t->input);

    return columns <= IRIS_SCALE_BLOCK || iris_tensor_numel(t->output_scale) == rows
               ? (columns > 0 ? columns : 1)
               : IRIS_SCALE_BLOCK;
}

static enum iris_status check_output_scale(const struct iris_context *ctx,
                                           const struct iris_rmsnorm_tensors *t)
{
    const struct iris_tensor *scale = t->output_scale;
    const int64_t rows = count_rows(t->input);
    const int64_t blocks = iris_ceil_div(t->input->shape[t->input->ndim - 1], IRIS_SCALE_BLOCK);

    if (iris_device_traits(ctx->device)->is_gpu)
        return IRIS_FAIL(IRIS_EINVAL, "output_scale: expected None on the %s backend, got a tensor",
                         ctx->ops->name);
    if (!IRIS_IS_FLOAT8(t->output->dtype))
        return IRIS_FAIL(IRIS_EINVAL,
                         "output: expected dtype float8_e4m3fn, float8_e5m2, float8_e4m3fnuz or "
                         "float8_e5m2fnuz with output_scale, got %s",
                         iris_dtype_name(t->output->dtype));
    IRIS_TRY(iris_check_device(ctx, "output_scale", scale));
    if (scale->dtype != IRIS_DTYPE_F32)
        return IRIS_FAIL(IRIS_EINVAL, "output_scale: expected dtype float32, got %s",
                         iris_dtype_name(scale->dtype));
    IRIS_TRY(iris_check_contiguous("output_scale", scale));
    IRIS_TRY(iris_check_output("output_scale", scale));
    if (iris_tensor_numel(scale) != rows && iris_tensor_numel(scale) != rows * blocks)
        return IRIS_FAIL(IRIS_EINVAL,
                         "output_scale: expected %lld elements, one for each row, or %lld, one for "
                         "%d of it, got %lld",
                         (long long)rows, (long long)(rows * blocks), IRIS_SCALE_BLOCK,
                         (long long)iris_tensor_numel(scale));
    IRIS_TRY(iris_check_disjoint("output_scale", scale, "input", t->input));
    IRIS_TRY(iris_check_disjoint("output_scale", scale, "output", t->output));
    IRIS_TRY(iris_check_disjoint("output_scale", scale, "residual_out", t->residual_out));
    return iris_check_disjoint("output_scale", scale, "weight", t->weight);
}

/* The output: as the input, or of float8 with scales. */
static enum iris_status check_normed(const struct iris_context *ctx,
                                     const struct iris_rmsnorm_tensors *t)
{
    if (t->output_scale == NULL) {
        IRIS_TRY(check_row_tensor(ctx, "output", t->output, t->input));
        return check_same_or_apart("output", t->output, "input", t->input);
    }
    IRIS_TRY(iris_check_device(ctx, "output", t->output));
    IRIS_TRY(iris_check_contiguous("output", t->output));
    IRIS_TRY(iris_check_output("output", t->output));
    IRIS_TRY(
        iris_check_numel("output", t->output, iris_tensor_numel(t->input), "as many as input"));
    IRIS_TRY(iris_check_disjoint("output", t->output, "input", t->input));
    return check_output_scale(ctx, t);
}

static enum iris_status check_rmsnorm(const struct iris_context *ctx,
                                      const struct iris_rmsnorm_tensors *t)
{
    const struct iris_tensor *input = t->input;

    if (t->output_scale == NULL && IRIS_IS_FLOAT8(t->output->dtype))
        return IRIS_FAIL(IRIS_EINVAL,
                         "output_scale: expected a float32 tensor, as output is %s, got None",
                         iris_dtype_name(t->output->dtype));
    IRIS_TRY(check_pair(ctx, t->output_scale == NULL ? t->output : t->residual_out, input));
    IRIS_TRY(iris_check_computable("input", input));
    if (input->ndim < 1)
        return IRIS_FAIL(IRIS_EINVAL, "input: expected at least one dimension, got 0-D");
    IRIS_TRY(check_row_tensor(ctx, "residual_out", t->residual_out, input));
    IRIS_TRY(iris_check_output("residual_out", t->residual_out));
    IRIS_TRY(iris_check_device(ctx, "weight", t->weight));
    IRIS_TRY(iris_check_dtype("weight", t->weight, input->dtype, "input"));
    IRIS_TRY(iris_check_contiguous("weight", t->weight));
    IRIS_TRY(iris_check_numel("weight", t->weight, input->shape[input->ndim - 1],
                              "the last size of input"));
    IRIS_TRY(check_normed(ctx, t));
    IRIS_TRY(iris_check_disjoint("residual_out", t->residual_out, "output", t->output));
    IRIS_TRY(iris_check_disjoint("residual_out", t->residual_out, "input", input));
    IRIS_TRY(iris_check_disjoint("output", t->output, "weight", t->weight));
    IRIS_TRY(iris_check_disjoint("residual_out", t->residual_out, "weight", t->weight));
    if (t->residual == NULL)
        return IRIS_OK;
    IRIS_TRY(check_row_tensor(ctx, "residual", t->residual, input));
    IRIS_TRY(iris_check_disjoint("output", t->output, "residual", t->residual));
    if (t->output_scale != NULL)
        IRIS_TRY(iris_check_disjoint("output_scale", t->output_scale, "residual", t->residual));
    return check_same_or_apart("residual_out", t->residual_out, "residual", t->residual);
}

/* The two steps of the host's variants. */
static enum iris_status sum_into_residual(struct iris_context *ctx,
                                          const struct iris_rmsnorm_tensors *t,
                                          enum iris_variant variant,
                                          const struct iris_op_options *options)
{
    struct iris_config config =
        options->config != NULL ? *options->config : (struct iris_config){0};
    struct iris_op_options chosen = *options;

    config.variant = variant;
    chosen.config = &config;
    return run_reduction(ctx, IRIS_OP_ALL_REDUCE_RMSNORM, t->residual_out, t->input, t->residual, 1,
                         iris_tensor_numel(t->input), -1, &chosen);
}

static enum iris_status normalize(struct iris_context *ctx, struct iris_rmsnorm_args *args,
                                  enum iris_dtype dtype, void *stream)
{
    const struct iris_direct_launch launch = {
        .operation = IRIS_OP_ALL_REDUCE_RMSNORM,
        .kernel = IRIS_OP_ALL_REDUCE_RMSNORM,
        .dtype = dtype,
        .work_groups = (uint32_t)ctx->ops->compute_units(ctx->device),
        .call = &args->reduce.call,
        .args = args,
        .args_nbytes = sizeof *args,
        .continues = true,
        .stream = stream,
    };

    return iris_direct_run(ctx, &launch);
}

enum iris_status iris_all_reduce_rmsnorm(struct iris_context *ctx,
                                         const struct iris_rmsnorm_tensors *tensors, double eps,
                                         const struct iris_op_options *options)
{
    const struct iris_tensor *input = tensors->input;
    struct iris_op_desc desc = {
        .operation = IRIS_OP_ALL_REDUCE_RMSNORM, .prepare = options->prepare, .root = -1};
    struct iris_rmsnorm_args args = {.eps = (float)eps};
    struct iris_op_launch launch = {
        .call = &args.reduce.call, .args = &args, .args_nbytes = sizeof args};

    IRIS_TRY(check_rmsnorm(ctx, tensors));
    if (!(eps >= 0) || eps > FLT_MAX)
        return IRIS_FAIL(IRIS_EINVAL, "eps: expected >= 0 and finite in float32, got %g", eps);
    desc.dtype = launch.kernel_dtype = input->dtype;
    desc.N = input->shape[input->ndim - 1];
    desc.M = count_rows(input);
    IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
    if (!iris_is_by_packets(desc.variant))
        IRIS_TRY(sum_into_residual(ctx, tensors, desc.variant, options));
    args.reduce.a.address = address_of(input);
    args.reduce.output.address = address_of(tensors->output);
    /* For the kernel there are no rows rather than rows of nothing. */
    args.reduce.M = desc.N > 0 ? desc.M : 0;
    args.reduce.N = desc.N > 0 ? desc.N : 1;
    args.reduce.ending = IRIS_ENDING_LOCAL;
    args.reduce.reduce_scale = 1.0f / (float)args.reduce.N;
    args.residual = address_of(tensors->residual);
    args.residual_out = address_of(tensors->residual_out);
    args.weight = address_of(tensors->weight);
    args.output_dtype = (uint32_t)tensors->output->dtype;
    if (tensors->output_scale != NULL) {
        args.output_scale = address_of(tensors->output_scale);
        args.scale_cols = scale_cols_of(tensors);
    }
    if (iris_is_by_packets(desc.variant))
        return iris_op_run(ctx, &desc, &launch, options);
    return options->prepare ? IRIS_OK : normalize(ctx, &args, desc.dtype, options->stream);
}

/* ---- copying collectives: all_gather, broadcast, all_to_all, gather, scatter ---- */

struct copy_collective {
    enum iris_operation operation;
    int64_t n; /* elements that one rank sends to one rank */
    bool source_moves, target_moves;
    uint32_t senders, receivers;
    int root; /* see iris_op_desc */
};

/* See copy_collectives.hip. */
static bool gets_from_peers(const struct iris_context *ctx, const struct copy_collective *copy)
{
    const uint32_t self = UINT32_C(1) << ctx->rank;

    return (copy->receivers & self) != 0 && (copy->senders & ~self) != 0;
}

static enum iris_status run_copy_collective(struct iris_context *ctx,
                                            const struct copy_collective *copy,
                                            const struct iris_tensor *output,
                                            const struct iris_tensor *input,
                                            const struct iris_op_options *options)
{
    const struct iris_tensor *any = input != NULL ? input : output;
    const uint64_t nbytes = (uint64_t)copy->n * iris_dtype_nbytes(any->dtype);
    struct iris_op_desc desc = {
        .operation = copy->operation,
        .dtype = IRIS_DTYPE_U8,
        .M = (int64_t)nbytes,
        .N = copy->target_moves ? ctx->world_size : 1,
        .prepare = options->prepare,
        .root = copy->root,
    };
    struct iris_copy_collective_args args = {
        .input = address_of(input),
        .output = address_of(output),
        .output_offset = output != NULL ? iris_tensor_reachable_offset(ctx, output) : IRIS_STAGED,
        .nbytes = nbytes,
        .source_step = copy->source_moves ? nbytes : 0,
        .target_step = copy->target_moves ? nbytes : 0,
        .senders = copy->senders,
        .receivers = copy->receivers,
        .ending = IRIS_ENDING_LOCAL,
    };
    struct iris_op_launch launch = {.call = &args.call,
                                    .args = &args,
                                    .args_nbytes = sizeof args,
                                    .kernel_dtype = IRIS_DTYPE_U8};

    desc.local.stages_results = output != NULL && gets_from_peers(ctx, copy) &&
                                iris_may_stage(ctx, output, args.output_offset);
    IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
    desc.block_m = desc.block_n = 1; /* copies have no tiles, need no scratch */
    return iris_op_run(ctx, &desc, &launch, options);
}

static uint32_t everybody(const struct iris_context *ctx)
{
    return (uint32_t)((UINT64_C(1) << ctx->world_size) - 1);
}

/* An impossible rank is refused later. */
static uint32_t just(int rank)
{
    return UINT32_C(1) << (rank & 31);
}

enum iris_status iris_all_gather(struct iris_context *ctx, const struct iris_tensor *output,
                                 const struct iris_tensor *input,
                                 const struct iris_op_options *options)
{
    const struct copy_collective copy = {
        .operation = IRIS_OP_ALL_GATHER,
        .n = iris_tensor_numel(input),
        .target_moves = true,
        .senders = everybody(ctx),
        .receivers = everybody(ctx),
        .root = -1,
    };
    uint64_t own_place;

    IRIS_TRY(check_pair(ctx, output, input));
    IRIS_TRY(
        iris_check_numel("output", output, copy.n * ctx->world_size, "world_size times input's"));
    /* In place, as NCCL has it: the input is the output's own part. */
    own_place =
        address_of(output) + (uint64_t)(ctx->rank * copy.n) * iris_dtype_nbytes(input->dtype);
    if (address_of(input) != own_place)
        IRIS_TRY(iris_check_disjoint("output", output, "input", input));
    return run_copy_collective(ctx, &copy, output, input, options);
}

enum iris_status iris_broadcast(struct iris_context *ctx, const struct iris_tensor *tensor, int src,
                                const struct iris_op_options *options)
{
    const struct copy_collective copy = {
        .operation = IRIS_OP_BROADCAST,
        .n = iris_tensor_numel(tensor),
        .senders = just(src),
        .receivers = everybody(ctx),
        .root = src,
    };

    IRIS_TRY(check_pair(ctx, tensor, tensor));
    IRIS_TRY(check_root(ctx, IRIS_OP_BROADCAST, src));
    return run_copy_collective(ctx, &copy, tensor, tensor, options);
}

enum iris_status iris_gather(struct iris_context *ctx, const struct iris_tensor *output,
                             const struct iris_tensor *input, int dst,
                             const struct iris_op_options *options)
{
    const struct iris_tensor *here = only_at(ctx, dst, output);
    struct copy_collective copy = {
        .operation = IRIS_OP_GATHER,
        .target_moves = true,
        .senders = everybody(ctx),
        .receivers = just(dst),
        .root = dst,
    };

    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(check_root(ctx, IRIS_OP_GATHER, dst));
    IRIS_TRY(check_present("input", input));
    if (ctx->rank == dst)
        IRIS_TRY(check_present("output", output));
    IRIS_TRY(check_pair(ctx, here, input));
    copy.n = iris_tensor_numel(input);
    if (here != NULL) {
        IRIS_TRY(iris_check_numel("output", here, copy.n * ctx->world_size,
                                  "world_size times "
                                  "input's"));
        IRIS_TRY(iris_check_disjoint("output", here, "input", input));
    }
    return run_copy_collective(ctx, &copy, here, input, options);
}

enum iris_status iris_scatter(struct iris_context *ctx, const struct iris_tensor *output,
                              const struct iris_tensor *input, int src,
                              const struct iris_op_options *options)
{
    const struct iris_tensor *here = only_at(ctx, src, input);
    struct copy_collective copy = {
        .operation = IRIS_OP_SCATTER,
        .source_moves = true,
        .senders = just(src),
        .receivers = everybody(ctx),
        .root = src,
    };

    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(check_root(ctx, IRIS_OP_SCATTER, src));
    IRIS_TRY(check_present("output", output));
    if (ctx->rank == src)
        IRIS_TRY(check_present("input", input));
    IRIS_TRY(check_pair(ctx, output, here));
    copy.n = iris_tensor_numel(output);
    if (here != NULL) {
        IRIS_TRY(iris_check_numel("input", here, copy.n * ctx->world_size,
                                  "world_size times "
                                  "output's"));
        IRIS_TRY(iris_check_disjoint("output", output, "input", here));
    }
    return run_copy_collective(ctx, &copy, output, here, options);
}

enum iris_status iris_all_to_all(struct iris_context *ctx, const struct iris_tensor *output,
                                 const struct iris_tensor *input,
                                 const struct iris_op_options *options)
{
    const int64_t numel = iris_tensor_numel(input);
    const struct copy_collective copy = {
        .operation = IRIS_OP_ALL_TO_ALL,
        .n = numel / ctx->world_size,
        .source_moves = true,
        .target_moves = true,
        .senders = everybody(ctx),
        .receivers = everybody(ctx),
        .root = -1,
    };

    if (options->output_sizes != NULL)
        return iris_messages_all_to_all(ctx, output, input, options);
    IRIS_TRY(check_pair(ctx, output, input));
    IRIS_TRY(iris_check_numel("output", output, numel, "as many as input"));
    if (numel % ctx->world_size != 0)
        return IRIS_FAIL(IRIS_EINVAL,
                         "input: expected elements in multiples of world_size %d, got %lld",
                         ctx->world_size, (long long)numel);
    IRIS_TRY(iris_check_disjoint("output", output, "input", input));
    return run_copy_collective(ctx, &copy, output, input, options);
}
