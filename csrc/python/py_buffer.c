/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c.Buffer: what an allocation is in Python, and how it is lent to array libraries.
 *
 * A Buffer is row-major, and never resized or viewed: DLPack consumers (torch, numpy) do that.
 * Each export, a DLPack capsule or a view of the buffer protocol, keeps the allocation alive on its
 * own: a capsule holds a reference in plain C, so that the consumer may drop it from any thread,
 * with or without the GIL; a view holds the Buffer.
 */
#include "py_buffer.h"

#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#include "py_dtypes.h"
#include "py_values.h"
#include "py_wait.h"

/* ---- construction ---- */

PyObject *iris_py_buffer_new(const struct iris_py_state *state, struct iris_allocation *allocation,
                             enum iris_dtype dtype, int ndim, const int64_t *shape)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->buffer_type, Py_tp_alloc);
    struct iris_py_buffer *self = (struct iris_py_buffer *)allocate(state->buffer_type, 0);
    const size_t itemsize = iris_dtype_nbytes(dtype);
    int64_t step = 1;

    if (!self) {
        iris_allocation_release(allocation);
        return NULL;
    }
    self->allocation = allocation;
    self->dtype = dtype;
    self->ndim = ndim;
    for (int i = ndim - 1; i >= 0; i--) {
        self->shape[i] = shape[i];
        self->stride[i] = step;
        self->view_shape[i] = (Py_ssize_t)shape[i];
        self->view_stride[i] = (Py_ssize_t)(step * (int64_t)itemsize);
        step *= shape[i];
    }
    self->nbytes = (size_t)step * itemsize;
    return (PyObject *)self;
}

static void buffer_dealloc(PyObject *object)
{
    struct iris_py_buffer *self = (struct iris_py_buffer *)object;

    if (self->weak_references)
        PyObject_ClearWeakRefs(object);
    iris_allocation_release(self->allocation);
    iris_py_free(object);
}

void iris_py_buffer_tensor(const struct iris_py_buffer *buffer, struct iris_tensor *out)
{
    const struct iris_context *ctx = iris_allocation_context(buffer->allocation);

    out->data = iris_allocation_data(buffer->allocation);
    out->ndim = buffer->ndim;
    memcpy(out->shape, buffer->shape, sizeof out->shape);
    memcpy(out->stride, buffer->stride, sizeof out->stride);
    out->dtype = buffer->dtype;
    out->on_cpu = strcmp(iris_context_backend(ctx), "cpu") == 0;
    out->device_id = iris_context_device_id(ctx);
    out->read_only = false;
}

/* ---- DLPack ---- */

int32_t iris_py_dlpack_device_type(const struct iris_context *ctx)
{
    const char *backend = iris_context_backend(ctx);

    if (strcmp(backend, "cuda") == 0)
        return IRIS_DLPACK_CUDA;
    if (strcmp(backend, "hip") == 0)
        return IRIS_DLPACK_ROCM;
    return IRIS_DLPACK_CPU;
}

/* What a consumer gets: the managed tensor, its arrays, and what keeps the bytes. One block. */
struct dlpack_export {
    union {
        struct iris_dlpack_managed managed;
        struct iris_dlpack_versioned versioned;
    } head;
    int64_t shape[IRIS_MAX_DIMS];
    int64_t stride[IRIS_MAX_DIMS];
    struct iris_allocation *allocation; /* one reference, or NULL for a copy */
    void *copy;                         /* malloc, or NULL */
};

static void export_free(struct dlpack_export *export)
{
    iris_allocation_release(export->allocation);
    free(export->copy);
    free(export);
}

/* Deleters: plain C, callable from any thread without the GIL. */
static void delete_managed(struct iris_dlpack_managed *managed)
{
    export_free(managed->owner);
}

static void delete_versioned(struct iris_dlpack_versioned *versioned)
{
    export_free(versioned->owner);
}

/* Runs when a capsule dies; one that was consumed has another name. */
static void capsule_destructor(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, IRIS_DLPACK_CAPSULE_VERSIONED)) {
        struct iris_dlpack_versioned *versioned =
            PyCapsule_GetPointer(capsule, IRIS_DLPACK_CAPSULE_VERSIONED);

        versioned->deleter(versioned);
    } else if (PyCapsule_IsValid(capsule, IRIS_DLPACK_CAPSULE)) {
        struct iris_dlpack_managed *managed = PyCapsule_GetPointer(capsule, IRIS_DLPACK_CAPSULE);

        managed->deleter(managed);
    }
}

static struct dlpack_export *export_new(const struct iris_py_buffer *self, bool copy)
{
    struct dlpack_export *export = calloc(1, sizeof *export);

