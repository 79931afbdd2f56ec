/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c.FusedWorkspace: the handle to the buffers an operation keeps between its calls.
 */
#ifndef IRIS_PY_WORKSPACE_H
#define IRIS_PY_WORKSPACE_H

#include <Python.h>

#include "py_context_object.h"
#include "py_state.h"
#include "runtime/iris.h"

struct iris_py_workspace {
    PyObject_HEAD
    struct iris_workspace *workspace; /* one reference of ours */
    PyObject *weak_references;
};

/* Takes over the caller's reference to `workspace`, also on failure. */
PyObject *iris_py_workspace_new(const struct iris_py_state *state,
                                struct iris_workspace *workspace);

/* The face of the context's own workspace for `operation`. */
PyObject *iris_py_context_workspace(const struct iris_py_state *state, struct iris_py_context *self,
                                    enum iris_operation operation);

extern PyType_Spec iris_py_workspace_spec;

#endif
