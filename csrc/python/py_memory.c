/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Memory of a context: allocating it, and where a tensor lies.
 */
#include "py_memory.h"

#include "py_buffer.h"
#include "py_common.h"
#include "py_context_object.h"
#include "py_tensor.h"
#include "py_values.h"
#include "py_wait.h"

static struct iris_context *core(PyObject *object)
{
    return ((struct iris_py_context *)object)->ctx;
}

const char iris_py_is_symmetric_doc[] =
    "is_symmetric($self, tensor, /)\n--\n\n"
    "Return whether all elements of `tensor` lie on the symmetric heap.\n\n"
    "Of a tensor without elements, which have no place: whether "
    "it is on the\ncontext's device.";

static PyObject *ask_where(PyObject *object, PyObject *value,
                           bool (*is_there)(const struct iris_context *,
                                            const struct iris_tensor *))
{
    struct iris_py_state *state = iris_py_state_of_type(Py_TYPE(object));
    struct iris_py_tensor tensor;
    bool there;

    if (!state || iris_py_tensor_from_object(state, "tensor", value, IRIS_PY_IGNORED, &tensor) < 0)
        return NULL;
    there = !tensor.is_copy && is_there(core(object), &tensor.tensor);
    iris_py_tensor_release(&tensor);
    return PyBool_FromLong(there);
}

PyObject *iris_py_context_is_symmetric(PyObject *object, PyObject *value)
{
    return ask_where(object, value, iris_context_owns);
}

const char iris_py_is_reachable_doc[] =
    "is_reachable($self, tensor, /)\n--\n\n"
    "Return whether peers write results into `tensor` directly.\n\n"
    "They do if all its elements lie on the symmetric heap or in this rank's local "
    "arena.";

PyObject *iris_py_context_is_reachable(PyObject *object, PyObject *value)
{
    return ask_where(object, value, iris_context_reaches);
}

/* Bytes of shape x dtype; MemoryError-like sizes are left to the heap, overflow is caught here. */
static int count_bytes(int ndim, const int64_t *shape, enum iris_dtype dtype, size_t *out)
{
    size_t nbytes = iris_dtype_nbytes(dtype);

    for (int i = 0; i < ndim; i++) {
        if (__builtin_mul_overflow(nbytes, (size_t)shape[i], &nbytes) || nbytes > PTRDIFF_MAX) {
            PyErr_SetString(PyExc_ValueError, "shape: more bytes than addresses");
            return -1;
        }
    }
    *out = nbytes;
    return 0;
}

/* Parses shape and dtype, and makes the Buffer of what `create` gives. */
static PyObject *allocate(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames, bool local)
{
    const struct iris_py_signature signature = {
        .function = local ? "allocate_local" : "allocate",
        .count = local ? 3 : 2,
        .required = 1,
        .positional = local ? 3 : 2,
        .names = {IRIS_PY_NAME_shape, IRIS_PY_NAME_dtype, IRIS_PY_NAME_stream},
    };
    struct iris_py_state *state = PyType_GetModuleState(cls);
    struct iris_context *ctx = core(object);
    struct iris_allocation *allocation = NULL;
    PyObject *values[IRIS_PY_MAX_PARAMETERS];
    enum iris_dtype dtype = IRIS_DTYPE_U8;
    int64_t shape[IRIS_MAX_DIMS] = {0};
    enum iris_status status;
    void *stream = NULL;
    size_t nbytes;
    int ndim;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, values) < 0 ||
        iris_py_shape("shape", values[0], &ndim, shape) < 0 ||
        (values[1] && iris_py_dtype(state, values[1], &dtype) < 0) ||
        count_bytes(ndim, shape, dtype, &nbytes) < 0 ||
        (local && iris_py_context_stream(state, ctx, values[2], &stream) < 0))
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = local ? iris_allocation_create_local(ctx, nbytes, stream, &allocation)
                   : iris_allocation_create(ctx, nbytes, &allocation);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    return iris_py_buffer_new(state, allocation, dtype, ndim, shape);
}