    if (!export)
        goto no_memory;
    memcpy(export->shape, self->shape, sizeof export->shape);
    memcpy(export->stride, self->stride, sizeof export->stride);
    if (copy) {
        const size_t alignment = IRIS_HEAP_ALIGNMENT;

        export->copy = aligned_alloc(alignment, (self->nbytes / alignment + 1) * alignment);
        if (!export->copy)
            goto no_memory;
        memcpy(export->copy, iris_allocation_data(self->allocation), self->nbytes);
    } else {
        export->allocation = iris_allocation_retain(self->allocation);
    }
    return export;
no_memory:
    free(export);
    PyErr_NoMemory();
    return NULL;
}

static void export_describe(const struct iris_py_buffer *self, struct dlpack_export *export,
                            struct iris_dlpack_tensor *out)
{
    const struct iris_context *ctx = iris_allocation_context(self->allocation);

    out->data = export->copy ? export->copy : iris_allocation_data(self->allocation);
    out->device_type = iris_py_dlpack_device_type(ctx);
    out->device_id = iris_context_device_id(ctx);
    out->ndim = self->ndim;
    out->shape = export->shape;
    out->strides = export->stride;
    out->byte_offset = 0;
    out->type_code = iris_py_dtype_dlpack_code(self->dtype);
    out->type_bits = (uint8_t)(8 * iris_dtype_nbytes(self->dtype));
    out->type_lanes = 1;
}

static int read_pair(const char *argument, PyObject *tuple, int *first, int *second)
{
    const Py_ssize_t count = PyTuple_Size(tuple);

    if (count != 2) {
        PyErr_Format(PyExc_ValueError, "%s: expected two ints, got a tuple of %zd", argument,
                     count);
        return -1;
    }
    return iris_py_int(argument, PyTuple_GetItem(tuple, 0), first) < 0 ||
                   iris_py_int(argument, PyTuple_GetItem(tuple, 1), second) < 0
               ? -1
               : 0;
}

/* dl_device: None or this buffer's own (device type, device id). */
static int check_dl_device(const struct iris_py_buffer *self, PyObject *value)
{
    const struct iris_context *ctx = iris_allocation_context(self->allocation);
    int type, id;

    if (!value || value == Py_None)
        return 0;
    if (!PyTuple_Check(value))
        return iris_py_type_error("dl_device", "a tuple (device type, device id)", value);
    if (read_pair("dl_device", value, &type, &id) < 0)
        return -1;
    if (type == iris_py_dlpack_device_type(ctx) && id == iris_context_device_id(ctx))
        return 0;
    PyErr_Format(PyExc_BufferError,
                 "dl_device: expected (%d, %d), where the buffer is, got (%d, %d)",
                 (int)iris_py_dlpack_device_type(ctx), iris_context_device_id(ctx), type, id);
    return -1;
}

/* max_version: None (before 1.0), or (major, minor). */
static int wants_versioned(PyObject *value, bool *out)
{
    int major, minor;

    *out = false;
    if (!value || value == Py_None)
        return 0;
    if (!PyTuple_Check(value))
        return iris_py_type_error("max_version", "a tuple (major, minor)", value);
    if (read_pair("max_version", value, &major, &minor) < 0)
        return -1;
    *out = major >= IRIS_DLPACK_MAJOR;
    return 0;
}

PyDoc_STRVAR(
    buffer_dlpack_doc,
    "__dlpack__($self, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
    "Export as a DLPack capsule, without copying unless `copy` is True.\n\n"
    "The capsule, and a tensor made from it, keep the memory alive.");

static PyObject *buffer_dlpack(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "__dlpack__",
        .count = 4,
        .positional = 4,
        .names = {IRIS_PY_NAME_stream, IRIS_PY_NAME_max_version, IRIS_PY_NAME_dl_device,
                  IRIS_PY_NAME_copy},
    };
    const struct iris_py_state *state = PyType_GetModuleState(cls);
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    const bool on_cpu =
        iris_py_dlpack_device_type(iris_allocation_context(self->allocation)) == IRIS_DLPACK_CPU;
    PyObject *values[IRIS_PY_MAX_PARAMETERS];
    struct dlpack_export *export;
    PyObject *capsule;
    bool versioned, copy = false;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, values) < 0 ||
        wants_versioned(values[1], &versioned) < 0 || check_dl_device(self, values[2]) < 0 ||
        (values[3] != Py_None && iris_py_bool("copy", values[3], &copy) < 0))
        return NULL;
    if (on_cpu && values[0] && values[0] != Py_None) {
        PyErr_SetString(PyExc_BufferError, "stream: expected None for a buffer on the cpu");
        return NULL;
    }
    if (!on_cpu && copy) {
        PyErr_SetString(PyExc_BufferError, "copy: not supported in GPU memory");
        return NULL;
    }
    export = export_new(self, copy);
    if (!export)
        return NULL;
    if (versioned) {
        struct iris_dlpack_versioned *head = &export->head.versioned;

        head->version.major = IRIS_DLPACK_MAJOR;
        head->version.minor = IRIS_DLPACK_MINOR;
        head->owner = export;
        head->deleter = delete_versioned;
        head->flags = copy ? IRIS_DLPACK_IS_COPIED : 0;
        export_describe(self, export, &head->tensor);
        capsule = PyCapsule_New(head, IRIS_DLPACK_CAPSULE_VERSIONED, capsule_destructor);
    } else {
        struct iris_dlpack_managed *head = &export->head.managed;

        head->owner = export;
        head->deleter = delete_managed;
        export_describe(self, export, &head->tensor);
        capsule = PyCapsule_New(head, IRIS_DLPACK_CAPSULE, capsule_destructor);
    }
    if (!capsule)
        export_free(export);
    return capsule;
}

