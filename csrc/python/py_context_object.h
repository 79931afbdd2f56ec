/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What a Context of Python holds, for the files of its methods. The type is in py_context.c.
 */
#ifndef IRIS_PY_CONTEXT_OBJECT_H
#define IRIS_PY_CONTEXT_OBJECT_H

#include <Python.h>

#include "runtime/iris.h"

struct iris_py_context {
    PyObject_HEAD
    struct iris_context *ctx; /* one reference of ours; never NULL once constructed */
    /* Python faces of the context's own workspaces, made when first asked for; owned. They do not
     * refer back to this object, so there is no cycle. */
    PyObject *workspaces[IRIS_OP_COUNT];
    /* What the members are called where the group was made; not a group: all ranks. */
    int ranks[IRIS_MAX_RANKS];
};

/* A new object of `type`, a context type, around `ctx`, whose reference it takes over, also on
 * failure; `ranks` has an entry for each rank. */
PyObject *iris_py_context_wrap(PyTypeObject *type, struct iris_context *ctx, const int *ranks);

/* A method with METH_METHOD | METH_FASTCALL | METH_KEYWORDS. */
typedef PyObject *iris_py_context_method(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *kwnames);

#endif