const char iris_py_allocate_doc[] =
    "allocate($self, /, shape, dtype='uint8')\n--\n\n"
    "Allocate uninitialised memory on the symmetric heap. Collective.\n\n"
    "Parameters\n----------\n"
    "shape : int or sequence of int\n    Elements in each dimension; an int is one dimension.\n"
    "dtype : torch.dtype, numpy.dtype or str\n\n"
    "Returns\n-------\n"
    "Buffer\n    It lies at the same offset on all ranks.\n\n"
    "Raises\n------\n"
    "HeapExhausted\n    The heap has no room; raised on every rank.\n"
    "ValueError\n    The ranks ask for different sizes; raised on every rank.";

PyObject *iris_py_context_allocate(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *kwnames)
{
    return allocate(object, cls, args, nargs, kwnames, false);
}

const char iris_py_allocate_local_doc[] =
    "allocate_local($self, /, shape, dtype='uint8', stream=None)\n--\n\n"
    "Allocate uninitialised memory in this rank's local arena. Not collective.\n\n"
    "Peers write results into it, as into symmetric memory; it has no place on their heaps.\n\n"
    "Parameters\n----------\n"
    "shape : int or sequence of int\n    Elements in each dimension; an int is one dimension.\n"
    "dtype : torch.dtype, numpy.dtype or str\n"
    "stream\n    The stream that will use it; None: torch's current one. While it is captured, no "
    "memory\n    is taken that the device would have to be waited for.\n\n"
    "Returns\n-------\n"
    "Buffer\n\n"
    "Raises\n------\n"
    "HeapExhausted\n    The arena has no room.";

PyObject *iris_py_context_allocate_local(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *kwnames)
{
    return allocate(object, cls, args, nargs, kwnames, true);
}

/* ---- the arena as a pool of torch's allocator ---- */

PyObject *iris_py_context_pool(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    int number;
    const enum iris_status status = iris_context_pool(core(object), &number);

    return status == IRIS_OK ? PyLong_FromLong(number) : iris_py_raise_for(object, status);
}

static int current_stream(PyObject *object, void **out)
{
    struct iris_py_state *state = iris_py_state_of_type(Py_TYPE(object));

    return state ? iris_py_context_stream(state, core(object), NULL, out) : -1;
}

PyObject *iris_py_context_capture(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    enum iris_status status;
    void *stream = NULL;
    uint64_t id = 0;

    if (current_stream(object, &stream) < 0)
        return NULL;
    status = iris_context_capture(core(object), stream, &id);
    return status == IRIS_OK ? PyLong_FromUnsignedLongLong(id) : iris_py_raise_for(object, status);
}

#define WATCH "iris_c._C.capture_watch"

static void free_watch(PyObject *capsule)
{
    iris_capture_watch_free(PyCapsule_GetPointer(capsule, WATCH));
}

/* `self` is the capsule. */
static PyObject *has_ended(PyObject *self, PyObject *IRIS_UNUSED(ignored))
{
    const struct iris_capture_watch *watch = PyCapsule_GetPointer(self, WATCH);

    return watch ? PyBool_FromLong(iris_capture_watch_has_ended(watch)) : NULL;
}

PyObject *iris_py_context_watch_capture(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    static PyMethodDef method = {"has_ended", has_ended, METH_NOARGS, NULL};
    struct iris_capture_watch *watch;
    PyObject *capsule, *function;
    enum iris_status status;
    void *stream = NULL;

    if (current_stream(object, &stream) < 0)
        return NULL;
    status = iris_capture_watch_create(core(object), stream, &watch);
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    capsule = PyCapsule_New(watch, WATCH, free_watch);
    if (!capsule) {
        iris_capture_watch_free(watch);
        return NULL;
    }
    function = PyCFunction_New(&method, capsule);
    Py_DECREF(capsule);
    return function;
}

/* ---- attributes ---- */

PyObject *iris_py_context_local_size(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_local_size(core(object)));
}

PyObject *iris_py_context_memory_kind(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyUnicode_FromString(iris_context_memory_kind(core(object)));
}

PyObject *iris_py_context_local_used(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_local_used(core(object)));
}

PyObject *iris_py_context_local_room(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_local_room(core(object)));
}
