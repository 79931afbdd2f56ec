/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Questions to torch about its tensors. Each costs some tens of nanoseconds, so only those are
 * asked that a plain tensor may answer with yes.
 */
#include "py_torch.h"

#include <string.h>

#include "py_common.h"

/* Below this, no address is taken on trust: a view into storage that has been given back, or that
 * was never there, lies at its offset from NULL. */
#define SUSPICIOUS_ADDRESS ((uintptr_t)UINT32_MAX)

/* `owner`.a.b.c, for names with dots between; consumes `owner`, which may be NULL. */
static PyObject *attribute(PyObject *owner, const char *name)
{
    char first[32];

    while (owner && *name) {
        const size_t length = strcspn(name, ".");
        PyObject *next;

        memcpy(first, name, length);
        first[length] = '\0';
        next = PyObject_GetAttrString(owner, first);
        Py_DECREF(owner);
        owner = next;
        name += length + (name[length] == '.');
    }
    return owner;
}

/* Loads what is asked of torch. 1: it is there; 0: torch is not loaded, or not torch, or only in
 * part. */
static int load(struct iris_py_state *state)
{
    struct iris_py_torch *const torch = &state->torch;
    const struct {
        PyObject **place;
        const char *name;
    } wanted[] = {
        {&torch->is_neg, "Tensor.is_neg"},
        {&torch->is_conj, "Tensor.is_conj"},
        {&torch->dispatch, "Tensor.__torch_dispatch__"},
        {&torch->is_grad_enabled, "is_grad_enabled"},
        {&torch->increment_version, "_C._increment_version"}, /* half the time of the public one */
        {&torch->forward_ad, "autograd.forward_ad"},
        {&torch->tensor_type, "Tensor"},
    };
    PyObject *module;

    if (torch->tensor_type)
        return 1;
    module = PyImport_GetModule(state->names[IRIS_PY_NAME_torch]);
    if (!module)
        return PyErr_Occurred() ? -1 : 0;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        PyObject *const value = attribute(Py_NewRef(module), wanted[i].name);

        if (!value)
            break;
        Py_XDECREF(*wanted[i].place);
        *wanted[i].place = value;
    }
    Py_DECREF(module);
    PyErr_Clear();
    return torch->tensor_type != NULL;
}

int iris_py_torch_describe_type(struct iris_py_state *state, PyTypeObject *type,
                                struct iris_py_tensor_type *out)
{
    const int loaded = load(state);
    PyObject *dispatch;

    out->is_torch = out->dispatches = false;
    if (loaded <= 0)
        return loaded;
    out->is_torch = PyType_IsSubtype(type, (PyTypeObject *)state->torch.tensor_type);
    if (!out->is_torch)
        return 0;
    dispatch = PyObject_GetAttrString((PyObject *)type, "__torch_dispatch__");
    if (!dispatch)
        return -1;
    out->dispatches = dispatch != state->torch.dispatch;
    Py_DECREF(dispatch);
    return 0;
}

/* Whether calling `method` of torch.Tensor gives something true; -1: error. */
static int ask(PyObject *method, PyObject *object)
{
    PyObject *answer = PyObject_CallFunctionObjArgs(method, object, NULL);
    const int truth = answer ? PyObject_IsTrue(answer) : -1;

    Py_XDECREF(answer);
    return truth;
}

/* Whether the tensor's storage has memory; 0 also where torch refuses to say. */
static int has_storage(PyObject *object)
{
    PyObject *storage = PyObject_CallMethod(object, "untyped_storage", NULL);
    PyObject *address = storage ? PyObject_CallMethod(storage, "data_ptr", NULL) : NULL;
    const int truth = address ? PyObject_IsTrue(address) : -1;

    Py_XDECREF(address);
    Py_XDECREF(storage);
    return truth;
}

int iris_py_torch_check_storage(const char *argument, PyObject *object,
                                const struct iris_tensor *tensor)
{
    if (!tensor->data || (uintptr_t)tensor->data >= SUSPICIOUS_ADDRESS || has_storage(object) > 0)
        return 0;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError,
                 "%s: expected a tensor with memory, got one whose storage has none", argument);
    return -1;
}

