/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Kernels that torch's dispatcher calls under its key Autograd. Nearly all calls there have nothing
 * that autograd, a mode or a transform would have to see; to find that out in Python takes as long
 * as a small product does.
 */
#include "py_methods.h"
#include "py_state.h"
#include "py_torch.h"

/* What a kernel is bound to: a tuple of these. */
enum { KERNEL_RUN, KERNEL_OTHERWISE, KERNEL_KEYS, KERNEL_MODULE, KERNEL_PARTS };

/* Whether a call's dispatch keys are among `keys`; -1: error. */
static int has_keys(const struct iris_py_state *state, PyObject *keyset, PyObject *keys)
{
    PyObject *bits = PyObject_CallMethodObjArgs(keyset, state->names[IRIS_PY_NAME_raw_repr], NULL);
    unsigned long long number, wanted;

    if (!bits)
        return -1;
    number = PyLong_AsUnsignedLongLong(bits);
    wanted = PyLong_AsUnsignedLongLong(keys);
    Py_DECREF(bits);
    return PyErr_Occurred() ? -1 : (number & wanted) != 0;
}

static PyObject *kernel_call(PyObject *self, PyObject *arguments)
{
    const Py_ssize_t count = PyTuple_Size(arguments);
    /* Borrowed, as all items of tuples here. */
    struct iris_py_state *state = iris_py_state_of_module(PyTuple_GetItem(self, KERNEL_MODULE));
    PyObject *given, *result;
    int otherwise;

    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "expected a keyset, and the arguments of an operation");
        return NULL;
    }
    otherwise = has_keys(state, PyTuple_GetItem(arguments, 0), PyTuple_GetItem(self, KERNEL_KEYS));
    if (otherwise == 0)
        otherwise = iris_py_torch_is_differentiated(state, arguments);
    if (otherwise < 0)
        return NULL;
    if (otherwise)
        return PyObject_CallObject(PyTuple_GetItem(self, KERNEL_OTHERWISE), arguments);
    given = PyTuple_GetSlice(arguments, 1, count);
    result = given ? PyObject_CallObject(PyTuple_GetItem(self, KERNEL_RUN), given) : NULL;
    Py_XDECREF(given);
    return result;
}

static PyMethodDef kernel_method = {"kernel", kernel_call, METH_VARARGS, NULL};

PyDoc_STRVAR(kernel_doc,
             "_kernel($module, run, otherwise, keys, /)\n--\n\n"
             "A function of a keyset of torch's dispatcher and an operation's arguments. It is\n"
             "run(*arguments), but otherwise(keyset, *arguments) where the keyset has one of the\n"
             "bits `keys`, or the call may be differentiated.");

static PyObject *make_kernel(PyObject *module, PyObject *args)
{
    PyObject *run, *otherwise, *keys, *parts, *kernel;

    if (!PyArg_ParseTuple(args, "OOO!:_kernel", &run, &otherwise, &PyLong_Type, &keys))
        return NULL;
    parts = PyTuple_Pack(KERNEL_PARTS, run, otherwise, keys, module);
    kernel = parts ? PyCFunction_NewEx(&kernel_method, parts, NULL) : NULL;
    Py_XDECREF(parts);
    return kernel;
}

PyMethodDef iris_py_kernel_methods[] = {
    {"_kernel", make_kernel, METH_VARARGS, kernel_doc},
    {NULL, NULL, 0, NULL},
};
