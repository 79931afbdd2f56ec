/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the functions of all operations share: the arguments that each has besides its tensors, and
 * the result.
 */
#ifndef IRIS_PY_CALL_H
#define IRIS_PY_CALL_H

#include "py_common.h"

/* What every operation has besides its tensors. Context and workspace are owned: a group's context
 * comes from a method that a subclass may have overridden, and conversions of later arguments run
 * Python code. */
struct iris_py_call {
    struct iris_py_state *state;
    PyObject *context; /* owned: the caller's, or its group's */
    struct iris_context *ctx;
    struct iris_config config;
    struct iris_op_options options; /* .config points to the member above, or is NULL */
    PyObject *workspace;            /* owned, or NULL: the operation has none */
    const int *ranks;               /* in a group: its members, in `context`; NULL otherwise */
};

/* What a call may leave open, each NULL; config, workspace and group also None. */
struct iris_py_choices {
    PyObject *config, *workspace, *async_op, *group, *trace;
};

/* `ctx` as the caller gave it; with a group the call is on the group's context. On success the
 * caller calls iris_py_call_finish; on failure nothing is held. */
int iris_py_call_begin(PyObject *module, enum iris_operation operation, PyObject *ctx,
                       const struct iris_py_choices *choices, struct iris_py_call *call);

/* The same for operations without a workspace: state, ctx and ranks alone. */
int iris_py_call_begin_direct(PyObject *module, PyObject *ctx, PyObject *group,
                              struct iris_py_call *call);

/* A rank as the caller counts them, into one as the call's context does. `value` NULL: *out keeps
 * what it holds, the caller's default. */
int iris_py_call_rank(const struct iris_py_call *call, const char *argument, PyObject *value,
                      int *out);

/* Lets go of what the call owns. Returns `result`, also NULL, whose exception stays. */
PyObject *iris_py_call_finish(struct iris_py_call *call, PyObject *result);

/* The operation's result: its workspace, or the exception for `status`. */
PyObject *iris_py_call_end(const struct iris_py_call *call, enum iris_status status);
/* The same for operations without a workspace: None. */
PyObject *iris_py_call_end_direct(const struct iris_py_call *call, enum iris_status status);

/* The choices of a collective, from its parsed arguments. */
#define IRIS_PY_COLLECTIVE_CHOICES(a)                                                              \
    {.config = (a).config, .workspace = (a).workspace, .async_op = (a).async_op, .group = (a).group}

#endif