PyDoc_STRVAR(buffer_dlpack_device_doc, "__dlpack_device__($self, /)\n--\n\n"
                                       "(device type, device id) as DLPack numbers them.");

static PyObject *buffer_dlpack_device(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    const struct iris_context *ctx = iris_allocation_context(self->allocation);

    return Py_BuildValue("(ii)", (int)iris_py_dlpack_device_type(ctx), iris_context_device_id(ctx));
}

/* ---- buffer protocol ---- */

static int buffer_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    struct iris_py_buffer *self = (struct iris_py_buffer *)object;
    const char *format = iris_py_dtype_format(self->dtype);

    view->obj = NULL;
    if (iris_py_dlpack_device_type(iris_allocation_context(self->allocation)) != IRIS_DLPACK_CPU) {
        PyErr_SetString(PyExc_BufferError, "the buffer is in GPU memory: use DLPack");
        return -1;
    }
    if (!format && (flags & PyBUF_FORMAT)) {
        PyErr_Format(PyExc_BufferError,
                     "%s has no format in the buffer protocol: use DLPack (torch.from_dlpack)",
                     iris_dtype_name(self->dtype));
        return -1;
    }
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && self->ndim > 1) {
        PyErr_SetString(PyExc_BufferError, "the buffer is row-major, not column-major");
        return -1;
    }
    Py_INCREF(object);
    view->obj = object;
    view->buf = iris_allocation_data(self->allocation);
    view->len = (Py_ssize_t)self->nbytes;
    view->readonly = 0;
    view->itemsize = (Py_ssize_t)iris_dtype_nbytes(self->dtype);
    view->format = (flags & PyBUF_FORMAT) ? (char *)format : NULL;
    view->ndim = self->ndim;
    view->shape = (flags & PyBUF_ND) ? self->view_shape : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? self->view_stride : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

/* ---- copies ---- */

/* The argument's bytes, contiguous and as many as the Buffer's. */
static int host_bytes(const struct iris_py_buffer *self, const char *argument, PyObject *object,
                      int flags, Py_buffer *view)
{
    if (!PyObject_CheckBuffer(object))
        return iris_py_type_error(argument, "an object with the buffer protocol", object);
    if (PyObject_GetBuffer(object, view, flags) < 0)
        return iris_py_rephrase(argument, "its contiguous buffer");
    if ((size_t)view->len == self->nbytes)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %zu bytes, the Buffer's, got %zd", argument,
                 self->nbytes, view->len);
    PyBuffer_Release(view);
    return -1;
}

PyDoc_STRVAR(
    buffer_copy_from_host_doc,
    "copy_from_host($self, source, /)\n--\n\n"
    "Copy `source`, a contiguous object with the buffer protocol (a numpy.ndarray, bytes)\n"
    "of as many bytes, into this Buffer, once all work of the device is done.\n\n"
    "Not collective: only this rank's memory is written.");

static PyObject *buffer_copy_from_host(PyObject *object, PyObject *source)
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    enum iris_status status;
    Py_buffer view = {0};

    if (host_bytes(self, "source", source, PyBUF_SIMPLE, &view) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = iris_allocation_write(self->allocation, view.buf, self->nbytes);
    IRIS_PY_END_WAIT(status)
    PyBuffer_Release(&view);
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    buffer_copy_to_host_doc,
    "copy_to_host($self, target, /)\n--\n\n"
    "Copy this Buffer into `target`, a writable contiguous object with the buffer protocol\n"
    "(a numpy.ndarray, a bytearray) of as many bytes, once all work of the device is done.");

