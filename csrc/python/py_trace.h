/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Methods of iris_c._C.Context for iris_c.tracing.
 */
#ifndef IRIS_PY_TRACE_H
#define IRIS_PY_TRACE_H

#include <Python.h>

extern const char iris_py_trace_doc[];
extern const char iris_py_trace_clear_doc[];

PyObject *iris_py_context_trace(PyObject *object, PyObject *unused);
PyObject *iris_py_context_trace_clear(PyObject *object, PyObject *unused);

#endif
