/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c._C.Context: the base class of iris_c.Context.
 */
#ifndef IRIS_PY_CONTEXT_H
#define IRIS_PY_CONTEXT_H

#include "py_common.h"

struct iris_py_context {
    PyObject_HEAD
    struct iris_context *ctx; /* one reference of ours; never NULL once constructed */
    /* Python faces of the context's own workspaces, made when first asked for; owned. They do not
     * refer back to this object, so there is no cycle. */
    PyObject *workspaces[IRIS_OP_COUNT];
    /* What the members are called where the group was made; not a group: all ranks. */
    int ranks[IRIS_MAX_RANKS];
};

/* The face of the context's own workspace for `operation`. */
PyObject *iris_py_context_workspace(const struct iris_py_state *state, struct iris_py_context *self,
                                    enum iris_operation operation);

/* A new object of `type`, a context type, around `ctx`, whose reference it takes over, also on
 * failure; `ranks` has an entry for each rank. */
PyObject *iris_py_context_wrap(PyTypeObject *type, struct iris_context *ctx, const int *ranks);

extern PyType_Spec iris_py_context_spec;

#endif
