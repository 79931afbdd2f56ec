/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Conversion of tensor arguments. This is the hot part of the layer: an operation converts three
 * or four tensors per call.
 */
#include "py_tensor.h"

#include "py_buffer.h"
#include "py_dlpack.h"
#include "py_torch.h"
#include "py_view.h"

const char iris_py_tensor_kinds[] =
    "a tensor (torch.Tensor, iris_c.Buffer, numpy.ndarray or any DLPack exporter)";

/* ---- checks of descriptions ---- */

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

/* ---- types ---- */

/* The exchange table of a type; NULL without an exception: it has none. */
static const struct iris_dlpack_exchange *find_exchange(struct iris_py_state *state, PyObject *type)
{
    const struct iris_dlpack_exchange *exchange = NULL;
    PyObject *capsule =
        PyObject_GetAttr(type, state->names[IRIS_PY_NAME___dlpack_c_exchange_api__]);

    if (capsule && PyCapsule_IsValid(capsule, IRIS_DLPACK_EXCHANGE_CAPSULE))
        exchange = PyCapsule_GetPointer(capsule, IRIS_DLPACK_EXCHANGE_CAPSULE);
    PyErr_Clear();
    Py_XDECREF(capsule); /* the table is static in the library that owns it */
    while (exchange && exchange->version.major != IRIS_DLPACK_MAJOR)
        exchange = exchange->previous;
    return exchange && exchange->tensor_from_object ? exchange : NULL;
}

/* What there is to know about a type, remembered per type. */
static int find_type(struct iris_py_state *state, PyTypeObject *type,
                     struct iris_py_tensor_type *out)
{
    struct iris_py_tensor_type *entry;
    PyObject *replaced;

    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++) {
        if (state->tensor_types[i].type == (PyObject *)type) {
            *out = state->tensor_types[i];
            return 0;
        }
    }
    out->type = (PyObject *)type;
    out->exchange = find_exchange(state, out->type);
    if (iris_py_torch_describe_type(state, type, out) < 0)
        return -1;
    entry = &state->tensor_types[state->next_tensor_type++ % IRIS_PY_CACHE_SIZE];
    replaced = entry->type;
    *entry = *out;
    Py_INCREF(entry->type);
    Py_XDECREF(replaced);
    return 0;
}

/* ---- the entry points ---- */

static int read_exchange(const struct iris_dlpack_exchange *exchange, const char *argument,
                         PyObject *object, struct iris_py_tensor *out)
{
    struct iris_dlpack_tensor description;

    if (exchange->tensor_from_object(object, &description) == 0) {
        out->exchange = exchange;
        return iris_py_dlpack_read(argument, &description, out);
    }
    if (PyErr_Occurred())
        return iris_py_rephrase(argument, "its description by DLPack");
    PyErr_Format(PyExc_ValueError, "%s: this tensor cannot be described by DLPack", argument);
    return -1;
}

static int describe(struct iris_py_state *state, const char *argument, PyObject *object,
                    enum iris_py_use use, struct iris_py_tensor *out)
{
    struct iris_py_tensor_type type;
    int found;

    if (Py_TYPE(object) == state->buffer_type) {
        const struct iris_py_buffer *buffer = (const struct iris_py_buffer *)object;

        iris_py_buffer_tensor(buffer, &out->tensor);
        out->device_type = iris_py_dlpack_device_type(iris_allocation_context(buffer->allocation));
        return 0;
    }
    if (PyType_Check(object))
        return iris_py_type_error(argument, iris_py_tensor_kinds, object);
    if (find_type(state, Py_TYPE(object), &type) < 0)
        return iris_py_rephrase(argument, "its type");
    if (type.dispatches)
        return iris_py_type_error(
            argument, "a tensor without a __torch_dispatch__ of its own, like the one it holds",
            object);
    if (type.exchange) {
        if (read_exchange(type.exchange, argument, object, out) < 0)
            return -1;
    } else {
        found = iris_py_dlpack_call(state, argument, object, out);
        if (found < 0 || (found == 0 && iris_py_view_read(argument, object, out) < 0))
            return -1;
    }
    if (!type.is_torch)
        return 0;
    if (iris_py_torch_check_storage(argument, object, &out->tensor) < 0)
        return -1;
    if (use == IRIS_PY_IGNORED)
        return 0;
    out->written = use == IRIS_PY_WRITTEN ? object : NULL;
    return iris_py_torch_check_values(state, argument, object, out->tensor.dtype);
}

int iris_py_tensor_from_object(struct iris_py_state *state, const char *argument, PyObject *object,
                               enum iris_py_use use, struct iris_py_tensor *out)
{
    out->tensor.read_only = false;
    out->exchange = NULL;
    out->written = NULL;
    out->is_copy = false;
    out->capsule = NULL;
    out->view.obj = NULL;
    if (describe(state, argument, object, use, out) < 0)
        goto fail;
    if (use != IRIS_PY_WRITTEN || (!out->tensor.read_only && !out->is_copy))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected a writable tensor, got %s", argument,
                 out->is_copy ? "one whose __dlpack__ makes a copy" : "a read-only one");
fail:
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
                         PyObject *const *values, int count, bool prepares,
                         struct iris_py_tensor *tensors, const struct iris_tensor **given)
{
    for (int i = 0; i < count; i++) {
        const enum iris_py_use use = prepares ? IRIS_PY_IGNORED : roles[i].use;

        given[i] = NULL;
        tensors[i].written = NULL;
        if (roles[i].is_optional && (!values[i] || values[i] == Py_None))
            continue;
        if (iris_py_tensor_from_object(state, roles[i].name, values[i], use, &tensors[i]) < 0) {
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

/* Whether a call that ended so may have written to its outputs. */
static bool has_started(enum iris_status status)
{
    return status != IRIS_EINVAL && status != IRIS_ETYPE && status != IRIS_ENOMEM &&
           status != IRIS_EHEAP;
}

PyObject *iris_py_tensors_finish(struct iris_py_state *state, const struct iris_py_tensor *tensors,
                                 int count, enum iris_status status, PyObject *result)
{
    int written = 0;

    for (int i = 0; i < count; i++)
        written += tensors[i].written != NULL;
    if (written > 0 && has_started(status) &&
        iris_py_torch_increment(state, tensors, count, written) < 0)
        Py_CLEAR(result);
    return result;
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

/* torch.Tensor's exchange table, if torch has been imported. */
static const struct iris_dlpack_exchange *torch_exchange(struct iris_py_state *state)
{
    struct iris_py_tensor_type found = {.exchange = NULL};
    PyObject *torch = PyImport_GetModule(state->names[IRIS_PY_NAME_torch]);
    PyObject *type = torch ? PyObject_GetAttrString(torch, "Tensor") : NULL;

    if (type && PyType_Check(type))
        (void)find_type(state, (PyTypeObject *)type, &found);
    Py_XDECREF(type);
    Py_XDECREF(torch);
    PyErr_Clear();
    return found.exchange;
}

int iris_py_context_stream(struct iris_py_state *state, const struct iris_context *ctx,
                           PyObject *value, void **out)
{
    const int32_t device_type = iris_py_dlpack_device_type(ctx);
    const struct iris_dlpack_exchange *exchange;

    *out = NULL;
    if (value && value != Py_None)
        return iris_py_stream(state, value, device_type == IRIS_DLPACK_CPU,
                              iris_context_device_id(ctx), out);
    if (device_type == IRIS_DLPACK_CPU)
        return 0;
    exchange = torch_exchange(state);
    if (!exchange || !exchange->current_stream)
        return 0;
    return exchange->current_stream(device_type, iris_context_device_id(ctx), out);
}
