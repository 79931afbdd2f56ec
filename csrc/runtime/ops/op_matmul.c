/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * matmul_all_reduce, matmul_reduce_scatter, matmul_all_gather: argument checks, description, kernel
 * arguments.
 */
#include "op_check.h"
#include "op_decode.h"
#include "op_launch.h"
#include "op_operands.h"
#include "op_plain.h"
#include "op_scales.h"
#include "runtime/select/op_select.h"

static enum iris_status check_operands(const struct iris_context *ctx, const struct iris_tensor *C,
                                       const struct iris_tensor *A, const struct iris_tensor *B)
{
    IRIS_TRY(iris_check_product(ctx, "A", C, A, B));
    if (B->shape[0] != A->shape[1])
        return IRIS_FAIL(IRIS_EINVAL,
                         "B: expected %lld rows, the columns of A (%lld, %lld), got shape "
                         "(%lld, %lld)",
                         (long long)A->shape[1], (long long)A->shape[0], (long long)A->shape[1],
                         (long long)B->shape[0], (long long)B->shape[1]);
    return IRIS_OK;
}

/* C is as the product: along `dim` (-1: neither) divided by the ranks, or, gathered, W times as
 * many rows. Fills in the shares, and makes M and N those of all ranks' result together. */
static enum iris_status check_result(const struct iris_context *ctx, const struct iris_tensor *C,
                                     int dim, struct iris_op_desc *desc)
{
    const int64_t whole[] = {desc->M, desc->N};
    int64_t expected[] = {desc->M, desc->N};

    if (desc->operation == IRIS_OP_MATMUL_ALL_GATHER) {
        desc->share_m = desc->M;
        desc->M *= ctx->world_size;
        expected[0] = desc->M;
    } else if (dim >= 0) {
        if (whole[dim] % ctx->world_size != 0)
            return IRIS_FAIL(IRIS_EINVAL,
                             "%s: expected %s in a multiple of world_size %d for dim=%d, got %lld",
                             dim == 0 ? "A" : "B", dim == 0 ? "rows" : "columns", ctx->world_size,
                             dim, (long long)whole[dim]);
        expected[dim] /= ctx->world_size;
        desc->dim = dim;
        *(dim == 0 ? &desc->share_m : &desc->share_n) = expected[dim];
    }
    if (C->shape[0] == expected[0] && C->shape[1] == expected[1])
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "C: expected shape (%lld, %lld), the rows of A and the columns of B%s, got "
                     "(%lld, %lld)",
                     (long long)expected[0], (long long)expected[1],
                     dim >= 0             ? ", one of them over world_size"
                     : desc->share_m != 0 ? ", those of all ranks"
                                          : "",
                     (long long)C->shape[0], (long long)C->shape[1]);
}

/* dim: along which the result is scattered; -1: all ranks get all of it. */
static enum iris_status run_product(struct iris_context *ctx, enum iris_operation operation,
                                    int dim, const struct iris_tensor *C,
                                    const struct iris_tensor *A, const struct iris_tensor *B,
                                    const struct iris_tensor *bias,
                                    const struct iris_op_options *options)
{
    struct iris_op_desc desc = {.operation = operation, .root = -1};
    struct iris_product_args product = {0};
    struct iris_reduce_args *const args = &product.reduce;
    struct iris_op_launch launch = {
        .call = &args->call, .args = &product, .args_nbytes = sizeof product};
    int64_t own_rows; /* of the bias */

    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(check_operands(ctx, C, A, B));
    desc.M = A->shape[0];
    desc.N = B->shape[1];
    desc.K = A->shape[1];
    IRIS_TRY(check_result(ctx, C, dim, &desc));
    IRIS_TRY(iris_describe_scales(ctx, "A", C, A, B, options, &desc));
    own_rows = operation == IRIS_OP_MATMUL_ALL_GATHER ? desc.share_m : C->shape[0];
    if (bias != NULL)
        IRIS_TRY(iris_broadcast_bias(ctx, bias, C, own_rows, &args->bias));
    desc.has_bias = bias != NULL;
    desc.prepare = options->prepare;
    args->output_offset = iris_tensor_reachable_offset(ctx, C);
    desc.local.stages_results = dim < 0 && iris_may_stage(ctx, C, args->output_offset);
    /* Nobody else writes or reads a share of the result. */
    args->ending = dim >= 0            ? IRIS_ENDING_LOCAL
                   : options->async_op ? IRIS_ENDING_TELLS
                                       : IRIS_ENDING_WAITS;
    if (desc.M == 0 || desc.N == 0) {
        IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
        return iris_op_meet(ctx, &desc, args->ending, options);
    }
    iris_product_depth(ctx, &desc);
    IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
    product.scaling = iris_scaling_of(ctx, options, &desc);
    if (desc.form == IRIS_FORM_PLAIN) {
        const struct iris_plain_tensors plain = {
            .C = C, .A = A, .B = B, .bias = args->bias, .scaling = product.scaling};
        return iris_plain_run(ctx, &desc, &plain, launch.work_groups, options);
    }
    if (desc.form == IRIS_FORM_DECODE)
        return iris_run_decode(ctx, &desc, C, A, B, &product, launch.work_groups, options);

    iris_product_args_fill(ctx, &desc, options->config, C, A, B, args);
    args->share_m = desc.share_m;
    args->share_n = desc.share_n;
    if (!desc.no_k) {
        product.a_map_kind = iris_map_matrix(ctx, A, 0, 1, desc.block_m,
                                             dim == 0 ? desc.share_m : 0, &product.a_map);
        product.b_map_kind =
            iris_map_matrix(ctx, B, 1, 0, desc.block_n, desc.share_n, &product.b_map);
    }
    /* Alone there is nothing to exchange, and a product without a bias is the result. */
    product.c_is_mapped = ctx->world_size == 1 && bias == NULL && desc.local.gpu_parts > 0 &&
                          iris_map_matrix(ctx, C, 0, 1, desc.block_m / desc.local.gpu_parts, 0,
                                          &product.c_map) == IRIS_TENSOR_MAP_K;
    launch.kernel_dtype = iris_op_desc_row_dtype(&desc);
    return iris_op_run(ctx, &desc, &launch, options);
}

enum iris_status iris_matmul_all_reduce(struct iris_context *ctx, const struct iris_tensor *C,
                                        const struct iris_tensor *A, const struct iris_tensor *B,
                                        const struct iris_tensor *bias,
                                        const struct iris_op_options *options)
{
    return run_product(ctx, IRIS_OP_MATMUL_ALL_REDUCE, -1, C, A, B, bias, options);
}

enum iris_status iris_matmul_reduce_scatter(struct iris_context *ctx, const struct iris_tensor *C,
                                            const struct iris_tensor *A,
                                            const struct iris_tensor *B,
                                            const struct iris_tensor *bias, int dim,
                                            const struct iris_op_options *options)
{
    if (dim != 0 && dim != 1)
        return IRIS_FAIL(IRIS_EINVAL, "dim: expected 0 or 1, got %d", dim);
    return run_product(ctx, IRIS_OP_MATMUL_REDUCE_SCATTER, dim, C, A, B, bias, options);
}

enum iris_status iris_matmul_all_gather(struct iris_context *ctx, const struct iris_tensor *C,
                                        const struct iris_tensor *A, const struct iris_tensor *B,
                                        const struct iris_tensor *bias,
                                        const struct iris_op_options *options)
{
    return run_product(ctx, IRIS_OP_MATMUL_ALL_GATHER, -1, C, A, B, bias, options);
}
