/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Checks of descriptions.
 */
#include "py_description.h"

const char iris_py_tensor_kinds[] =
    "a tensor (torch.Tensor, iris_c.Buffer, numpy.ndarray or any DLPack exporter)";

int iris_py_tensor_check_ndim(const char *argument, int ndim)
{
    if (ndim >= 0 && ndim <= IRIS_MAX_DIMS)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected 0 to %d dimensions, got %d", argument,
                 (int)IRIS_MAX_DIMS, ndim);
    return -1;
}

void iris_py_tensor_row_major(struct iris_tensor *tensor)
{
    uint64_t step = 1; /* what overflows is refused afterwards */

    for (int i = tensor->ndim - 1; i >= 0; i--) {
        tensor->stride[i] = (int64_t)step;
        step *= (uint64_t)tensor->shape[i];
    }
}

/* More than there is on any machine, and little enough to be multiplied by a number of ranks. */
#define BYTES_LIMIT (INT64_C(1) << 56)

/* The bytes of all elements, with sizes of 0 counted as 1, must be less than BYTES_LIMIT. */
static int check_sizes(const char *argument, const struct iris_tensor *tensor, bool *is_empty)
{
    int64_t nbytes = (int64_t)iris_dtype_nbytes(tensor->dtype);

    *is_empty = false;
    for (int i = 0; i < tensor->ndim; i++) {
        const int64_t size = tensor->shape[i];

        if (size < 0) {
            PyErr_Format(PyExc_ValueError, "%s: expected sizes >= 0, got %lld in dimension %d",
                         argument, (long long)size, i);
            return -1;
        }
        *is_empty = *is_empty || size == 0;
        if (size != 0 && (__builtin_mul_overflow(nbytes, size, &nbytes) || nbytes >= BYTES_LIMIT)) {
            PyErr_Format(PyExc_ValueError,
                         "%s: expected less than 2**56 bytes, got more by the size %lld of "
                         "dimension %d",
                         argument, (long long)size, i);
            return -1;
        }
    }
    return 0;
}

/* The lowest and one past the highest byte, from the first element on. */
static int check_extent(const char *argument, const struct iris_tensor *tensor, int64_t *low,
                        int64_t *high)
{
    const int64_t itemsize = (int64_t)iris_dtype_nbytes(tensor->dtype);

    *low = 0;
    *high = itemsize;
    for (int i = 0; i < tensor->ndim; i++) {
        int64_t *end = tensor->stride[i] < 0 ? low : high;
        int64_t reach;

        if (__builtin_mul_overflow(tensor->shape[i] - 1, tensor->stride[i], &reach) ||
            __builtin_mul_overflow(reach, itemsize, &reach) ||
            __builtin_add_overflow(*end, reach, end)) {
            PyErr_Format(PyExc_ValueError,
                         "%s: expected strides within 2**63 bytes, got %lld for %lld elements of "
                         "dimension %d",
                         argument, (long long)tensor->stride[i], (long long)tensor->shape[i], i);
            return -1;
        }
    }
    return 0;
}

int iris_py_tensor_check(const char *argument, struct iris_tensor *tensor)
{
    const size_t alignment = iris_dtype_alignment(tensor->dtype);
    const uintptr_t address = (uintptr_t)tensor->data;
    int64_t low, high, ignored;
    bool is_empty;

    if (check_sizes(argument, tensor, &is_empty) < 0)
        return -1;
    for (int i = 0; i < tensor->ndim; i++)
        if (is_empty || (tensor->shape[i] == 1 &&
                         __builtin_mul_overflow(tensor->stride[i], INT64_C(1) << 16, &ignored)))
            tensor->stride[i] = 1;
    if (is_empty)
        return 0;
    if (!tensor->data) {
        PyErr_Format(PyExc_ValueError, "%s: expected a tensor with memory, got a null pointer",
                     argument);
        return -1;
    }
    if (address % alignment != 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected %s at a multiple of %zu bytes, got elements at %p", argument,
                     iris_dtype_name(tensor->dtype), alignment, tensor->data);
        return -1;
    }
    if (check_extent(argument, tensor, &low, &high) < 0)
        return -1;
    /* No program has the upper half. */
    if (address < 0 - (uintptr_t)low || address > (uintptr_t)(INT64_MAX - high)) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected elements within the address space, got bytes %lld to %lld from "
                     "%p on",
                     argument, (long long)low, (long long)high, tensor->data);
        return -1;
    }
    return 0;
}