static PyObject *buffer_copy_to_host(PyObject *object, PyObject *target)
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    enum iris_status status;
    Py_buffer view = {0};

    if (host_bytes(self, "target", target, PyBUF_WRITABLE, &view) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = iris_allocation_read(self->allocation, view.buf, self->nbytes);
    IRIS_PY_END_WAIT(status)
    PyBuffer_Release(&view);
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

/* ---- attributes ---- */

static PyObject *buffer_get_shape(PyObject *object, void *IRIS_UNUSED(closure))
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;

    return iris_py_int64_tuple(self->shape, self->ndim);
}

static PyObject *buffer_get_strides(PyObject *object, void *IRIS_UNUSED(closure))
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;

    return iris_py_int64_tuple(self->stride, self->ndim);
}

static PyObject *buffer_get_dtype(PyObject *object, void *IRIS_UNUSED(closure))
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    const struct iris_py_state *state = PyType_GetModuleState(Py_TYPE(object));

    return state ? iris_py_dtype_object(state, self->dtype) : NULL;
}

static PyObject *buffer_get_ndim(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromLong(((const struct iris_py_buffer *)object)->ndim);
}

static PyObject *buffer_get_nbytes(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(((const struct iris_py_buffer *)object)->nbytes);
}

static PyObject *buffer_get_offset(PyObject *object, void *IRIS_UNUSED(closure))
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    const struct iris_context *ctx = iris_allocation_context(self->allocation);
    uint64_t bases[IRIS_MAX_RANKS] = {0};

    iris_context_heap_bases(ctx, bases);
    return PyLong_FromUnsignedLongLong((uint64_t)(uintptr_t)iris_allocation_data(self->allocation) -
                                       bases[iris_context_rank(ctx)]);
}

static Py_ssize_t buffer_length(PyObject *object)
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;

    if (self->ndim == 0) {
        PyErr_SetString(PyExc_TypeError, "len() of a 0-dimensional Buffer");
        return -1;
    }
    return (Py_ssize_t)self->shape[0];
}

static PyObject *buffer_repr(PyObject *object)
{
    const struct iris_py_buffer *self = (const struct iris_py_buffer *)object;
    PyObject *shape = iris_py_int64_tuple(self->shape, self->ndim);
    PyObject *repr = NULL;

    if (shape)
        repr = PyUnicode_FromFormat("iris_c.Buffer(shape=%R, dtype=%s, backend=%s, data=%p)", shape,
                                    iris_dtype_name(self->dtype),
                                    iris_context_backend(iris_allocation_context(self->allocation)),
                                    iris_allocation_data(self->allocation));
    Py_XDECREF(shape);
    return repr;
}

static PyMethodDef buffer_methods[] = {
    {"__dlpack__", (PyCFunction)(void (*)(void))buffer_dlpack,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, buffer_dlpack_doc},
    {"__dlpack_device__", buffer_dlpack_device, METH_NOARGS, buffer_dlpack_device_doc},
    {"copy_from_host", buffer_copy_from_host, METH_O, buffer_copy_from_host_doc},
    {"copy_to_host", buffer_copy_to_host, METH_O, buffer_copy_to_host_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef buffer_getset[] = {
    {"shape", buffer_get_shape, NULL, "tuple of int: elements per dimension.", NULL},
    {"strides", buffer_get_strides, NULL, "tuple of int: row-major strides, in elements.", NULL},
    {"dtype", buffer_get_dtype, NULL,
     "The element type: a torch.dtype if torch has been imported, else its name.", NULL},
    {"ndim", buffer_get_ndim, NULL, "int: number of dimensions.", NULL},
    {"nbytes", buffer_get_nbytes, NULL, "int: bytes of all elements.", NULL},
    {"offset", buffer_get_offset, NULL,
     "int: bytes from the heap's base, the same on all ranks if it is symmetric.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef buffer_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct iris_py_buffer, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    buffer_doc,
    "An allocation with a shape and a dtype, made by Context.allocate, which is symmetric, or by\n"
    "Context.allocate_local, which is not.\n\n"
    "It can be passed to every operation, speaks DLPack (``torch.from_dlpack``,\n"
    "``numpy.from_dlpack``) and, on the cpu, the buffer protocol (``numpy.asarray``).\n"
    "The memory goes back to the heap when the Buffer and everything made from it are\n"
    "gone.");

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)buffer_doc},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_tp_methods, buffer_methods},
    {Py_tp_getset, buffer_getset},
    {Py_tp_members, buffer_members},
    {Py_tp_repr, buffer_repr},
    {Py_sq_length, buffer_length},
    {Py_bf_getbuffer, buffer_getbuffer},
    {0, NULL},
};

PyType_Spec iris_py_buffer_spec = {
    .name = "iris_c.Buffer",
    .basicsize = sizeof(struct iris_py_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = buffer_slots,
};
