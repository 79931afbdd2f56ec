/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Conversion of tensor arguments. This is the hot part of the layer: an operation converts three
 * or four tensors per call.
 */
#include "py_tensor.h"

#include <string.h>

#include "py_buffer.h"

static const char tensor_kinds[] =
    "a tensor (torch.Tensor, iris_c.Buffer, numpy.ndarray or any DLPack exporter)";

/* ---- DLPack ---- */

static int dtype_from_dlpack(const struct iris_dlpack_tensor *source, enum iris_dtype *out)
{
    if (source->type_lanes != 1)
        return -1;
    switch (source->type_code) {
    case IRIS_DLPACK_FLOAT:
        switch (source->type_bits) {
        case 32:
            *out = IRIS_DTYPE_F32;
            return 0;
        case 16:
            *out = IRIS_DTYPE_F16;
            return 0;
        case 64:
            *out = IRIS_DTYPE_F64;
            return 0;
        }
        return -1;
    case IRIS_DLPACK_BFLOAT:
        *out = IRIS_DTYPE_BF16;
        return source->type_bits == 16 ? 0 : -1;
    case IRIS_DLPACK_INT:
        switch (source->type_bits) {
        case 8:
            *out = IRIS_DTYPE_I8;
            return 0;
        case 16:
            *out = IRIS_DTYPE_I16;
            return 0;
        case 32:
            *out = IRIS_DTYPE_I32;
            return 0;
        case 64:
            *out = IRIS_DTYPE_I64;
            return 0;
        }
        return -1;
    case IRIS_DLPACK_UINT:
        *out = IRIS_DTYPE_U8;
        return source->type_bits == 8 ? 0 : -1;
    case IRIS_DLPACK_BOOL:
        *out = IRIS_DTYPE_BOOL;
        return source->type_bits == 8 ? 0 : -1;
    }
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

static int check_ndim(const char *argument, int ndim)
{
    if (ndim >= 0 && ndim <= IRIS_MAX_DIMS)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected at most %d dimensions, got %d", argument,
                 (int)IRIS_MAX_DIMS, ndim);
    return -1;
}

static void row_major_strides(struct iris_tensor *tensor)
{
    int64_t step = 1;

    for (int i = tensor->ndim - 1; i >= 0; i--) {
        tensor->stride[i] = step;
        step *= tensor->shape[i];
    }
}

/* Copies the description: shape and strides belong to the producer. */
static int tensor_from_dlpack(const char *argument, const struct iris_dlpack_tensor *source,
                              struct iris_py_tensor *out)
{
    struct iris_tensor *tensor = &out->tensor;

    if (check_ndim(argument, source->ndim) < 0)
        return -1;
    if (dtype_from_dlpack(source, &tensor->dtype) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: unsupported dtype (DLPack type code %d with %d bits and %d lanes); "
                     "expected float32, float16, bfloat16, float64, int8, int16, int32, int64, "
                     "uint8 or bool",
                     argument, (int)source->type_code, (int)source->type_bits,
                     (int)source->type_lanes);
        return -1;
    }
    if (device_from_dlpack(source, tensor) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected a tensor in cpu, cuda or hip memory, got DLPack device type %d",
                     argument, (int)source->device_type);
        return -1;
    }
    out->device_type = source->device_type;
    tensor->data = source->data ? (char *)source->data + source->byte_offset : NULL;
    tensor->ndim = source->ndim;
    for (int i = 0; i < source->ndim; i++)
        tensor->shape[i] = source->shape[i];
    if (source->strides)
        for (int i = 0; i < source->ndim; i++)
            tensor->stride[i] = source->strides[i];
    else
        row_major_strides(tensor);
    return 0;
}

/* The exchange table of a type, remembered per type; NULL without an exception: it has none. */
static const struct iris_dlpack_exchange *find_exchange(struct iris_py_state *state,
                                                        PyTypeObject *type)
{
    const struct iris_dlpack_exchange *exchange;
    struct iris_py_exchange_entry *entry;
    PyObject *capsule;
    PyObject *replaced;

    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++)
        if (state->exchanges[i].type == (PyObject *)type)
            return state->exchanges[i].exchange;
    capsule =
        PyObject_GetAttr((PyObject *)type, state->names[IRIS_PY_NAME___dlpack_c_exchange_api__]);
    if (!capsule) {
        PyErr_Clear();
        return NULL;
    }
    exchange = PyCapsule_IsValid(capsule, IRIS_DLPACK_EXCHANGE_CAPSULE)
                   ? PyCapsule_GetPointer(capsule, IRIS_DLPACK_EXCHANGE_CAPSULE)
                   : NULL;
    Py_DECREF(capsule); /* the table is static in the library that owns it */
    while (exchange && exchange->version.major != IRIS_DLPACK_MAJOR)
        exchange = exchange->previous;
    if (!exchange || !exchange->tensor_from_object)
        return NULL;
    entry = &state->exchanges[state->next_exchange++ % IRIS_PY_CACHE_SIZE];
    replaced = entry->type;
    Py_INCREF((PyObject *)type);
    entry->type = (PyObject *)type;
    entry->exchange = exchange;
    Py_XDECREF(replaced);
    return exchange;
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
        return tensor_from_dlpack(argument, &versioned->tensor, out);
    }
    if (PyCapsule_IsValid(capsule, IRIS_DLPACK_CAPSULE)) {
        const struct iris_dlpack_managed *managed =
            PyCapsule_GetPointer(capsule, IRIS_DLPACK_CAPSULE);

        return tensor_from_dlpack(argument, &managed->tensor, out);
    }
    return iris_py_type_error(argument, "__dlpack__ to return a DLPack capsule", capsule);
}

