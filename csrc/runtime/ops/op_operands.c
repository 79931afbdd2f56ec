/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Operands of fused products: checks, and how kernels are told of them.
 */
#include "op_operands.h"

#include "op_check.h"
#include "op_scales.h"
#include "runtime/select/op_select.h"

struct iris_matrix_args iris_matrix_args_of(const struct iris_tensor *tensor)
{
    return (struct iris_matrix_args){(uint64_t)(uintptr_t)tensor->data, tensor->stride[0],
                                     tensor->stride[1]};
}

void iris_product_depth(const struct iris_context *ctx, struct iris_op_desc *desc)
{
    const bool by_k = IRIS_IS_GATHERED_PRODUCT(desc->operation) && desc->dim == 1;

    if (desc->K != 0)
        return;
    desc->no_k = true;
    if (iris_op_desc_is_scaled(desc))
        desc->scale_a = desc->scale_b = IRIS_SCALE_TENSOR;
    desc->K = by_k ? ctx->world_size : 1;
    desc->share_k = by_k ? 1 : 0;
}

void iris_product_args_fill(const struct iris_context *ctx, const struct iris_op_desc *desc,
                            const struct iris_config *config, const struct iris_tensor *C,
                            const struct iris_tensor *A, const struct iris_tensor *B,
                            struct iris_reduce_args *out)
{
    const struct iris_matrix_args zeros = {
        (uint64_t)(uintptr_t)iris_heap_base(ctx->heap, ctx->rank) + ctx->zeros_offset, 0, 0};

    out->a = desc->no_k ? zeros : iris_matrix_args_of(A);
    out->b = desc->no_k ? zeros : iris_matrix_args_of(B);
    out->output = iris_matrix_args_of(C);
    out->M = desc->M;
    out->N = desc->N;
    out->K = desc->K;
    out->block_m = desc->block_m;
    out->block_n = desc->block_n;
    out->block_k = desc->block_k;
    out->group_size_m = desc->group_size_m;
    out->reduce_scale = 1.0f;
    out->root = -1;
    out->num_xcds = iris_op_select_xcds(ctx, config);
}

bool iris_map_operand_as(const struct iris_context *ctx, const struct iris_mapped_operand *operand,
                         enum iris_tensor_map_kind kind, int32_t block_mn,
                         struct iris_tensor_map *out)
{
    enum { LINE_NBYTES = 128, /* the engine's swizzle */ CHUNK_NBYTES = 16 };
    const int64_t element = (int64_t)iris_dtype_nbytes(operand->dtype);
    const int64_t line = LINE_NBYTES / element, chunk = CHUNK_NBYTES / element;
    const bool by_mn = kind == IRIS_TENSOR_MAP_MN;
    const int64_t inner = by_mn ? operand->mn : operand->k;
    const int64_t outer = by_mn ? operand->k : operand->mn;
    const int64_t inner_stride = by_mn ? operand->stride_mn : operand->stride_k;
    const int64_t outer_stride = by_mn ? operand->stride_k : operand->stride_mn;
    const int64_t pitch =
        outer > 1 ? outer_stride : (int64_t)iris_round_up((uint64_t)inner, (uint64_t)chunk);
    const struct iris_tensor_map_request request = {
        .data = operand->data,
        .dtype = operand->dtype,
        .inner = (uint64_t)inner,
        .outer = (uint64_t)outer,
        .pitch_nbytes = (uint64_t)(pitch * element),
        .depth = (uint64_t)operand->depth,
        .depth_nbytes = (uint64_t)((operand->depth > 1 ? operand->stride_depth : pitch) * element),
        .box_inner = (uint32_t)line,
        .box_outer = by_mn ? (uint32_t)line : (uint32_t)block_mn,
    };

    /* The tensor cores take float8 only along K. */
    if (ctx->ops->tensor_map == NULL || element > 2 || (by_mn && element != 2) ||
        (by_mn && operand->share_mn % chunk != 0) || (inner_stride != 1 && inner != 1))
        return false;
    return ctx->ops->tensor_map(ctx->device, &request, out);
}

