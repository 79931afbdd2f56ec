/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_gather_matmul, all_gather_matmul_hbm_buffer: argument checks, description, kernel arguments.
 */
#include "kernels/abi/launch_limits.h"
#include "op_check.h"
#include "op_launch.h"
#include "op_operands.h"
#include "op_plain.h"
#include "op_scales.h"
#include "runtime/select/op_select.h"

/* Fills in the shape of the whole product and of a shard. */
static enum iris_status check_shapes(const struct iris_context *ctx,
                                     const struct iris_gather_tensors *t, int gather_dim,
                                     struct iris_op_desc *desc)
{
    int64_t whole[2] = {t->A->shape[0], t->A->shape[1]};

    whole[gather_dim] *= ctx->world_size;
    desc->M = whole[0];
    desc->K = whole[1];
    desc->N = t->B->shape[1];
    desc->dim = gather_dim;
    *(gather_dim == 0 ? &desc->share_m : &desc->share_k) = t->A->shape[gather_dim];
    if (t->B->shape[0] != desc->K)
        return IRIS_FAIL(IRIS_EINVAL,
                         "B: expected %lld rows, the columns of %s A_shard (%lld, %lld), got shape "
                         "(%lld, %lld)",
                         (long long)desc->K, gather_dim == 0 ? "each" : "all ranks'",
                         (long long)t->A->shape[0], (long long)t->A->shape[1],
                         (long long)t->B->shape[0], (long long)t->B->shape[1]);
    if (t->C->shape[0] != desc->M || t->C->shape[1] != desc->N)
        return IRIS_FAIL(IRIS_EINVAL,
                         "C: expected shape (%lld, %lld), the rows of %s A_shard and the columns "
                         "of B, got (%lld, %lld)",
                         (long long)desc->M, (long long)desc->N,
                         gather_dim == 0 ? "all ranks'" : "each", (long long)t->C->shape[0],
                         (long long)t->C->shape[1]);
    return IRIS_OK;
}

static enum iris_status check_joined(const struct iris_context *ctx,
                                     const struct iris_gather_tensors *t,
                                     const struct iris_op_desc *desc)
{
    const struct iris_tensor *joined = t->joined;

    IRIS_TRY(iris_check_matrix("A_gathered", "(M, K)", joined));
    IRIS_TRY(iris_check_dtype("A_gathered", joined, desc->dtype, "A_shard"));
    IRIS_TRY(iris_check_device(ctx, "A_gathered", joined));
    if (joined->shape[0] != desc->M || joined->shape[1] != desc->K)
        return IRIS_FAIL(IRIS_EINVAL,
                         "A_gathered: expected shape (%lld, %lld), all ranks' A_shard, got "
                         "(%lld, %lld)",
                         (long long)desc->M, (long long)desc->K, (long long)joined->shape[0],
                         (long long)joined->shape[1]);
    IRIS_TRY(iris_check_output("A_gathered", joined));
    IRIS_TRY(iris_check_disjoint("A_gathered", joined, "A_shard", t->A));
    IRIS_TRY(iris_check_disjoint("A_gathered", joined, "B", t->B));
    return iris_check_disjoint("A_gathered", joined, "C", t->C);
}

/* The staged shards as a stack, once it is known where they lie. */
static enum iris_status place(struct iris_context *ctx, const struct iris_op_desc *desc,
                              struct iris_call_args *call)
{
    struct iris_gather_args *args = (struct iris_gather_args *)call;
    const struct iris_gather_layout layout = args->layout;
    const int64_t element = (int64_t)iris_dtype_nbytes(desc->dtype);

    if (!iris_is_tensor_core_product(iris_device_traits(ctx->device)->sm90, desc->operation,
                                     desc->dtype))
        return IRIS_OK;
    for (uint32_t half = 0; half < 2; ++half) {
        const struct iris_mapped_operand staged = {
            .data = (char *)iris_heap_base(ctx->heap, ctx->rank) + call->data_offset +
                    half * call->data_half_nbytes,
            .dtype = desc->dtype,
            .mn = layout.rows,
            .k = layout.cols,
            .stride_mn = desc->m_contiguous ? 1 : layout.pitch,
            .stride_k = desc->m_contiguous ? layout.pitch : 1,
            .depth = ctx->world_size,
            .stride_depth = (int64_t)layout.shard_step / element,
        };
        const enum iris_tensor_map_kind kind =
            desc->m_contiguous ? IRIS_TENSOR_MAP_MN : IRIS_TENSOR_MAP_K;
        if (!iris_map_operand_as(ctx, &staged, kind, desc->block_m, &args->staged_maps[half]))
            return IRIS_FAIL(IRIS_EDRIVER, "%s: the driver refused to describe the staged shards",
                             iris_operation_name(desc->operation));
    }
    return IRIS_OK;
}

