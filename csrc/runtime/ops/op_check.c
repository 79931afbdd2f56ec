/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Argument checks shared by the operations.
 */
#include "op_check.h"

#include <stdio.h>
#include <stdlib.h>

/* The bytes that a tensor's elements span: from the lowest address to one past the highest. */
struct span {
    uintptr_t begin, end;
};

static struct span span_of(const struct iris_tensor *tensor)
{
    const int64_t size = (int64_t)iris_dtype_nbytes(tensor->dtype);
    int64_t low = 0, high = 0;

    if (iris_tensor_numel(tensor) == 0)
        return (struct span){(uintptr_t)tensor->data, (uintptr_t)tensor->data};
    for (int d = 0; d < tensor->ndim; ++d) {
        const int64_t reach = (tensor->shape[d] - 1) * tensor->stride[d];
        if (reach < 0)
            low += reach;
        else
            high += reach;
    }
    return (struct span){(uintptr_t)tensor->data + (uintptr_t)(low * size),
                         (uintptr_t)tensor->data + (uintptr_t)((high + 1) * size)};
}

static void format_dims(const int64_t *values, int ndim, char text[128])
{
    size_t used = 0;

    text[0] = '\0';
    for (int d = 0; d < ndim && used < 100; ++d)
        used += (size_t)snprintf(text + used, 128 - used, "%s%lld", d > 0 ? ", " : "",
                                 (long long)values[d]);
}

int64_t iris_tensor_numel(const struct iris_tensor *tensor)
{
    int64_t numel = 1;

    for (int d = 0; d < tensor->ndim; ++d)
        numel *= tensor->shape[d];
    return numel;
}

static bool is_on_device(const struct iris_context *ctx, const struct iris_tensor *tensor)
{
    const bool cpu = ctx->ops == &iris_device_cpu;

    return tensor->on_cpu == cpu && (cpu || tensor->device_id == iris_context_device_id(ctx));
}

enum iris_status iris_check_device(const struct iris_context *ctx, const char *name,
                                   const struct iris_tensor *tensor)
{
    const int expected = iris_context_device_id(ctx);

    if (is_on_device(ctx, tensor))
        return IRIS_OK;
    if (tensor->on_cpu)
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected a tensor on %s:%d, got one on the cpu", name,
                         ctx->ops->name, expected);
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected a tensor on %s:%d, got one on device %d", name,
                     ctx->ops->name, expected, tensor->device_id);
}

enum iris_status iris_check_dtype(const char *name, const struct iris_tensor *tensor,
                                  enum iris_dtype expected, const char *expected_by)
{
    if (tensor->dtype == expected)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected dtype %s like %s, got %s", name,
                     iris_dtype_name(expected), expected_by, iris_dtype_name(tensor->dtype));
}

enum iris_status iris_check_computable(const char *name, const struct iris_tensor *tensor)
{
    switch (tensor->dtype) {
    case IRIS_DTYPE_F32:
    case IRIS_DTYPE_F16:
    case IRIS_DTYPE_BF16:
        return IRIS_OK;
    default:
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected dtype float32, float16 or bfloat16, got %s",
                         name, iris_dtype_name(tensor->dtype));
    }
}

enum iris_status iris_check_reducible(const char *name, const struct iris_tensor *tensor)
{
    switch (tensor->dtype) {
    case IRIS_DTYPE_F32:
    case IRIS_DTYPE_F16:
    case IRIS_DTYPE_BF16:
    case IRIS_DTYPE_F64:
    case IRIS_DTYPE_I8:
    case IRIS_DTYPE_I32:
    case IRIS_DTYPE_I64:
    case IRIS_DTYPE_U8:
    case IRIS_DTYPE_BOOL:
        return IRIS_OK;
    default:
        return IRIS_FAIL(IRIS_EINVAL,
                         "%s: expected dtype float32, float16, bfloat16, float64, int8, int32, "
                         "int64, uint8 or bool, got %s",
                         name, iris_dtype_name(tensor->dtype));
    }
}

enum iris_status iris_check_matrix(const char *name, const char *meaning,
                                   const struct iris_tensor *tensor)
{
    char shape[128];

    if (tensor->ndim == 2)
        return IRIS_OK;
    format_dims(tensor->shape, tensor->ndim, shape);
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected a 2-D tensor %s, got %d-D with shape (%s)", name,
                     meaning, tensor->ndim, shape);
}

bool iris_tensor_is_contiguous(const struct iris_tensor *tensor)
{
    int64_t expected = 1;

    if (iris_tensor_numel(tensor) == 0)
        return true;
    for (int d = tensor->ndim - 1; d >= 0; --d) {
        if (tensor->shape[d] != 1 && tensor->stride[d] != expected)
            return false;
        expected *= tensor->shape[d];
    }
    return true;
}

enum iris_status iris_check_contiguous(const char *name, const struct iris_tensor *tensor)
{
    char shape[128], stride[128];

    if (iris_tensor_is_contiguous(tensor))
        return IRIS_OK;
    format_dims(tensor->shape, tensor->ndim, shape);
    format_dims(tensor->stride, tensor->ndim, stride);
    return IRIS_FAIL(IRIS_EINVAL,
                     "%s: expected a contiguous tensor, got shape (%s) with strides (%s)", name,
                     shape, stride);
}

enum iris_status iris_check_output(const char *name, const struct iris_tensor *tensor)
{
    int64_t reach = 1;
    bool used[IRIS_MAX_DIMS] = {false};
    char shape[128], stride[128];