enum iris_tensor_map_kind iris_map_operand(const struct iris_context *ctx,
                                           const struct iris_mapped_operand *operand,
                                           int32_t block_mn, struct iris_tensor_map *out)
{
    if (iris_map_operand_as(ctx, operand, IRIS_TENSOR_MAP_K, block_mn, out))
        return IRIS_TENSOR_MAP_K;
    if (iris_map_operand_as(ctx, operand, IRIS_TENSOR_MAP_MN, block_mn, out))
        return IRIS_TENSOR_MAP_MN;
    return IRIS_TENSOR_MAP_NONE;
}

struct iris_mapped_operand iris_mapped_operand_of(const struct iris_tensor *tensor, int mn, int k,
                                                  int64_t share_mn)
{
    return (struct iris_mapped_operand){
        .data = tensor->data,
        .dtype = tensor->dtype,
        .mn = tensor->shape[mn],
        .k = tensor->shape[k],
        .stride_mn = tensor->stride[mn],
        .stride_k = tensor->stride[k],
        .share_mn = share_mn,
    };
}

enum iris_tensor_map_kind iris_map_matrix(const struct iris_context *ctx,
                                          const struct iris_tensor *tensor, int mn, int k,
                                          int32_t block_mn, int64_t share_mn,
                                          struct iris_tensor_map *out)
{
    const struct iris_mapped_operand operand = iris_mapped_operand_of(tensor, mn, k, share_mn);

    return iris_map_operand(ctx, &operand, block_mn, out);
}

enum iris_status iris_check_product(const struct iris_context *ctx, const char *name_of_A,
                                    const struct iris_tensor *C, const struct iris_tensor *A,
                                    const struct iris_tensor *B)
{
    IRIS_TRY(iris_check_matrix(name_of_A, "(M, K)", A));
    IRIS_TRY(iris_check_matrix("B", "(K, N)", B));
    IRIS_TRY(iris_check_matrix("C", "(M, N)", C));
    IRIS_TRY(iris_check_product_dtypes(ctx, name_of_A, C, A, B));
    IRIS_TRY(iris_check_device(ctx, name_of_A, A));
    IRIS_TRY(iris_check_device(ctx, "B", B));
    IRIS_TRY(iris_check_device(ctx, "C", C));
    IRIS_TRY(iris_check_output("C", C));
    IRIS_TRY(iris_check_disjoint("C", C, name_of_A, A));
    return iris_check_disjoint("C", C, "B", B);
}

enum iris_status iris_broadcast_bias(const struct iris_context *ctx, const struct iris_tensor *bias,
                                     const struct iris_tensor *C, int64_t num_rows,
                                     struct iris_matrix_args *out)
{
    const int rows = bias->ndim - 2, cols = bias->ndim - 1; /* dimensions that broadcast to those */

    IRIS_TRY(iris_check_device(ctx, "bias", bias));
    IRIS_TRY(iris_check_dtype("bias", bias, C->dtype, "C"));
    if (bias->ndim < 1 || bias->ndim > 2 ||
        (bias->shape[cols] != 1 && bias->shape[cols] != C->shape[1]) ||
        (rows >= 0 && bias->shape[rows] != 1 && bias->shape[rows] != num_rows))
        return IRIS_FAIL(IRIS_EINVAL,
                         "bias: expected a shape that broadcasts to (%lld, %lld), got %d-D with "
                         "last size %lld",
                         (long long)num_rows, (long long)C->shape[1], bias->ndim,
                         bias->ndim > 0 ? (long long)bias->shape[cols] : 1LL);
    IRIS_TRY(iris_check_disjoint("C", C, "bias", bias));
    out->address = (uint64_t)(uintptr_t)bias->data;
    out->stride_col = bias->shape[cols] != 1 ? bias->stride[cols] : 0;
    out->stride_row = rows >= 0 && bias->shape[rows] != 1 ? bias->stride[rows] : 0;
    return IRIS_OK;
}
