/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The arguments that all operations share.
 */
#include "py_call.h"

#include <string.h>

#include "py_context.h"
#include "py_workspace.h"

int iris_py_call_begin(PyObject *module, enum iris_operation operation, PyObject *ctx,
                       PyObject *config, PyObject *workspace, PyObject *async_op,
                       struct iris_py_call *call)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (!PyObject_TypeCheck(ctx, state->context_type))
        return iris_py_type_error("ctx", "an iris_c.Context", ctx);
    memset(&call->options, 0, sizeof call->options);
    call->state = state;
    call->ctx = ((struct iris_py_context *)ctx)->ctx;
    if (config && config != Py_None) {
        if (iris_py_config(state, config, &call->config) < 0)
            return -1;
        call->options.config = &call->config;
    }
    if (iris_py_bool(async_op, &call->options.async_op) < 0)
        return -1;
    if (!workspace || workspace == Py_None) {
        workspace = iris_py_context_workspace(state, (struct iris_py_context *)ctx, operation);
        if (!workspace)
            return -1;
    } else if (!PyObject_TypeCheck(workspace, state->workspace_type)) {
        return iris_py_type_error("workspace", "an iris_c.FusedWorkspace or None", workspace);
    }
    call->workspace = workspace;
    call->options.workspace = ((struct iris_py_workspace *)workspace)->workspace;
    return 0;
}

PyObject *iris_py_call_end(const struct iris_py_call *call, enum iris_status status)
{
    if (status != IRIS_OK)
        return iris_py_raise(call->state, status);
    Py_INCREF(call->workspace);
    return call->workspace;
}
