/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Argument parsing, value conversions and exceptions, for all files of the CPython layer.
 */
#include "py_common.h"

#include <stdio.h>
#include <string.h>

/* ---- arguments ---- */

static int find_parameter(const struct iris_py_state *state,
                          const struct iris_py_signature *signature, PyObject *keyword)
{
    /* Keywords in a call are interned by the compiler: equal names are nearly always identical. */
    for (int i = 0; i < signature->count; i++)
        if (state->names[signature->names[i]] == keyword)
            return i;
    for (int i = 0; i < signature->count; i++)
        if (PyUnicode_Compare(state->names[signature->names[i]], keyword) == 0)
            return i;
    return -1;
}

static int too_many_positional(const struct iris_py_signature *signature, Py_ssize_t nargs)
{
    const char *were = nargs == 1 ? "was" : "were";
    int most = signature->positional;
    int least = signature->required < most ? signature->required : most;

    if (least == most)
        PyErr_Format(PyExc_TypeError, "%s() takes %d positional argument%s but %zd %s given",
                     signature->function, most, most == 1 ? "" : "s", nargs, were);
    else
        PyErr_Format(PyExc_TypeError,
                     "%s() takes from %d to %d positional arguments but %zd %s given",
                     signature->function, least, most, nargs, were);
    return -1;
}

static int missing_required(const struct iris_py_state *state,
                            const struct iris_py_signature *signature, PyObject **values)
{
    const char *missing[IRIS_PY_MAX_PARAMETERS];
    char list[256] = "";
    size_t length = 0;
    int count = 0;

    for (int i = 0; i < signature->required; i++) {
        if (values[i])
            continue;
        missing[count] = PyUnicode_AsUTF8AndSize(state->names[signature->names[i]], NULL);
        if (!missing[count])
            return -1;
        count++;
    }
    for (int i = 0; i < count && length < sizeof list; i++) {
        const char *separator = i == 0          ? ""
                                : i < count - 1 ? ", "
                                : count == 2    ? " and "
                                                : ", and ";

        length +=
            (size_t)snprintf(list + length, sizeof list - length, "%s'%s'", separator, missing[i]);
    }
    PyErr_Format(PyExc_TypeError, "%s() missing %d required positional argument%s: %s",
                 signature->function, count, count == 1 ? "" : "s", list);
    return -1;
}

int iris_py_parse(const struct iris_py_state *state, const struct iris_py_signature *signature,
                  PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **values)
{
    Py_ssize_t keywords = kwnames ? PyTuple_Size(kwnames) : 0;
    int i;

    if (nargs > signature->positional)
        return too_many_positional(signature, nargs);
    for (i = 0; i < nargs; i++)
        values[i] = args[i];
    for (; i < signature->count; i++)
        values[i] = NULL;
    for (Py_ssize_t k = 0; k < keywords; k++) {
        PyObject *keyword = PyTuple_GetItem(kwnames, k); /* borrowed */
        int index = find_parameter(state, signature, keyword);

        if (index < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                         signature->function, keyword);
            return -1;
        }
        if (values[index]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         signature->function, keyword);
            return -1;
        }
        values[index] = args[nargs + k];
    }
    for (i = 0; i < signature->required; i++)
        if (!values[i])
            return missing_required(state, signature, values);
    return 0;
}

int iris_py_type_error(const char *argument, const char *expected, PyObject *value)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(value), "__name__");

    if (name)
        PyErr_Format(PyExc_TypeError, "%s: expected %s, got %U", argument, expected, name);
    Py_XDECREF(name);
    return -1;
}

/* The text of an exception up to the end of its first line; new, or NULL without an exception. */
static PyObject *first_line(PyObject *exception)
{
    PyObject *text = PyObject_Str(exception);
    const Py_ssize_t length = text ? PyUnicode_GetLength(text) : -1;
    const Py_ssize_t end = length > 0 ? PyUnicode_FindChar(text, '\n', 0, length, 1) : -1;
    PyObject *line = end >= 0 ? PyUnicode_Substring(text, 0, end) : Py_XNewRef(text);

    Py_XDECREF(text);
    PyErr_Clear();
    return line;
}

