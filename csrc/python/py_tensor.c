/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Conversion of tensor arguments. This is the hot part of the layer: an operation converts three
 * or four tensors per call.
 */
#include "py_tensor.h"

#include "py_buffer.h"
#include "py_common.h"
#include "py_dlpack.h"
#include "py_torch.h"
#include "py_values.h"
#include "py_view.h"

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

static int describe(struct iris_py_state *state, struct iris_py_torch_modes *modes,
                    const char *argument, PyObject *object, enum iris_py_use use,
                    struct iris_py_tensor *out)
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
    return iris_py_torch_check_values(state, modes, argument, object, out->tensor.dtype);
}

static int from_object(struct iris_py_state *state, struct iris_py_torch_modes *modes,
                       const char *argument, PyObject *object, enum iris_py_use use,
                       struct iris_py_tensor *out)
{
    out->tensor.read_only = false;
    out->exchange = NULL;
    out->written = NULL;
    out->is_copy = false;
    out->capsule = NULL;
    out->view.obj = NULL;
    if (describe(state, modes, argument, object, use, out) < 0)
        goto fail;
    if (use != IRIS_PY_WRITTEN || (!out->tensor.read_only && !out->is_copy))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected a writable tensor, got %s", argument,
                 out->is_copy ? "one whose __dlpack__ makes a copy" : "a read-only one");
fail:
    iris_py_tensor_release(out);
    return -1;
}

int iris_py_tensor_from_object(struct iris_py_state *state, const char *argument, PyObject *object,
                               enum iris_py_use use, struct iris_py_tensor *out)
{
    struct iris_py_torch_modes modes = {.are_known = false};

    return from_object(state, &modes, argument, object, use, out);
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
    struct iris_py_torch_modes modes = {.are_known = false};

    for (int i = 0; i < count; i++) {
        const enum iris_py_use use = prepares ? IRIS_PY_IGNORED : roles[i].use;

        given[i] = NULL;
        tensors[i].written = NULL;
        if (roles[i].is_optional && (!values[i] || values[i] == Py_None))
            continue;
        if (from_object(state, &modes, roles[i].name, values[i], use, &tensors[i]) < 0) {
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
