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

PyObject *iris_py_context_local_size(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_local_size(core(object)));
}

PyObject *iris_py_context_local_used(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_local_used(core(object)));
}

PyObject *iris_py_context_local_room(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_local_room(core(object)));
}
