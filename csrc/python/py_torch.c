/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Questions to torch about its tensors. Each costs some tens of nanoseconds, so only those are
 * asked that a plain tensor may answer with yes.
 */
#include "py_torch.h"

/* Below this, no address is taken on trust: a view into storage that has been given back, or that
 * was never there, lies at its offset from NULL. */
#define SUSPICIOUS_ADDRESS ((uintptr_t)UINT32_MAX)

/* Loads what is asked of torch.Tensor. 1: it is there; 0: torch is not loaded, or not torch. */
static int load(struct iris_py_state *state)
{
    struct iris_py_torch *torch = &state->torch;
    PyObject *module, *type;

    if (torch->tensor_type)
        return 1;
    module = PyImport_GetModule(state->names[IRIS_PY_NAME_torch]);
    if (!module)
        return PyErr_Occurred() ? -1 : 0;
    type = PyObject_GetAttrString(module, "Tensor");
    Py_DECREF(module);
    if (type && PyType_Check(type)) {
        Py_XDECREF(torch->is_neg);
        Py_XDECREF(torch->is_conj);
        Py_XDECREF(torch->dispatch);
        torch->is_neg = PyObject_GetAttrString(type, "is_neg");
        torch->is_conj = PyObject_GetAttrString(type, "is_conj");
        torch->dispatch = PyObject_GetAttrString(type, "__torch_dispatch__");
        if (torch->is_neg && torch->is_conj && torch->dispatch)
            torch->tensor_type = Py_NewRef(type);
    }
    Py_XDECREF(type);
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

int iris_py_torch_check(struct iris_py_state *state, const char *argument, PyObject *object,
                        const struct iris_tensor *tensor)
{
    const struct iris_py_torch *torch = &state->torch;
    int found = 0;

    if ((uintptr_t)tensor->data < SUSPICIOUS_ADDRESS && tensor->data)
        found = has_storage(object) - 1;
    if (found < 0) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError,
                     "%s: expected a tensor with memory, got one whose storage "
                     "has none",
                     argument);
        return -1;
    }
    found = ask(torch->is_neg, object);
    if (found == 0 && iris_dtype_is_complex(tensor->dtype))
        found = 2 * ask(torch->is_conj, object);
    if (found == 0)
        return 0;
    if (found < 0)
        return iris_py_rephrase(argument, "its type's questions to torch");
    PyErr_Format(PyExc_ValueError,
                 "%s: expected a tensor whose memory holds its values, got one with a pending %s; "
                 "call its resolve_%s()",
                 argument, found == 1 ? "negation" : "conjugation", found == 1 ? "neg" : "conj");
    return -1;
}