/* ---- gradients ---- */

/* Whether the tensor requires a gradient and gradients are recorded. */
static int is_recorded(const struct iris_py_state *state, PyObject *object)
{
    PyObject *requires = PyObject_GetAttr(object, state->names[IRIS_PY_NAME_requires_grad]);
    int truth = requires ? PyObject_IsTrue(requires) : -1;

    Py_XDECREF(requires);
    if (truth <= 0)
        return truth;
    requires = PyObject_CallFunctionObjArgs(state->torch.is_grad_enabled, NULL);
    truth = requires ? PyObject_IsTrue(requires) : -1;
    Py_XDECREF(requires);
    return truth;
}

/* Whether the tensor has a tangent at a level of forward differentiation, where there is any. */
static int has_tangent(const struct iris_py_state *state, PyObject *object)
{
    PyObject *module = state->torch.forward_ad, *pair, *tangent;
    PyObject *level = PyDict_GetItemWithError(PyModule_GetDict(module), /* both borrowed */
                                              state->names[IRIS_PY_NAME__current_level]);
    int found;

    if (!level)
        return PyErr_Occurred() ? -1 : 0;
    if (PyLong_AsLong(level) < 0)
        return PyErr_Occurred() ? -1 : 0;
    pair = PyObject_CallMethod(module, "unpack_dual", "O", object);
    tangent = pair ? PyObject_GetAttrString(pair, "tangent") : NULL;
    found = tangent ? tangent != Py_None : -1;
    Py_XDECREF(tangent);
    Py_XDECREF(pair);
    return found;
}

static int check_gradients(const struct iris_py_state *state, const char *argument,
                           PyObject *object)
{
    int found = is_recorded(state, object);

    if (found == 0)
        found = 2 * has_tangent(state, object);
    if (found == 0)
        return 0;
    if (found < 0)
        return iris_py_rephrase(argument, "torch, asked for its gradient,");
    PyErr_Format(PyExc_RuntimeError,
                 "%s: functions with out=... arguments don't support automatic differentiation, "
                 "but this argument %s; use torch.no_grad(), or a function of iris_c.torch",
                 argument, found == 1 ? "requires grad" : "has a forward gradient");
    return -1;
}

int iris_py_torch_check_values(struct iris_py_state *state, const char *argument, PyObject *object,
                               enum iris_dtype dtype)
{
    int found = ask(state->torch.is_neg, object);

    if (found == 0 && iris_dtype_is_complex(dtype))
        found = 2 * ask(state->torch.is_conj, object);
    if (found == 0)
        return check_gradients(state, argument, object);
    if (found < 0)
        return iris_py_rephrase(argument, "torch, asked for its lazy bits,");
    PyErr_Format(PyExc_ValueError,
                 "%s: expected a tensor whose memory holds its values, got one with a pending %s; "
                 "call its resolve_%s()",
                 argument, found == 1 ? "negation" : "conjugation", found == 1 ? "neg" : "conj");
    return -1;
}

static int increment(struct iris_py_state *state, const struct iris_py_tensor *tensors, int count,
                     int written)
{
    PyObject *tuple = PyTuple_New(written);
    PyObject *done;

    for (int i = 0, next = 0; tuple && i < count; i++)
        if (tensors[i].written && PyTuple_SetItem(tuple, next++, Py_NewRef(tensors[i].written)) < 0)
            Py_CLEAR(tuple);
    if (!tuple)
        return -1;
    done = PyObject_CallFunctionObjArgs(state->torch.increment_version, tuple, NULL);
    Py_DECREF(tuple);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int iris_py_torch_increment(struct iris_py_state *state, const struct iris_py_tensor *tensors,
                            int count, int written)
{
    PyObject *type, *value, *traceback;
    int result;

    if (!PyErr_Occurred())
        return increment(state, tensors, count, written);
    PyErr_Fetch(&type, &value, &traceback);
    result = increment(state, tensors, count, written);
    PyErr_Restore(type, value, traceback);
    return result;
}
