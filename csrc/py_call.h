/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the functions of all operations share: the arguments that each has besides its tensors, and
 * the result.
 */
#ifndef IRIS_PY_CALL_H
#define IRIS_PY_CALL_H

#include "py_common.h"

/* What every operation has besides its tensors. */
struct iris_py_call {
    struct iris_py_state *state;
    struct iris_context *ctx;
    struct iris_config config;
    struct iris_op_options options; /* .config points to the member above, or is NULL */
    PyObject *workspace;            /* borrowed from the caller or from the context */
};

/* `config`, `workspace` and `async_op` may be NULL or None. */
int iris_py_call_begin(PyObject *module, enum iris_operation operation, PyObject *ctx,
                       PyObject *config, PyObject *workspace, PyObject *async_op,
                       struct iris_py_call *call);

/* The operation's result: its workspace, or the exception for `status`. */
PyObject *iris_py_call_end(const struct iris_py_call *call, enum iris_status status);

/* ---- parts of their docstrings ---- */

#define IRIS_PY_OP_RETURNS                                                                         \
    "Returns\n-------\n"                                                                           \
    "FusedWorkspace\n    The workspace used: the object passed in, or the context's.\n\n"

#define IRIS_PY_OP_RAISES                                                                          \
    "Raises\n------\n"                                                                             \
    "ValueError\n    Shapes, strides, dtypes, devices, aliasing, config.\n"                        \
    "HeapExhausted\n    The heap has no room for the workspace.\n"                                 \
    "SignalTimeout, PeerError\n    A rank did not take part in time, or is gone."

#endif
