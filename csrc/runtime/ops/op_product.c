/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A product of one rank by itself.
 */
#include "op_product.h"

#include "kernels/abi/instances.h"
#include "op_operands.h"

static struct iris_blas_matrix blas_matrix(const struct iris_tensor *tensor, int64_t step)
{
    return (struct iris_blas_matrix){(uint64_t)(uintptr_t)tensor->data, tensor->stride[0],
                                     tensor->stride[1], step};
}

/* *done false: there is no library, or it cannot take these operands. The library adds a bias that
 * is a row, of elements one after the other. */
static enum iris_status multiply_by_library(struct iris_context *ctx,
                                            const struct iris_storage *storage,
                                            const struct iris_product_step *step, bool *done)
{
    const struct iris_matrix_args *bias = &step->bias;
    const struct iris_blas_product product = {
        .dtype = step->desc->dtype,
        .M = step->desc->M,
        .N = step->desc->N,
        .K = step->desc->K,
        .batch = step->batch,
        .a = blas_matrix(&step->A, 0),
        .b = blas_matrix(&step->B, step->step_B),
        .d = blas_matrix(&step->D, step->step_D),
        .bias = bias->address,
        .workspace = storage->blas_workspace.data,
        .workspace_nbytes = storage->blas_workspace.nbytes,
        .stream = step->stream,
    };

    *done = false;
    if (!ctx->has_blas || iris_op_desc_is_scaled(step->desc) ||
        (bias->address != 0 &&
         ((bias->stride_row != 0 && product.M > 1) || (bias->stride_col != 1 && product.N > 1))))
        return IRIS_OK;
    return ctx->ops->multiply(ctx->device, &product, done);
}

/* Makes of the collective's call one of a world of this rank alone, on the part of the storage that
 * is for such calls. */
static void be_alone(const struct iris_context *ctx, const struct iris_storage *storage,
                     const struct iris_call_args *of_all, struct iris_call_args *call)
{
    const uint64_t rank = (uint64_t)ctx->rank;

    *call = *of_all;
    call->heap_bases[0] = of_all->heap_bases[ctx->rank];
    call->faults_address += rank * sizeof(struct iris_fault);
    call->doorbells_address += rank * sizeof(struct iris_doorbell);
    call->control_offset = storage->product_control_offset;
    call->flags_offset = storage->product_flags_offset;
    call->flags_count = (uint32_t)storage->room.product_flags_count;
    call->data_offset = storage->product_data_offset;
    call->data_half_nbytes = storage->room.product_half_nbytes;
    call->packets_half_count = call->bare_half_count = 0;
    call->rank = 0;
    call->world_size = 1;
    call->operation = IRIS_OP_MATMUL_ALL_REDUCE;
}

/* From the scales of one B of a batch, which is some columns of the caller's, to those of the next;
 * see plain_is_available. */
static int64_t step_of_scales(const struct iris_product_step *step)
{
    const struct iris_scale_args *scales = &step->scaling.b;
    const int64_t columns = step->desc->N;

    return scales->stride_mn *
           (scales->kind == IRIS_SCALE_SQUARE ? columns / IRIS_SCALE_BLOCK : columns);
}

/* The i-th of the batch by the kernel of matmul_all_reduce, which of one rank is a product. */
static enum iris_status multiply(struct iris_context *ctx, const struct iris_storage *storage,
                                 const struct iris_product_step *step, int i)
{
    const struct iris_op_desc *desc = step->desc;
    struct iris_tensor B = step->B, D = step->D;
    struct iris_product_args args = {0};
    const struct iris_launch launch = {
        .kernel = IRIS_KERNEL_ID(IRIS_OP_MATMUL_ALL_REDUCE, IRIS_VARIANT_TWO_SHOT,
                                 iris_op_desc_row_dtype(desc)),
        .work_groups = step->work_groups,
        .args = &args,
        .args_nbytes = sizeof args,
        .scratch_nbytes = desc->local.gpu_parts > 0
                              ? 0
                              : iris_host_scratch_nbytes(desc->block_m, desc->block_n, desc->K,
                                                         iris_op_desc_is_scaled(desc)),
        .traced = step->call->trace != 0,
        .stream = step->stream,
    };

    B.data = (char *)B.data + i * step->step_B * (int64_t)iris_dtype_nbytes(B.dtype);
    D.data = (char *)D.data + i * step->step_D * (int64_t)iris_dtype_nbytes(D.dtype);
    be_alone(ctx, storage, step->call, &args.reduce.call);
    iris_product_args_fill(ctx, desc, step->config, &D, &step->A, &B, &args.reduce);
    args.reduce.bias = step->bias;
    args.scaling = step->scaling;
    args.scaling.b.address += (uint64_t)(i * step_of_scales(step)) * sizeof(float);
    args.reduce.ending = IRIS_ENDING_LOCAL;
    args.a_map_kind = iris_map_matrix(ctx, &step->A, 0, 1, desc->block_m, 0, &args.a_map);
    args.b_map_kind = iris_map_matrix(ctx, &B, 1, 0, desc->block_n, 0, &args.b_map);
    args.c_is_mapped = step->bias.address == 0 && desc->local.gpu_parts > 0 &&
                       iris_map_matrix(ctx, &D, 0, 1, desc->block_m / desc->local.gpu_parts, 0,
                                       &args.c_map) == IRIS_TENSOR_MAP_K;
    return ctx->ops->launch(ctx->device, &launch);
}

enum iris_status iris_product_run(struct iris_context *ctx, struct iris_storage *storage,
                                  const struct iris_product_step *step, bool *completed)
{
    const struct iris_workspace_control *control =
        (const struct iris_workspace_control *)(iris_heap_base(ctx->heap, ctx->rank) +
                                                storage->product_control_offset);
    const bool is_gpu = iris_device_traits(ctx->device)->is_gpu;
    const uint64_t before = is_gpu ? 0 : control->calls;
    bool done;

    *completed = true;
    IRIS_TRY(multiply_by_library(ctx, storage, step, &done));
    if (done)
        return IRIS_OK;
    for (int i = 0; i < step->batch; ++i)
        IRIS_TRY(multiply(ctx, storage, step, i));
    *completed = is_gpu || control->calls == before + (uint64_t)step->batch;
    return IRIS_OK;
}

enum iris_status iris_product_try(struct iris_context *ctx, const struct iris_storage *storage,
                                  const struct iris_product_step *step)
{
    bool done;

    return multiply_by_library(ctx, storage, step, &done);
}

void iris_product_prepare(struct iris_context *ctx, struct iris_storage *storage)
{
    if (ctx->has_blas && storage->blas_workspace.data == NULL)
        (void)ctx->ops->blas_workspace(ctx->device, &storage->blas_workspace);
}
