/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Tensors from the buffer protocol: NumPy's arrays, ctypes, array.array, memoryview, bytes; and
 * NumPy's arrays of ml_dtypes' dtypes, which have none.
 */
#include "py_view.h"

#include "dlpack.h"
#include "py_common.h"
#include "py_dtypes.h"

/* Shape and strides, of which an exporter may leave out what follows from the rest. */
static int read_dimensions(const char *argument, const Py_buffer *view, struct iris_tensor *tensor)
{
    tensor->ndim = view->ndim;
    if (!view->shape && view->ndim > 1) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected a buffer with a shape, got %d dimensions "
                     "without one",
                     argument, view->ndim);
        return -1;
    }
    for (int i = 0; i < view->ndim; i++) {
        if (view->suboffsets && view->suboffsets[i] >= 0) {
            PyErr_Format(PyExc_ValueError, "%s: expected a buffer without suboffsets, got %zd",
                         argument, view->suboffsets[i]);
            return -1;
        }
        if (view->strides && view->strides[i] % view->itemsize != 0) {
            PyErr_Format(PyExc_ValueError,
                         "%s: expected strides that are multiples of %zd bytes, got %zd", argument,
                         view->itemsize, view->strides[i]);
            return -1;
        }
        tensor->shape[i] = view->shape ? view->shape[i] : view->len / view->itemsize;
        if (view->strides)
            tensor->stride[i] = view->strides[i] / view->itemsize;
    }
    if (!view->strides)
        iris_py_tensor_row_major(tensor);
    return iris_py_tensor_check(argument, tensor);
}

/* After read_dimensions: the product does not overflow. */
static int check_length(const char *argument, const Py_buffer *view,
                        const struct iris_tensor *tensor)
{
    int64_t nbytes = (int64_t)view->itemsize;

    for (int i = 0; i < tensor->ndim; i++)
        nbytes *= tensor->shape[i];
    if (nbytes == view->len)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "%s: expected a buffer of %lld bytes, as its shape says, got %zd", argument,
                 (long long)nbytes, view->len);
    return -1;
}

static int read_view(const char *argument, struct iris_py_tensor *out)
{
    struct iris_tensor *tensor = &out->tensor;
    const Py_buffer *view = &out->view;

    if (iris_py_tensor_check_ndim(argument, view->ndim) < 0)
        return -1;
    if (iris_py_dtype_from_format(view->format, view->itemsize, &tensor->dtype) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: unsupported buffer format '%.50s' with %zd bytes an item", argument,
                     view->format ? view->format : "B", view->itemsize);
        return -1;
    }
    tensor->data = view->buf;
    tensor->on_cpu = true;
    tensor->device_id = 0;
    tensor->read_only = view->readonly != 0;
    out->device_type = IRIS_DLPACK_CPU;
    if (read_dimensions(argument, view, tensor) < 0)
        return -1;
    return check_length(argument, view, tensor);
}

/* Of an array of NumPy whose dtype is one of ml_dtypes', for which there is no format: the same of
 * unsigned integers, and *dtype. NULL without an exception: it is none. New. */
static PyObject *as_integers(PyObject *object, enum iris_dtype *dtype)
{
    PyObject *own = PyObject_GetAttrString(object, "dtype");
    PyObject *name = own ? PyObject_GetAttrString(own, "name") : NULL;
    PyObject *integers = NULL;

    PyErr_Clear();
    for (int d = 0; name && PyUnicode_Check(name) && !integers && d < IRIS_DTYPE_COUNT; d++) {
        if (iris_py_dtype_format((enum iris_dtype)d) ||
            PyUnicode_CompareWithASCIIString(name, iris_dtype_name((enum iris_dtype)d)) != 0)
            continue;
        *dtype = (enum iris_dtype)d;
        integers = PyObject_CallMethod(
            object, "view", "s", iris_dtype_nbytes((enum iris_dtype)d) == 1 ? "uint8" : "uint16");
        if (!integers)
            break;
    }
    Py_XDECREF(name);
    Py_XDECREF(own);
    return integers;
}

/* The first failure is in the air; it stays if this is no such array. */
static int read_integers(const char *argument, PyObject *object, struct iris_py_tensor *out)
{
    PyObject *type, *value, *traceback, *integers;
    enum iris_dtype dtype;
    int result;

    PyErr_Fetch(&type, &value, &traceback);
    integers = as_integers(object, &dtype);
    if (!integers && !PyErr_Occurred()) {
        PyErr_Restore(type, value, traceback);
        return iris_py_rephrase(argument, "its buffer");
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    if (!integers)
        return iris_py_rephrase(argument, "its view");
    result = PyObject_GetBuffer(integers, &out->view, PyBUF_RECORDS_RO);
    Py_DECREF(integers); /* the buffer keeps it */
    if (result < 0) {
        out->view.obj = NULL;
        return iris_py_rephrase(argument, "its buffer");
    }
    if (read_view(argument, out) < 0)
        return -1;
    if ((size_t)out->view.itemsize != iris_dtype_nbytes(dtype)) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected elements of %zu bytes, as its dtype is %s, got "
                     "%zd",
                     argument, iris_dtype_nbytes(dtype), iris_dtype_name(dtype),
                     out->view.itemsize);
        return -1;
    }
    out->tensor.dtype = dtype;
    return 0;
}

int iris_py_view_read(const char *argument, PyObject *object, struct iris_py_tensor *out)
{
    if (!PyObject_CheckBuffer(object))
        return iris_py_type_error(argument, iris_py_tensor_kinds, object);
    if (PyObject_GetBuffer(object, &out->view, PyBUF_RECORDS_RO) < 0) {
        out->view.obj = NULL;
        return read_integers(argument, object, out);
    }
    return read_view(argument, out);
}