/* 1: described; 0: the object is no DLPack exporter, or cannot export this; -1: error. */
static int try_dlpack(struct iris_py_state *state, const char *argument, PyObject *object,
                      struct iris_py_tensor *out)
{
    PyObject *method = NULL;
    PyObject *capsule = NULL;
    int result = -1;

    method = PyObject_GetAttr(object, state->names[IRIS_PY_NAME___dlpack__]);
    if (!method) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    capsule = call_dlpack(state, method);
    if (!capsule) {
        /* numpy before 2.1 refuses to export read-only arrays; the buffer protocol does not */
        if (PyErr_ExceptionMatches(PyExc_BufferError) && PyObject_CheckBuffer(object)) {
            PyErr_Clear();
            result = 0;
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

/* ---- buffer protocol ---- */

/* struct-module formats of native byte order. 'l' is the machine's long. */
static int dtype_from_format(const char *format, Py_ssize_t itemsize, enum iris_dtype *out)
{
    static const struct {
        char code;
        enum iris_dtype dtype;
    } codes[] = {
        {'f', IRIS_DTYPE_F32}, {'e', IRIS_DTYPE_F16},  {'d', IRIS_DTYPE_F64}, {'b', IRIS_DTYPE_I8},
        {'h', IRIS_DTYPE_I16}, {'i', IRIS_DTYPE_I32},  {'q', IRIS_DTYPE_I64}, {'l', IRIS_DTYPE_I64},
        {'B', IRIS_DTYPE_U8},  {'?', IRIS_DTYPE_BOOL},
    };

    if (!format)
        format = "B";
    if (format[0] == '@' || format[0] == '=' || format[0] == '<')
        format++;
    if (format[0] == '\0' || format[1] != '\0')
        return -1;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == format[0]) {
            *out = codes[i].dtype;
            return (size_t)itemsize == iris_dtype_nbytes(*out) ? 0 : -1;
        }
    }
    return -1;
}

static int tensor_from_view(const char *argument, struct iris_py_tensor *out)
{
    struct iris_tensor *tensor = &out->tensor;
    const Py_buffer *view = &out->view;

    if (check_ndim(argument, view->ndim) < 0)
        return -1;
    if (dtype_from_format(view->format, view->itemsize, &tensor->dtype) < 0) {
        PyErr_Format(PyExc_ValueError, "%s: unsupported buffer format '%.50s'", argument,
                     view->format);
        return -1;
    }
    tensor->data = view->buf;
    tensor->ndim = view->ndim;
    tensor->on_cpu = true;
    tensor->device_id = 0;
    tensor->read_only = view->readonly != 0;
    out->device_type = IRIS_DLPACK_CPU;
    for (int i = 0; i < view->ndim; i++) {
        if (view->strides[i] % view->itemsize != 0) {
            PyErr_Format(PyExc_ValueError,
                         "%s: expected strides that are multiples of %zd bytes, got %zd", argument,
                         view->itemsize, view->strides[i]);
            return -1;
        }
        tensor->shape[i] = view->shape[i];
        tensor->stride[i] = view->strides[i] / view->itemsize;
    }
    return 0;
}

static int tensor_from_buffer(const char *argument, PyObject *object, struct iris_py_tensor *out)
{
    if (!PyObject_CheckBuffer(object))
        return iris_py_type_error(argument, tensor_kinds, object);
    if (PyObject_GetBuffer(object, &out->view, PyBUF_RECORDS_RO) < 0) {
        out->view.obj = NULL;
        return -1;
    }
    if (tensor_from_view(argument, out) < 0) {
        PyBuffer_Release(&out->view);
        return -1;
    }
    return 0;
}

/* ---- the entry points ---- */

int iris_py_tensor_from_object(struct iris_py_state *state, const char *argument, PyObject *object,
                               struct iris_py_tensor *out)
{
    PyTypeObject *type = Py_TYPE(object);
    const struct iris_dlpack_exchange *exchange;
    int found;

