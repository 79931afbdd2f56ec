/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Dtypes of products, and the scales of float8 operands.
 */
#include "op_scales.h"

#include <stdio.h>

#include "op_check.h"
#include "runtime/select/chips.h"

enum { DTYPES_NBYTES = 160 };

static const struct iris_chip *chip_of(const struct iris_context *ctx)
{
    return iris_chip_of(iris_device_traits(ctx->device)->arch, ctx->ops->name);
}

static bool is_float(enum iris_dtype dtype)
{
    return dtype == IRIS_DTYPE_F32 || dtype == IRIS_DTYPE_F16 || dtype == IRIS_DTYPE_BF16;
}

/* "a, b or c": the dtypes that the chip's products take, of float8 or all. */
static void list_dtypes(const struct iris_chip *chip, bool float8, char text[DTYPES_NBYTES])
{
    const char *names[IRIS_DTYPE_COUNT] = {NULL};
    size_t used = 0;
    int count = 0;

    for (int d = 0; d < IRIS_DTYPE_COUNT; ++d)
        if (iris_chip_takes(chip, (enum iris_dtype)d) || (!float8 && is_float((enum iris_dtype)d)))
            names[count++] = iris_dtype_name((enum iris_dtype)d);
    for (int i = 0; i < count; ++i)
        used += (size_t)snprintf(text + used, DTYPES_NBYTES - used, "%s%s", names[i],
                                 i < count - 2    ? ", "
                                 : i == count - 2 ? " or "
                                                  : "");
}

enum iris_status iris_check_product_dtypes(const struct iris_context *ctx, const char *name_of_A,
                                           const struct iris_tensor *C, const struct iris_tensor *A,
                                           const struct iris_tensor *B)
{
    const struct iris_chip *chip = chip_of(ctx);
    char dtypes[DTYPES_NBYTES];

    if (is_float(A->dtype)) {
        IRIS_TRY(iris_check_dtype("B", B, A->dtype, name_of_A));
        return iris_check_dtype("C", C, A->dtype, name_of_A);
    }
    list_dtypes(chip, iris_chip_takes(chip, A->dtype), dtypes);
    if (!iris_chip_takes(chip, A->dtype))
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected dtype %s on %s, got %s", name_of_A, dtypes,
                         chip->arch, iris_dtype_name(A->dtype));
    if (!iris_chip_takes(chip, B->dtype))
        return IRIS_FAIL(IRIS_EINVAL, "B: expected dtype %s, as %s is %s, got %s", dtypes,
                         name_of_A, iris_dtype_name(A->dtype), iris_dtype_name(B->dtype));
    if (!is_float(C->dtype))
        return IRIS_FAIL(IRIS_EINVAL,
                         "C: expected dtype float32, float16 or bfloat16, as %s is %s, got %s",
                         name_of_A, iris_dtype_name(A->dtype), iris_dtype_name(C->dtype));
    if (C->dtype == IRIS_DTYPE_F32 && !chip->float8_to_float32)
        return IRIS_FAIL(IRIS_EINVAL,
                         "C: expected dtype float16 or bfloat16 on %s, as %s is %s, got float32",
                         chip->arch, name_of_A, iris_dtype_name(A->dtype));
    return IRIS_OK;
}

/* ---- scales ---- */

/* The scales of an operand as its kernel indexes them. */
struct operand_scales {
    const char *name, *operand;
    const struct iris_tensor *tensor; /* NULL: none */
    int64_t mn, k;                    /* of the operand */
    int mn_dim, k_dim;                /* of the tensor of scales, if it has two */
};

static struct operand_scales scales_of_A(const char *name_of_A, const struct iris_tensor *A,
                                         const struct iris_op_options *options)
{
    return (struct operand_scales){"scale_a", name_of_A, options->scale_a, A->shape[0], A->shape[1],
                                   0,         1};
}

static struct operand_scales scales_of_B(const struct iris_tensor *B,
                                         const struct iris_op_options *options)
{
    return (struct operand_scales){"scale_b", "B", options->scale_b, B->shape[1], B->shape[0],
                                   1,         0};
}

/* NONE: no kind has this shape. Where two kinds have it they mean the same. */
static enum iris_scale_kind kind_of(const struct operand_scales *s)
{
    const int64_t blocks = iris_ceil_div(s->k, IRIS_SCALE_BLOCK);
    int64_t mn, k;

    if (iris_tensor_numel(s->tensor) == 1)
        return IRIS_SCALE_TENSOR;
    if (s->tensor->ndim != 2)
        return IRIS_SCALE_NONE;
    mn = s->tensor->shape[s->mn_dim];
    k = s->tensor->shape[s->k_dim];
    if (mn == s->mn && k == 1)
        return IRIS_SCALE_ROW;
    if (mn == s->mn && k == blocks)
        return IRIS_SCALE_LINE;
    if (mn == iris_ceil_div(s->mn, IRIS_SCALE_BLOCK) && k == blocks)
        return IRIS_SCALE_SQUARE;
    return IRIS_SCALE_NONE;
}

static enum iris_status fail_shape(const struct operand_scales *s)
{
    const long long mn = s->mn, blocks = iris_ceil_div(s->k, IRIS_SCALE_BLOCK);
    const long long squares = iris_ceil_div(s->mn, IRIS_SCALE_BLOCK);
    const struct iris_tensor *t = s->tensor;
    char got[64];