/* Describes to the tensor copy engine what the caller owns. */
static void map_operands(const struct iris_context *ctx, const struct iris_gather_tensors *t,
                         const struct iris_op_desc *desc, struct iris_gather_args *args)
{
    const bool by_k = desc->share_k != 0;
    const int64_t shard_k = by_k ? desc->share_k : desc->K;
    const int64_t shard_m = by_k ? desc->M : desc->share_m;
    const struct iris_mapped_operand A = {
        .data = t->A->data,
        .dtype = desc->dtype,
        .mn = shard_m,
        .k = shard_k,
        .stride_mn = t->A->stride[0],
        .stride_k = t->A->stride[1],
        .depth = 1,
    };
    const struct iris_mapped_operand B = {
        .data = t->B->data,
        .dtype = desc->dtype,
        .mn = desc->N,
        .k = shard_k,
        .stride_mn = t->B->stride[1],
        .stride_k = t->B->stride[0],
        .depth = by_k ? ctx->world_size : 1,
        .stride_depth = shard_k * t->B->stride[0],
    };
    const struct iris_mapped_operand C = {
        .data = t->C->data,
        .dtype = t->C->dtype,
        .mn = shard_m,
        .k = desc->N,
        .stride_mn = t->C->stride[0],
        .stride_k = t->C->stride[1],
        .depth = by_k ? 1 : ctx->world_size,
        .stride_depth = shard_m * t->C->stride[0],
    };
    const enum iris_tensor_map_kind kind =
        desc->m_contiguous ? IRIS_TENSOR_MAP_MN : IRIS_TENSOR_MAP_K;

    args->product.a_map_kind = kind;
    args->stages_own =
        desc->no_k || !iris_map_operand_as(ctx, &A, kind, desc->block_m, &args->product.a_map);
    if (!desc->no_k)
        args->product.b_map_kind = iris_map_operand(ctx, &B, desc->block_n, &args->product.b_map);
    args->product.c_is_mapped = iris_map_operand_as(
        ctx, &C, IRIS_TENSOR_MAP_K, desc->block_m / desc->local.gpu_parts, &args->product.c_map);
}

enum iris_status iris_all_gather_matmul(struct iris_context *ctx,
                                        const struct iris_gather_tensors *t, int gather_dim,
                                        bool overlapped, const struct iris_op_options *options)
{
    struct iris_op_desc desc = {.operation = overlapped ? IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER
                                                        : IRIS_OP_ALL_GATHER_MATMUL,
                                .root = -1};
    struct iris_gather_args args = {0};
    struct iris_reduce_args *const reduce = &args.product.reduce;
    struct iris_op_launch launch = {
        .call = &reduce->call, .args = &args, .args_nbytes = sizeof args, .place = place};

    IRIS_TRY(iris_context_check(ctx));
    if (gather_dim != 0 && gather_dim != 1)
        return IRIS_FAIL(IRIS_EINVAL, "gather_dim: expected 0 or 1, got %d", gather_dim);
    IRIS_TRY(iris_check_product(ctx, "A_shard", t->C, t->A, t->B));
    IRIS_TRY(check_shapes(ctx, t, gather_dim, &desc));
    IRIS_TRY(iris_describe_scales(ctx, "A_shard", t->C, t->A, t->B, options, &desc));
    if (t->joined != NULL) {
        IRIS_TRY(check_joined(ctx, t, &desc));
        args.gathered = iris_matrix_args_of(t->joined);
    }
    if (t->bias != NULL)
        IRIS_TRY(iris_broadcast_bias(ctx, t->bias, t->C, desc.M, &reduce->bias));
    desc.prepare = options->prepare;
    if (desc.M == 0 || (desc.N == 0 && desc.K == 0)) { /* nor is there anything to join */
        IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
        return iris_op_meet(ctx, &desc, IRIS_ENDING_LOCAL, options);
    }
    if (desc.K == 0)
        args.gathered.address = 0;
    iris_product_depth(ctx, &desc);
    IRIS_TRY(iris_op_select(ctx, options->config, &desc, &launch.work_groups));
    if (desc.form == IRIS_FORM_PLAIN) {
        const struct iris_plain_tensors plain = {
            .C = t->C, .A = t->A, .B = t->B, .joined = t->joined, .bias = reduce->bias};
        return iris_plain_run(ctx, &desc, &plain, launch.work_groups, options);
    }

    iris_product_args_fill(ctx, &desc, options->config, t->C, t->A, t->B, reduce);
    args.product.scaling = iris_scaling_of(ctx, options, &desc);
    reduce->output_offset = IRIS_STAGED; /* nobody else's business */
    reduce->ending = IRIS_ENDING_LOCAL;
    args.layout = iris_op_desc_gather(&desc, ctx->world_size);
    args.schedule = iris_op_desc_gather_schedule(&desc, ctx->world_size);
    args.share_k = desc.share_k;
    args.m_contiguous = desc.m_contiguous;
    args.waits_for_all = !desc.overlaps;
    args.fetch_groups = desc.local.fetch_groups;
    args.idle_senders = desc.local.idle_senders;
    args.k_splits = desc.local.k_splits;
    args.split_tiles = args.schedule.tiles.tiles * args.k_splits;
    if (desc.local.gpu_parts == 0)
        args.stages_own = desc.share_k != 0 && ctx->world_size > 1;
    else if (iris_is_tensor_core_product(iris_device_traits(ctx->device)->sm90, desc.operation,
                                         desc.dtype))
        map_operands(ctx, t, &desc, &args);
    launch.kernel_dtype = iris_op_desc_row_dtype(&desc);
    return iris_op_run(ctx, &desc, &launch, options);
}