    out->tensor.read_only = false;
    out->exchange = NULL;
    out->is_copy = false;
    out->capsule = NULL;
    out->view.obj = NULL;
    if (type == state->buffer_type) {
        const struct iris_py_buffer *buffer = (const struct iris_py_buffer *)object;

        iris_py_buffer_tensor(buffer, &out->tensor);
        out->device_type = iris_py_dlpack_device_type(iris_allocation_context(buffer->allocation));
        return 0;
    }
    exchange = find_exchange(state, type);
    if (exchange) {
        struct iris_dlpack_tensor description;

        if (exchange->tensor_from_object(object, &description) != 0) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_ValueError, "%s: this tensor cannot be described by DLPack",
                             argument);
            return -1;
        }
        out->exchange = exchange;
        return tensor_from_dlpack(argument, &description, out);
    }
    found = try_dlpack(state, argument, object, out);
    if (found != 0)
        return found < 0 ? -1 : 0;
    return tensor_from_buffer(argument, object, out);
}

int iris_py_tensor_output(struct iris_py_state *state, const char *argument, PyObject *object,
                          struct iris_py_tensor *out)
{
    if (iris_py_tensor_from_object(state, argument, object, out) < 0)
        return -1;
    if (!out->tensor.read_only && !out->is_copy)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected a writable tensor, got %s", argument,
                 out->is_copy ? "one whose __dlpack__ makes a copy" : "a read-only one");
    iris_py_tensor_release(out);
    return -1;
}

void iris_py_tensor_release(struct iris_py_tensor *tensor)
{
    PyObject *type, *value, *traceback;

    if (!tensor->capsule && !tensor->view.obj)
        return;
    PyErr_Fetch(&type, &value, &traceback); /* a producer's destructor may run Python code */
    Py_CLEAR(tensor->capsule);
    if (tensor->view.obj)
        PyBuffer_Release(&tensor->view);
    PyErr_Restore(type, value, traceback);
}

int iris_py_tensors_read(struct iris_py_state *state, const struct iris_py_tensor_role *roles,
                         PyObject *const *values, int count, struct iris_py_tensor *tensors,
                         const struct iris_tensor **given)
{
    for (int i = 0; i < count; i++) {
        given[i] = NULL;
        if (roles[i].is_optional && (!values[i] || values[i] == Py_None))
            continue;
        if ((roles[i].is_output ? iris_py_tensor_output : iris_py_tensor_from_object)(
                state, roles[i].name, values[i], &tensors[i]) < 0) {
            iris_py_tensors_release(tensors, given, i);
            return -1;
        }
        given[i] = &tensors[i].tensor;
    }
    return 0;
}

void iris_py_tensors_release(struct iris_py_tensor *tensors, const struct iris_tensor *const *given,
                             int count)
{
    while (--count >= 0)
        if (given[count])
            iris_py_tensor_release(&tensors[count]);
}

int iris_py_tensor_stream(struct iris_py_state *state, const struct iris_context *ctx,
                          const struct iris_py_tensor *tensor, void **out)
{
    *out = NULL;
    if (tensor->tensor.on_cpu)
        return 0;
    if (!tensor->exchange || !tensor->exchange->current_stream)
        return iris_py_context_stream(state, ctx, NULL, out);
    return tensor->exchange->current_stream(tensor->device_type, tensor->tensor.device_id, out);
}

/* torch.Tensor's exchange table, if torch has been imported; borrowed. */
static const struct iris_dlpack_exchange *torch_exchange(struct iris_py_state *state)
{
    const struct iris_dlpack_exchange *exchange = NULL;
    PyObject *name = PyUnicode_FromString("torch");
    PyObject *torch = name ? PyImport_GetModule(name) : NULL;
    PyObject *type = torch ? PyObject_GetAttrString(torch, "Tensor") : NULL;

    if (type && PyType_Check(type))
        exchange = find_exchange(state, (PyTypeObject *)type);
    Py_XDECREF(type);
    Py_XDECREF(torch);
    Py_XDECREF(name);
    PyErr_Clear();
    return exchange;
}

int iris_py_context_stream(struct iris_py_state *state, const struct iris_context *ctx,
                           PyObject *value, void **out)
{
    const int32_t device_type = iris_py_dlpack_device_type(ctx);
    const struct iris_dlpack_exchange *exchange;

    *out = NULL;
    if (value && value != Py_None)
        return iris_py_stream(state, value, out);
    if (device_type == IRIS_DLPACK_CPU)
        return 0;
    exchange = torch_exchange(state);
    if (!exchange || !exchange->current_stream)
        return 0;
    return exchange->current_stream(device_type, iris_context_device_id(ctx), out);
}
