/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c.Buffer: a symmetric allocation with a shape and a dtype.
 */
#ifndef IRIS_PY_BUFFER_H
#define IRIS_PY_BUFFER_H

#include "py_common.h"

struct iris_py_buffer {
    PyObject_HEAD
    struct iris_allocation *allocation; /* one reference of ours */
    enum iris_dtype dtype;
    int ndim;
    size_t nbytes; /* of the elements; the allocation may be larger */
    int64_t shape[IRIS_MAX_DIMS];
    int64_t stride[IRIS_MAX_DIMS];         /* elements, row-major */
    Py_ssize_t view_shape[IRIS_MAX_DIMS];  /* the same for the buffer protocol, whose views */
    Py_ssize_t view_stride[IRIS_MAX_DIMS]; /* point here; bytes */
    PyObject *weak_references;
};

/* Takes over the caller's reference to `allocation`, also on failure. */
PyObject *iris_py_buffer_new(const struct iris_py_state *state, struct iris_allocation *allocation,
                             enum iris_dtype dtype, int ndim, const int64_t *shape);

void iris_py_buffer_tensor(const struct iris_py_buffer *buffer, struct iris_tensor *out);

/* DLPack's number for the kind of memory a backend's heap lies in. */
int32_t iris_py_dlpack_device_type(const struct iris_context *ctx);

extern PyType_Spec iris_py_buffer_spec;

#endif
