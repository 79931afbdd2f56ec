/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Questions to torch about its tensors. Each costs some ten nanoseconds, so only those are asked
 * that a plain tensor may answer with yes.
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

/* ---- functions in C ---- */

/* Takes the C function of `object`, if it is one's with such flags. */
static void take_function(struct iris_py_builtin *builtin, PyObject *object, int flags)
{
    if (PyCFunction_Check(object) && PyCFunction_GetFlags(object) == flags)
        builtin->run = PyCFunction_GetFunction(object);
}

static void find_function(struct iris_py_builtin *builtin, int flags)
{
    take_function(builtin, builtin->object, flags);
    builtin->self = builtin->run ? PyCFunction_GetSelf(builtin->object) : NULL;
}

/* Of a method without arguments, which shows its function when it is bound to a tensor. */
static void find_method(struct iris_py_builtin *builtin, PyObject *tensor)
{
    PyObject *bound = PyObject_CallMethod(builtin->object, "__get__", "O", tensor);

    if (bound)
        take_function(builtin, bound, METH_NOARGS);
    PyErr_Clear();
    Py_XDECREF(bound);
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
        {&torch->is_neg.object, "Tensor.is_neg"},
        {&torch->is_conj.object, "Tensor.is_conj"},
        {&torch->is_grad_enabled.object, "is_grad_enabled"},
        {&torch->increment_version.object, "_C._increment_version"}, /* the public one checks */
        {&torch->requires_grad, "Tensor.requires_grad"},
        {&torch->dispatch, "Tensor.__torch_dispatch__"},
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
    if (!torch->tensor_type)
        return 0;
    find_function(&torch->is_grad_enabled, METH_NOARGS);
    find_function(&torch->increment_version, METH_O);
    torch->get_requires_grad =
        (descrgetfunc)PyType_GetSlot(Py_TYPE(torch->requires_grad), Py_tp_descr_get);
    PyErr_Clear();
    return 1;
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

/* Whether the answer, which is consumed, is true; -1: an error, also where there is none. */
static int truth_of(PyObject *answer)
{
    const int truth = answer ? PyObject_IsTrue(answer) : -1;

    Py_XDECREF(answer);
    return truth;
}

/* Whether a method of torch.Tensor gives something true; -1: error. */
static int ask(struct iris_py_builtin *method, PyObject *object)
{
    if (!method->run)
        find_method(method, object);
    return truth_of(method->run ? method->run(object, NULL)
                                : PyObject_CallFunctionObjArgs(method->object, object, NULL));
}

/* Whether the tensor's storage has memory; 0 also where torch refuses to say. */
static int has_storage(PyObject *object)
{
    PyObject *storage = PyObject_CallMethod(object, "untyped_storage", NULL);
    const int truth = truth_of(storage ? PyObject_CallMethod(storage, "data_ptr", NULL) : NULL);

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

/* Whether there is a level of forward differentiation, at which tensors have tangents. */
static int has_level(const struct iris_py_state *state)
{
    PyObject *names = PyModule_GetDict(state->torch.forward_ad); /* borrowed, as is the next */
    PyObject *level = PyDict_GetItemWithError(names, state->names[IRIS_PY_NAME__current_level]);
    const long number = level ? PyLong_AsLong(level) : -1;

    return number >= 0 ? 1 : PyErr_Occurred() ? -1 : 0;
}

static int find_modes(const struct iris_py_state *state, struct iris_py_torch_modes *modes)
{
    const struct iris_py_builtin *enabled = &state->torch.is_grad_enabled;
    const int records = truth_of(enabled->run ? enabled->run(enabled->self, NULL)
                                              : PyObject_CallNoArgs(enabled->object));
    const int tangents = records < 0 ? -1 : has_level(state);

    if (tangents < 0)
        return -1;
    modes->records_gradients = records;
    modes->has_tangents = tangents;
    modes->are_known = true;
    return 0;
}

static int requires_gradient(const struct iris_py_torch *torch, PyObject *object)
{
    return truth_of(
        torch->get_requires_grad
            ? torch->get_requires_grad(torch->requires_grad, object, (PyObject *)Py_TYPE(object))
            : PyObject_GetAttrString(object, "requires_grad"));
}

static int has_tangent(const struct iris_py_torch *torch, PyObject *object)
{
    PyObject *pair = PyObject_CallMethod(torch->forward_ad, "unpack_dual", "O", object);
    PyObject *tangent = pair ? PyObject_GetAttrString(pair, "tangent") : NULL;
    const int found = tangent ? tangent != Py_None : -1;

    Py_XDECREF(tangent);
    Py_XDECREF(pair);
    return found;
}

static int check_gradients(const struct iris_py_state *state, struct iris_py_torch_modes *modes,
                           const char *argument, PyObject *object)
{
    const struct iris_py_torch *torch = &state->torch;
    int found = modes->are_known ? 0 : find_modes(state, modes);

    if (found == 0 && modes->records_gradients)
        found = requires_gradient(torch, object);
    if (found == 0 && modes->has_tangents)
        found = 2 * has_tangent(torch, object);
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

static bool is_tensor(const struct iris_py_torch *torch, PyObject *object)
{
    return PyType_IsSubtype(Py_TYPE(object), (PyTypeObject *)torch->tensor_type);
}

/* Calls ask(torch, element) for the elements of a list or a tuple until one does not answer 0; what
 * is neither has none. To ask may run Python, which may change a list: the element is held. */
static int ask_elements(const struct iris_py_torch *torch, PyObject *object,
                        int (*ask)(const struct iris_py_torch *torch, PyObject *element))
{
    int found = 0;

    if (!PyList_Check(object) && !PyTuple_Check(object))
        return 0;
    for (Py_ssize_t i = 0; found == 0 && i < PySequence_Size(object); i++) {
        PyObject *element = PySequence_GetItem(object, i);
        found = element != NULL ? ask(torch, element) : -1;
        Py_XDECREF(element);
    }
    return found;
}

static int tensor_requires_gradient(const struct iris_py_torch *torch, PyObject *object)
{
    return is_tensor(torch, object) ? requires_gradient(torch, object) : 0;
}

/* Whether an argument, a tensor or a list of tensors among others, requires a gradient; -1: error.
 */
static int argument_requires_gradient(const struct iris_py_torch *torch, PyObject *argument)
{
    return is_tensor(torch, argument) ? requires_gradient(torch, argument)
                                      : ask_elements(torch, argument, tensor_requires_gradient);
}

int iris_py_torch_is_differentiated(struct iris_py_state *state, PyObject *arguments)
{
    struct iris_py_torch_modes modes = {.are_known = false};
    const int loaded = load(state);
    const int known = loaded > 0 ? find_modes(state, &modes) : loaded;

    if (known < 0)
        return -1;
    if (modes.has_tangents || !modes.records_gradients)
        return modes.has_tangents;
    return ask_elements(&state->torch, arguments, argument_requires_gradient);
}

int iris_py_torch_check_values(struct iris_py_state *state, struct iris_py_torch_modes *modes,
                               const char *argument, PyObject *object, enum iris_dtype dtype)
{
    int found = ask(&state->torch.is_neg, object);

    if (found == 0 && iris_dtype_is_complex(dtype))
        found = 2 * ask(&state->torch.is_conj, object);
    if (found == 0)
        return check_gradients(state, modes, argument, object);
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
    const struct iris_py_builtin *function = &state->torch.increment_version;
    PyObject *tuple = PyTuple_New(written);
    PyObject *done;

    for (int i = 0, next = 0; tuple && i < count; i++)
        if (tensors[i].written && PyTuple_SetItem(tuple, next++, Py_NewRef(tensors[i].written)) < 0)
            Py_CLEAR(tuple);
    if (!tuple)
        return -1;
    done = function->run ? function->run(function->self, tuple)
                         : PyObject_CallFunctionObjArgs(function->object, tuple, NULL);
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