int iris_py_rephrase(const char *argument, const char *what)
{
    PyObject *type, *cause, *traceback, *name, *text, *exception;
    PyObject *kind = PyErr_ExceptionMatches(PyExc_TypeError) ? PyExc_TypeError : PyExc_ValueError;

    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return -1;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback)
        (void)PyException_SetTraceback(cause, traceback);
    name = PyObject_GetAttrString(type, "__name__");
    text = first_line(cause);
    PyErr_Clear();
    Py_XDECREF(traceback);
    if (name && text)
        PyErr_Format(kind, "%s: %s raised %U: %U", argument, what, name, text);
    else
        PyErr_Format(kind, "%s: %s raised an exception", argument, what);
    Py_XDECREF(name);
    Py_XDECREF(text);
    Py_XDECREF(type);
    PyErr_Fetch(&type, &exception, &traceback);
    PyErr_NormalizeException(&type, &exception, &traceback);
    PyException_SetCause(exception, cause); /* takes the reference */
    PyErr_Restore(type, exception, traceback);
    return -1;
}

PyObject *iris_py_dtype_object(const struct iris_py_state *state, enum iris_dtype dtype)
{
    const char *name = iris_dtype_name(dtype);
    PyObject *torch = PyImport_GetModule(state->names[IRIS_PY_NAME_torch]);
    PyObject *result = NULL;

    if (torch) {
        result = PyObject_GetAttrString(torch, name);
        Py_DECREF(torch);
        if (result)
            return result;
    }
    /* Not loaded, or blocked by something that is not torch. */
    PyErr_Clear();
    return PyUnicode_FromString(name);
}

