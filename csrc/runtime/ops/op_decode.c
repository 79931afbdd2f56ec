/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Fused products in the form DECODE: kernel arguments, and on GPUs how the product is divided
 * among the multiprocessors. That division is each rank's own business: packets are numbered by
 * rows and columns.
 */
#include "op_decode.h"

#include "kernels/abi/instances.h"
#include "kernels/abi/launch_limits.h"
#include "op_launch.h"
#include "op_operands.h"
#include "runtime/select/op_select.h"

/* Hopper: how many blocks share a tile's K, by the model, and how many there are. `limit`: of
 * blocks. */
static enum iris_status divide(const struct iris_context *ctx, const struct iris_op_desc *desc,
                               const struct iris_decode_layout *layout, int64_t limit,
                               struct iris_op_launch *launch)
{
    const struct iris_chip *chip = iris_select_target_of(ctx).chip;
    const int64_t tiles = iris_ceil_div(layout->cols, IRIS_DECODE_COLS);
    double least = 0;

    for (int32_t size = 1; size <= IRIS_DECODE_MAX_SPLITS; size *= 2) {
        int64_t clusters = limit / size;
        double seconds;
        int resident;

        if (!iris_decode_may_split(layout->rows, desc->K, size))
            break;
        if (size > 1) {
            IRIS_TRY(ctx->ops->max_clusters(ctx->device,
                                            iris_decode_kernel(iris_op_desc_row_dtype(desc)),
                                            (uint32_t)size, &resident));
            clusters = clusters < resident ? clusters : resident;
        }
        if (clusters < 1)
            break;
        seconds =
            iris_decode_product_seconds(chip, layout->rows, layout->cols, desc->K, size, clusters);
        if (size > 1 && seconds >= least)
            continue;
        least = seconds;
        /* No more than what has as many turns. */
        launch->work_groups =
            (uint32_t)(iris_ceil_div(tiles, iris_ceil_div(tiles, clusters)) * size);
        launch->cluster = (uint32_t)size;
    }
    return IRIS_OK;
}

/* gfx: which rounds of the tiles a work-group multiplies, see iris_decode_begin. */
static void divide_rounds(const struct iris_op_desc *desc, uint32_t limit,
                          struct iris_decode_args *args, struct iris_op_launch *launch)
{
    const int64_t tiles = iris_ceil_div(args->layout.cols, IRIS_DECODE_COLS);
    const int64_t rounds = iris_decode_rounds(args->layout.rows, desc->K);
    const int64_t all = desc->k_groups > 0 ? tiles * rounds : tiles;
    int64_t groups = limit < all ? limit : all;

    if (desc->k_groups > 0 && groups > desc->k_groups)
        groups = desc->k_groups;
    if (desc->k_groups == 0) /* no more than what has as many turns */
        groups = iris_ceil_div(tiles, iris_ceil_div(tiles, groups));
    args->rounds = (int32_t)rounds;
    args->quantum = desc->k_groups > 0 ? 1 : (int32_t)rounds;
    args->share = (int32_t)(all / groups);
    args->longer = (int32_t)(all % groups);
    launch->work_groups = (uint32_t)groups;
}

/* Describes the operands to the copy engines. The tokens have to lie in rows of K; where they do
 * not, or an engine cannot read them, the kernel's threads do. */
static void map_operands(const struct iris_context *ctx, const struct iris_decode_layout *layout,
                         const struct iris_tensor *A, const struct iris_tensor *B,
                         struct iris_product_args *product)
{
    const struct iris_mapped_operand tokens = iris_mapped_operand_of(A, 0, 1, 0);
    const struct iris_mapped_operand weights = iris_mapped_operand_of(B, 1, 0, 0);

    if (iris_map_operand_as(ctx, &tokens, IRIS_TENSOR_MAP_K,
                            (int32_t)iris_round_up((uint64_t)layout->rows, 8), &product->a_map))
        product->a_map_kind = IRIS_TENSOR_MAP_K;
    product->b_map_kind = iris_map_operand(ctx, &weights, IRIS_DECODE_COLS, &product->b_map);
}

static bool prefetches_b(const struct iris_config *config)
{
    if (config == NULL || config->prefetch_b == IRIS_OPEN)
        return iris_prefetches_b();
    return config->prefetch_b == IRIS_YES;
}

enum iris_status iris_run_decode(struct iris_context *ctx, const struct iris_op_desc *desc,
                                 const struct iris_tensor *C, const struct iris_tensor *A,
                                 const struct iris_tensor *B,
                                 const struct iris_product_args *product, uint32_t work_groups,
                                 const struct iris_op_options *options)
{
    struct iris_decode_args args = {.layout = iris_op_desc_decode(desc, ctx->world_size)};
    struct iris_reduce_args *const reduce = &args.product.reduce;
    struct iris_op_launch launch = {.call = &reduce->call,
                                    .args = &args,
                                    .args_nbytes = sizeof args,
                                    .work_groups = work_groups,
                                    .cluster = 1,
                                    .kernel_dtype = iris_op_desc_row_dtype(desc)};

    iris_product_args_fill(ctx, desc, options->config, C, A, B, reduce);
    reduce->bias = product->reduce.bias;
    args.product.scaling = product->scaling;
    reduce->output_offset = IRIS_STAGED; /* nobody else's business */
    reduce->ending = IRIS_ENDING_LOCAL;
    if (iris_device_traits(ctx->device)->sm90) {
        IRIS_TRY(divide(ctx, desc, &args.layout, work_groups, &launch));
        map_operands(ctx, &args.layout, A, B, &args.product);
    } else if (iris_device_traits(ctx->device)->is_gpu) {
        divide_rounds(desc, work_groups, &args, &launch);
    }
    args.splits = (int32_t)launch.cluster;
    args.prefetches_b = prefetches_b(options->config);
    return iris_op_run(ctx, desc, &launch, options);
}
