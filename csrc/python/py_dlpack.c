/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * DLPack descriptions of other libraries' tensors.
 */
#include "py_dlpack.h"

#include "py_common.h"
#include "py_dtypes.h"

static int unsupported_dtype(const char *argument, const struct iris_dlpack_tensor *source)
{
    PyObject *names = iris_py_dtype_names();

    if (names)
        PyErr_Format(PyExc_ValueError,
                     "%s: unsupported dtype (DLPack type code %d with %d bits and %d lanes); "
                     "expected %U",
                     argument, (int)source->type_code, (int)source->type_bits,
                     (int)source->type_lanes, names);
    Py_XDECREF(names);
    return -1;
}

static int device_from_dlpack(const struct iris_dlpack_tensor *source, struct iris_tensor *out)
{
    switch (source->device_type) {
    case IRIS_DLPACK_CPU:
    case IRIS_DLPACK_CUDA_HOST:
    case IRIS_DLPACK_ROCM_HOST:
        out->on_cpu = true;
        out->device_id = 0;
        return 0;
    case IRIS_DLPACK_CUDA:
    case IRIS_DLPACK_ROCM:
    case IRIS_DLPACK_CUDA_MANAGED:
        out->on_cpu = false;
        out->device_id = source->device_id;
        return 0;
    }
    return -1;
}

int iris_py_dlpack_read(const char *argument, const struct iris_dlpack_tensor *source,
                        struct iris_py_tensor *out)
{
    struct iris_tensor *tensor = &out->tensor;
    uintptr_t address = (uintptr_t)source->data;

    if (iris_py_tensor_check_ndim(argument, source->ndim) < 0)
        return -1;
    if (iris_py_dtype_from_dlpack(source, &tensor->dtype) < 0)
        return unsupported_dtype(argument, source);
    if (device_from_dlpack(source, tensor) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected a tensor in cpu, cuda or hip memory, got DLPack device type %d",
                     argument, (int)source->device_type);
        return -1;
    }
    if (source->ndim > 0 && !source->shape) {
        PyErr_Format(PyExc_ValueError, "%s: expected a DLPack description with a shape, got none",
                     argument);
        return -1;
    }
    out->device_type = source->device_type;
    tensor->ndim = source->ndim;
    for (int i = 0; i < source->ndim; i++)
        tensor->shape[i] = source->shape[i];
    if (source->strides)
        for (int i = 0; i < source->ndim; i++)
            tensor->stride[i] = source->strides[i];
    else
        iris_py_tensor_row_major(tensor);
    if (address && __builtin_add_overflow(address, source->byte_offset, &address)) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected a byte offset within the address space, got %llu from %p on",
                     argument, (unsigned long long)source->byte_offset, source->data);
        return -1;
    }
    tensor->data = (void *)address;
    return iris_py_tensor_check(argument, tensor);
}

/* Calls object.__dlpack__, for a versioned capsule where the producer knows them. */
static PyObject *call_dlpack(struct iris_py_state *state, PyObject *method)
{
    PyObject *no_arguments = PyTuple_New(0);
    PyObject *capsule = NULL;

    if (!no_arguments)
        return NULL;
    capsule = PyObject_Call(method, no_arguments, state->dlpack_kwargs);
    if (!capsule && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear(); /* a producer from before DLPack 1.0 knows no max_version */
        capsule = PyObject_Call(method, no_arguments, NULL);
    }
    Py_DECREF(no_arguments);
    return capsule;
}

static int tensor_from_capsule(const char *argument, PyObject *capsule, struct iris_py_tensor *out)
{
    const char *name;

    if (PyCapsule_IsValid(capsule, IRIS_DLPACK_CAPSULE_VERSIONED)) {
        const struct iris_dlpack_versioned *versioned =
            PyCapsule_GetPointer(capsule, IRIS_DLPACK_CAPSULE_VERSIONED);

        if (versioned->version.major != IRIS_DLPACK_MAJOR) {
            PyErr_Format(PyExc_ValueError, "%s: expected DLPack version %d, got %u", argument,
                         (int)IRIS_DLPACK_MAJOR, versioned->version.major);
            return -1;
        }
        out->tensor.read_only = (versioned->flags & IRIS_DLPACK_READ_ONLY) != 0;
        out->is_copy = (versioned->flags & IRIS_DLPACK_IS_COPIED) != 0;
        return iris_py_dlpack_read(argument, &versioned->tensor, out);
    }
    if (PyCapsule_IsValid(capsule, IRIS_DLPACK_CAPSULE)) {
        const struct iris_dlpack_managed *managed =
            PyCapsule_GetPointer(capsule, IRIS_DLPACK_CAPSULE);

        return iris_py_dlpack_read(argument, &managed->tensor, out);
    }
    if (!PyCapsule_CheckExact(capsule))
        return iris_py_type_error(argument, "__dlpack__ to return a DLPack capsule", capsule);
    name = PyCapsule_GetName(capsule);
    PyErr_Format(PyExc_ValueError,
                 "%s: expected __dlpack__ to return a DLPack capsule that nobody has consumed, got "
                 "one named '%.50s'",
                 argument, name ? name : "");
    return -1;
}

int iris_py_dlpack_call(struct iris_py_state *state, const char *argument, PyObject *object,
                        struct iris_py_tensor *out)
{
    PyObject *method = NULL;
    PyObject *capsule = NULL;
    int result = -1;

    method = PyObject_GetAttr(object, state->names[IRIS_PY_NAME___dlpack__]);
    if (!method) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return iris_py_rephrase(argument, "its __dlpack__");
        PyErr_Clear();
        return 0;
    }
    capsule = call_dlpack(state, method);
    if (!capsule) {
        /* numpy before 2.1 refuses to export read-only arrays; the buffer protocol does not */
        if (PyErr_ExceptionMatches(PyExc_BufferError) && PyObject_CheckBuffer(object)) {
            PyErr_Clear();
            result = 0;
        } else {
            (void)iris_py_rephrase(argument, "its __dlpack__");
        }
        goto finally;
    }
    if (tensor_from_capsule(argument, capsule, out) < 0)
        goto finally;
    out->capsule = capsule; /* not renamed: its destructor gives the export back */
    capsule = NULL;
    result = 1;
finally:
    Py_XDECREF(capsule);
    Py_DECREF(method);
    return result;
}