    if (t->ndim == 2)
        (void)snprintf(got, sizeof got, "shape (%lld, %lld)", (long long)t->shape[0],
                       (long long)t->shape[1]);
    else
        (void)snprintf(got, sizeof got, "%d-D with %lld elements", t->ndim,
                       (long long)iris_tensor_numel(t));
    if (s->mn_dim == 0)
        return IRIS_FAIL(IRIS_EINVAL,
                         "%s: expected one element, or shape (%lld, 1), (%lld, %lld) or "
                         "(%lld, %lld) for %s (%lld, %lld), got %s",
                         s->name, mn, mn, blocks, squares, blocks, s->operand, mn, (long long)s->k,
                         got);
    return IRIS_FAIL(IRIS_EINVAL,
                     "%s: expected one element, or shape (1, %lld), (%lld, %lld) or (%lld, %lld) "
                     "for %s (%lld, %lld), got %s",
                     s->name, mn, blocks, mn, blocks, squares, s->operand, (long long)s->k, mn,
                     got);
}

static enum iris_status check_scales(const struct iris_context *ctx, const struct iris_tensor *C,
                                     enum iris_dtype dtype, const struct operand_scales *s,
                                     enum iris_scale_kind *kind)
{
    *kind = IRIS_SCALE_NONE;
    if (!IRIS_IS_FLOAT8(dtype))
        return s->tensor == NULL ? IRIS_OK
                                 : IRIS_FAIL(IRIS_EINVAL,
                                             "%s: expected None, as %s is %s and not of a float8 "
                                             "dtype, got a tensor",
                                             s->name, s->operand, iris_dtype_name(dtype));
    if (s->tensor == NULL)
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected a float32 tensor, as %s is %s, got None",
                         s->name, s->operand, iris_dtype_name(dtype));
    if (s->tensor->dtype != IRIS_DTYPE_F32)
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected dtype float32, got %s", s->name,
                         iris_dtype_name(s->tensor->dtype));
    IRIS_TRY(iris_check_device(ctx, s->name, s->tensor));
    *kind = kind_of(s);
    if (*kind == IRIS_SCALE_NONE)
        return fail_shape(s);
    return iris_check_disjoint("C", C, s->name, s->tensor);
}

enum iris_status iris_describe_scales(const struct iris_context *ctx, const char *name_of_A,
                                      const struct iris_tensor *C, const struct iris_tensor *A,
                                      const struct iris_tensor *B,
                                      const struct iris_op_options *options,
                                      struct iris_op_desc *desc)
{
    const struct operand_scales a = scales_of_A(name_of_A, A, options);
    const struct operand_scales b = scales_of_B(B, options);

    desc->dtype = A->dtype;
    desc->b_dtype = B->dtype;
    desc->c_dtype = C->dtype;
    IRIS_TRY(check_scales(ctx, C, A->dtype, &a, &desc->scale_a));
    IRIS_TRY(check_scales(ctx, C, B->dtype, &b, &desc->scale_b));
    if (options->trace && chip_of(ctx)->is_gpu && iris_op_desc_is_scaled(desc))
        return IRIS_FAIL(IRIS_EINVAL,
                         "trace: expected False on %s, as %s is %s, of which it has no traced "
                         "kernels, got True",
                         chip_of(ctx)->arch, name_of_A, iris_dtype_name(A->dtype));
    /* A shard's blocks begin where it does, and those of B are to be the same. */
    if (desc->share_k != 0 && ctx->world_size > 1 && IRIS_SCALES_BY_BLOCKS(desc->scale_b) &&
        desc->share_k % IRIS_SCALE_BLOCK != 0)
        return IRIS_FAIL(IRIS_EINVAL,
                         "%s: expected columns in a multiple of %d, so that the blocks of scale_b "
                         "do not reach across shards, got %lld",
                         name_of_A, IRIS_SCALE_BLOCK, (long long)desc->share_k);
    return IRIS_OK;
}

static struct iris_scale_args scale_args_of(const struct iris_tensor *tensor,
                                            enum iris_scale_kind kind, int mn_dim, int k_dim)
{
    struct iris_scale_args args = {.address = (uint64_t)(uintptr_t)tensor->data,
                                   .kind = (uint32_t)kind};

    if (kind != IRIS_SCALE_TENSOR)
        args.stride_mn = tensor->stride[mn_dim];
    if (IRIS_SCALES_BY_BLOCKS(kind))
        args.stride_k = tensor->stride[k_dim];
    return args;
}

struct iris_scaling iris_scaling_of(const struct iris_context *ctx,
                                    const struct iris_op_options *options,
                                    const struct iris_op_desc *desc)
{
    struct iris_scaling scaling = {.a_dtype = (uint32_t)desc->dtype,
                                   .b_dtype = (uint32_t)desc->b_dtype};

    if (desc->scale_a == IRIS_SCALE_NONE)
        return (struct iris_scaling){0};
    if (desc->no_k) { /* of zeros, as the operands are */
        scaling.a.address = scaling.b.address =
            (uint64_t)(uintptr_t)iris_heap_base(ctx->heap, ctx->rank) + ctx->zeros_offset;
        scaling.a.kind = scaling.b.kind = IRIS_SCALE_TENSOR;
        return scaling;
    }
    scaling.a = scale_args_of(options->scale_a, desc->scale_a, 0, 1);
    scaling.b = scale_args_of(options->scale_b, desc->scale_b, 1, 0);
    return scaling;
}
