/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Methods and attributes of iris_c._C.Context about its memory.
 */
#ifndef IRIS_PY_MEMORY_H
#define IRIS_PY_MEMORY_H

#include <Python.h>

#include "py_context_object.h"

iris_py_context_method iris_py_context_allocate, iris_py_context_allocate_local;
extern const char iris_py_allocate_doc[], iris_py_allocate_local_doc[];

PyObject *iris_py_context_is_symmetric(PyObject *object, PyObject *value);
PyObject *iris_py_context_is_reachable(PyObject *object, PyObject *value);
extern const char iris_py_is_symmetric_doc[], iris_py_is_reachable_doc[];

PyObject *iris_py_context_pool(PyObject *object, PyObject *ignored);
PyObject *iris_py_context_capture(PyObject *object, PyObject *ignored);
PyObject *iris_py_context_watch_capture(PyObject *object, PyObject *ignored);

/* Getters. */
PyObject *iris_py_context_local_size(PyObject *object, void *closure);
PyObject *iris_py_context_memory_kind(PyObject *object, void *closure);
PyObject *iris_py_context_local_used(PyObject *object, void *closure);
PyObject *iris_py_context_local_room(PyObject *object, void *closure);

#endif
