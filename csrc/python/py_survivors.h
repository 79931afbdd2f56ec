/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A method and an attribute of iris_c._C.Context.
 */
#ifndef IRIS_PY_SURVIVORS_H
#define IRIS_PY_SURVIVORS_H

#include <Python.h>

extern const char iris_py_survivors_doc[];

PyObject *iris_py_context_survivors(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                    Py_ssize_t nargs, PyObject *kwnames);
/* What the ranks met by. */
PyObject *iris_py_context_run_key(PyObject *object, void *closure);

#endif