PyObject *iris_py_int64_tuple(const int64_t *values, int count)
{
    PyObject *tuple = PyTuple_New(count);

    for (int i = 0; tuple && i < count; i++) {
        PyObject *item = PyLong_FromLongLong(values[i]);

        if (!item || PyTuple_SetItem(tuple, i, item) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

void iris_py_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);

    free_object(self);
    Py_DECREF(type);
}

/* ---- errors ---- */

/* Sets an attribute and consumes `value`, which may be NULL with an exception set. */
static int set_attribute(PyObject *object, const char *name, PyObject *value)
{
    int result = value ? PyObject_SetAttrString(object, name, value) : -1;

    Py_XDECREF(value);
    return result;
}

/* -1 means "does not apply" or "unknown" in struct iris_error; None says so in Python. */
static PyObject *int_or_none(int value)
{
    if (value < 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(value);
}

static int set_details(const struct iris_py_state *state, PyObject *type, PyObject *exception,
                       const struct iris_error *error)
{
    if (type == state->heap_exhausted) {
        if (set_attribute(exception, "asked", PyLong_FromUnsignedLongLong(error->asked)) < 0 ||
            set_attribute(exception, "free", PyLong_FromUnsignedLongLong(error->free)) < 0 ||
            set_attribute(exception, "heap_size", PyLong_FromUnsignedLongLong(error->heap_size)) <
                0 ||
            set_attribute(exception, "needed", PyLong_FromUnsignedLongLong(error->needed)) < 0)
            return -1;
    } else if (type == state->peer_error || type == state->signal_timeout) {
        if (set_attribute(exception, "rank", int_or_none(error->rank)) < 0 ||
            set_attribute(exception, "call", PyLong_FromUnsignedLong(error->call)) < 0)
            return -1;
        if (type == state->signal_timeout &&
            (set_attribute(exception, "tile", int_or_none(error->tile)) < 0 ||
             set_attribute(exception, "wanted", PyLong_FromUnsignedLong(error->wanted)) < 0 ||
             set_attribute(exception, "seen", PyLong_FromUnsignedLong(error->seen)) < 0))
            return -1;
    }
    return 0;
}

static PyObject *exception_type(const struct iris_py_state *state, enum iris_status status)
{
    switch (status) {
    case IRIS_EINVAL:
        return PyExc_ValueError;
    case IRIS_ETYPE:
        return PyExc_TypeError;
    case IRIS_ENOMEM:
        return PyExc_MemoryError;
    case IRIS_EHEAP:
        return state->heap_exhausted;
    case IRIS_ETIMEDOUT:
        return state->signal_timeout;
    case IRIS_EPEER:
        return state->peer_error;
    case IRIS_EDRIVER:
        return state->backend_error;
    case IRIS_OK:
    case IRIS_ESTATE:
    case IRIS_EINTERRUPTED:
        break;
    }
    return PyExc_RuntimeError;
}

static PyObject *raise_error(const struct iris_py_state *state, enum iris_status status)
{
    const struct iris_error error = *iris_error_last(); /* before Python code can run */
    PyObject *type = exception_type(state, status);
    /* "replace": a message may quote bytes that are not UTF-8. */
    PyObject *message =
        PyUnicode_DecodeUTF8(error.message, (Py_ssize_t)strlen(error.message), "replace");
    PyObject *exception = message ? PyObject_CallFunctionObjArgs(type, message, NULL) : NULL;

    if (exception && set_details(state, type, exception, &error) == 0)
        PyErr_SetObject(type, exception);
    Py_XDECREF(exception);
    Py_XDECREF(message);
    return NULL;
}

/* A signal's handler has raised: its exception is what the caller gets. */
static bool is_raised(enum iris_status status)
{
    return status == IRIS_EINTERRUPTED && PyErr_Occurred();
}

PyObject *iris_py_raise(const struct iris_py_state *state, enum iris_status status)
{
    return is_raised(status) ? NULL : raise_error(state, status);
}

PyObject *iris_py_raise_for(PyObject *self, enum iris_status status)
{
    const struct iris_error error = *iris_error_last();
    const struct iris_py_state *state;

    if (is_raised(status))
        return NULL;
    state = iris_py_state_of_type(Py_TYPE(self)); /* clears what is raised */
    if (!state)
        return NULL;
    iris_error_restore(&error);
    return raise_error(state, status);
}

/* An exception class whose attributes are None until the core fills them. */
static PyObject *new_exception(const char *name, const char *doc, PyObject *base,
                               const char *const *attributes)
{
    PyObject *dict = PyDict_New();
    PyObject *type = NULL;

    if (!dict)
        return NULL;
    for (; *attributes; attributes++)
        if (PyDict_SetItemString(dict, *attributes, Py_None) < 0)
            goto finally;
    type = PyErr_NewExceptionWithDoc(name, doc, base, dict);
finally:
    Py_DECREF(dict);
    return type;
}

int iris_py_errors_init(PyObject *module, struct iris_py_state *state)
{
    static const char *const heap_attributes[] = {"asked", "free", "heap_size", "needed", NULL};
    static const char *const peer_attributes[] = {"rank", "call", NULL};
    static const char *const timeout_attributes[] = {"rank",   "tile", "call",
                                                     "wanted", "seen", NULL};
    static const char *const no_attributes[] = {NULL};

    state->heap_exhausted = new_exception(
        "iris_c.HeapExhausted",
        "The symmetric heap has no room for an allocation.\n\n"
        "Attributes\n----------\n"
        "asked, free, heap_size : int\n    Bytes.\n"
        "needed : int\n    A heap_size (of the local arena: a local_size) with which this "
        "allocation would have fitted.",
        PyExc_MemoryError, heap_attributes);
    state->peer_error = new_exception("iris_c.PeerError",
                                      "A rank died, left or never arrived.\n\n"
                                      "Attributes\n----------\n"
                                      "rank : int or None\n    Which one, None if unknown.\n"
                                      "call : int\n    Call counter of the call that failed.",
                                      PyExc_RuntimeError, peer_attributes);
    state->signal_timeout =
        new_exception("iris_c.SignalTimeout",
                      "A signal that a kernel waited for did not come in time.\n\n"
                      "Attributes\n----------\n"
                      "rank : int or None\n    The rank waited for.\n"
                      "tile : int or None\n    The tile, None for the whole call.\n"
                      "call : int\n    Call counter of the call that failed.\n"
                      "wanted, seen : int\n    Signal values.",
                      PyExc_TimeoutError, timeout_attributes);
    state->backend_error =
        new_exception("iris_c.BackendError", "The operating system or a GPU driver refused a call.",
                      PyExc_RuntimeError, no_attributes);
    if (!state->heap_exhausted || !state->peer_error || !state->signal_timeout ||
        !state->backend_error)
        return -1;
    if (PyModule_AddObjectRef(module, "HeapExhausted", state->heap_exhausted) < 0 ||
        PyModule_AddObjectRef(module, "PeerError", state->peer_error) < 0 ||
        PyModule_AddObjectRef(module, "SignalTimeout", state->signal_timeout) < 0 ||
        PyModule_AddObjectRef(module, "BackendError", state->backend_error) < 0)
        return -1;
    return 0;
}
