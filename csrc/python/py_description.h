/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Descriptions of tensors, whoever gives them.
 *
 * A description is another library's word. What it says is checked, so that the core may compute
 * with it: sizes are not negative, no product or sum of sizes, strides and addresses overflows,
 * elements have an address, aligned to the dtype. A dimension of one element, or any dimension of
 * a tensor without elements, may come with any stride, and gets one that is safe. What is no
 * description at all is a TypeError, what cannot be used a ValueError; both begin with the
 * argument's name, whatever the producer raised.
 */
#ifndef IRIS_PY_DESCRIPTION_H
#define IRIS_PY_DESCRIPTION_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "dlpack.h"
#include "runtime/iris.h"

struct iris_py_tensor {
    struct iris_tensor tensor;
    const struct iris_dlpack_exchange *exchange; /* the type's table, or NULL */
    int32_t device_type;
    PyObject *written; /* borrowed, or NULL: the torch.Tensor, if the call writes it */
    bool is_copy;      /* the producer described a copy: of no use as an output */
    PyObject *capsule; /* owned, or NULL: from __dlpack__, alive until the op has ended */
    Py_buffer view;    /* .obj NULL: none */
};

/* "a tensor (torch.Tensor, ...)": what is expected, for a TypeError. */
extern const char iris_py_tensor_kinds[];
/* ValueError: more dimensions than IRIS_MAX_DIMS, or fewer than none. */
int iris_py_tensor_check_ndim(const char *argument, int ndim);
/* Row-major strides for shapes that iris_py_tensor_check accepts. */
void iris_py_tensor_row_major(struct iris_tensor *tensor);
/* The header's promises about sizes, strides and addresses; ValueError. */
int iris_py_tensor_check(const char *argument, struct iris_tensor *tensor);

#endif