    if (tensor->read_only)
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected a writable tensor, got a read-only one", name);
    if (iris_tensor_numel(tensor) == 0)
        return IRIS_OK;
    /* By growing stride, each dimension must step over all that the smaller ones reach. */
    for (int step = 0; step < tensor->ndim; ++step) {
        int next = 0;
        while (used[next])
            ++next;
        for (int d = next + 1; d < tensor->ndim; ++d)
            if (!used[d] && llabs(tensor->stride[d]) < llabs(tensor->stride[next]))
                next = d;
        used[next] = true;
        if (tensor->shape[next] <= 1)
            continue;
        if (llabs(tensor->stride[next]) < reach) {
            format_dims(tensor->shape, tensor->ndim, shape);
            format_dims(tensor->stride, tensor->ndim, stride);
            return IRIS_FAIL(IRIS_EINVAL,
                             "%s: expected elements that do not share memory, got shape (%s) with "
                             "strides (%s)",
                             name, shape, stride);
        }
        reach += (tensor->shape[next] - 1) * llabs(tensor->stride[next]);
    }
    return IRIS_OK;
}

/* Column ranges of one row-major buffer: their spans interleave, their elements do not meet. */
static bool are_separate_columns(const struct iris_tensor *a, const struct iris_tensor *b)
{
    const int64_t size = (int64_t)iris_dtype_nbytes(a->dtype);
    const int64_t pitch = a->ndim == 2 ? a->stride[0] : 0;
    int64_t distance, shift;

    if (a->ndim != 2 || b->ndim != 2 || a->dtype != b->dtype || pitch <= 0 ||
        b->stride[0] != pitch || a->stride[1] != 1 || b->stride[1] != 1 || a->shape[1] > pitch ||
        b->shape[1] > pitch)
        return false;
    distance = (int64_t)((intptr_t)b->data - (intptr_t)a->data);
    if (distance % size != 0)
        return false;
    shift = distance / size % pitch;
    if (shift < 0)
        shift += pitch;
    /* b's columns are [shift, shift + n) of a's pitch, cyclically. */
    return shift >= a->shape[1] && shift + b->shape[1] <= pitch;
}

enum iris_status iris_check_disjoint(const char *output_name, const struct iris_tensor *output,
                                     const char *input_name, const struct iris_tensor *input)
{
    const struct span o = span_of(output), i = span_of(input);

    if (o.end <= i.begin || i.end <= o.begin || o.begin == o.end || i.begin == i.end ||
        are_separate_columns(output, input))
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected memory apart from %s's, got overlapping tensors",
                     output_name, input_name);
}

enum iris_status iris_check_numel(const char *name, const struct iris_tensor *tensor,
                                  int64_t expected, const char *why)
{
    const int64_t numel = iris_tensor_numel(tensor);

    if (numel == expected)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected %lld elements (%s), got %lld", name,
                     (long long)expected, why, (long long)numel);
}

enum iris_status iris_check_pair(const struct iris_context *ctx, const char *output_name,
                                 const struct iris_tensor *output, const char *input_name,
                                 const struct iris_tensor *input)
{
    IRIS_TRY(iris_context_check(ctx));
    if (input != NULL) {
        IRIS_TRY(iris_check_device(ctx, input_name, input));
        IRIS_TRY(iris_check_contiguous(input_name, input));
    }
    if (output == NULL)
        return IRIS_OK;
    IRIS_TRY(iris_check_device(ctx, output_name, output));
    if (input != NULL)
        IRIS_TRY(iris_check_dtype(input_name, input, output->dtype, output_name));
    IRIS_TRY(iris_check_contiguous(output_name, output));
    return iris_check_output(output_name, output);
}

bool iris_context_owns(const struct iris_context *ctx, const struct iris_tensor *tensor)
{
    if (iris_tensor_numel(tensor) == 0)
        return is_on_device(ctx, tensor);
    return iris_tensor_symmetric_offset(ctx, tensor) != IRIS_STAGED;
}

bool iris_context_reaches(const struct iris_context *ctx, const struct iris_tensor *tensor)
{
    if (iris_tensor_numel(tensor) == 0)
        return is_on_device(ctx, tensor);
    return iris_tensor_reachable_offset(ctx, tensor) != IRIS_STAGED;
}

static uint64_t offset_if(bool there, const struct iris_context *ctx,
                          const struct iris_tensor *tensor)
{
    return there ? (uint64_t)((uintptr_t)tensor->data -
                              (uintptr_t)iris_heap_base(ctx->heap, ctx->rank))
                 : IRIS_STAGED;
}

uint64_t iris_tensor_reachable_offset(const struct iris_context *ctx,
                                      const struct iris_tensor *tensor)
{
    const struct span span = span_of(tensor);

    return offset_if(
        iris_heap_is_reachable(ctx->heap, (const void *)span.begin, span.end - span.begin), ctx,
        tensor);
}

bool iris_may_stage(const struct iris_context *ctx, const struct iris_tensor *tensor,
                    uint64_t offset)
{
    return offset == IRIS_STAGED || (ctx->ops->stream_is_capturing != NULL &&
                                     iris_tensor_symmetric_offset(ctx, tensor) == IRIS_STAGED);
}

uint64_t iris_tensor_symmetric_offset(const struct iris_context *ctx,
                                      const struct iris_tensor *tensor)
{
    const struct span span = span_of(tensor);

    return offset_if(
        iris_heap_is_symmetric(ctx->heap, (const void *)span.begin, span.end - span.begin), ctx,
        tensor);
}
