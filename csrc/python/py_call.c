/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The arguments that all operations share.
 */
#include "py_call.h"

#include <stdio.h>
#include <string.h>

#include "py_config.h"
#include "py_context_object.h"
#include "py_values.h"
#include "py_workspace.h"

int iris_py_call_begin_direct(PyObject *module, PyObject *ctx, PyObject *group,
                              struct iris_py_call *call)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (!PyObject_TypeCheck(ctx, state->context_type))
        return iris_py_type_error("ctx", "an iris_c.Context", ctx);
    memset(&call->options, 0, sizeof call->options);
    call->state = state;
    call->ranks = NULL;
    call->workspace = NULL;
    if (group && group != Py_None) {
        call->context =
            PyObject_CallMethodObjArgs(ctx, state->names[IRIS_PY_NAME_group], group, NULL);
        if (!call->context)
            return -1;
        if (!PyObject_TypeCheck(call->context, state->context_type)) {
            iris_py_type_error("group", "ctx.group() to return an iris_c.Context", call->context);
            Py_DECREF(call->context);
            return -1;
        }
        call->ranks = ((struct iris_py_context *)call->context)->ranks;
    } else {
        Py_INCREF(ctx);
        call->context = ctx;
    }
    call->ctx = ((struct iris_py_context *)call->context)->ctx;
    return 0;
}

PyObject *iris_py_call_finish(struct iris_py_call *call, PyObject *result)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback); /* the last reference to a context closes it */
    Py_CLEAR(call->workspace);
    Py_CLEAR(call->context);
    PyErr_Restore(type, value, traceback);
    return result;
}

/* The arguments besides ctx and group. */
static int read_choices(enum iris_operation operation, const struct iris_py_choices *choices,
                        struct iris_py_call *call)
{
    PyObject *workspace = choices->workspace;
    enum iris_status status;

    if (choices->config && choices->config != Py_None) {
        if (iris_py_config(call->state, choices->config, &call->config) < 0)
            return -1;
        call->options.config = &call->config;
    }
    if (iris_py_bool("async_op", choices->async_op, &call->options.async_op) < 0 ||
        iris_py_bool("trace", choices->trace, &call->options.trace) < 0)
        return -1;
    if (!workspace || workspace == Py_None) {
        call->workspace = iris_py_context_workspace(
            call->state, (struct iris_py_context *)call->context, operation);
        if (!call->workspace)
            return -1;
    } else if (!PyObject_TypeCheck(workspace, call->state->workspace_type)) {
        return iris_py_type_error("workspace", "an iris_c.FusedWorkspace or None", workspace);
    } else {
        Py_INCREF(workspace);
        call->workspace = workspace;
    }
    call->options.workspace = ((struct iris_py_workspace *)call->workspace)->workspace;
    /* Here for all that follow, also those that in the end use no workspace. */
    status = iris_workspace_check(call->options.workspace, call->ctx, operation);
    if (status != IRIS_OK) {
        iris_py_raise(call->state, status);
        return -1;
    }
    return 0;
}

int iris_py_call_begin(PyObject *module, enum iris_operation operation, PyObject *ctx,
                       const struct iris_py_choices *choices, struct iris_py_call *call)
{
    if (iris_py_call_begin_direct(module, ctx, choices->group, call) < 0)
        return -1;
    if (read_choices(operation, choices, call) == 0)
        return 0;
    (void)iris_py_call_finish(call, NULL);
    return -1;
}

int iris_py_call_rank(const struct iris_py_call *call, const char *argument, PyObject *value,
                      int *out)
{
    const int count = iris_context_world_size(call->ctx);
    int rank = *out;

    if (iris_py_int(argument, value, &rank) < 0)
        return -1;
    *out = rank;
    if (!call->ranks)
        return 0; /* the core checks it */
    for (*out = 0; *out < count && call->ranks[*out] != rank;)
        ++*out;
    if (*out < count)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected a rank of the group, got %d", argument, rank);
    return -1;
}

/* What a group's ranks are called outside it. */
static void name_ranks(const struct iris_py_call *call, struct iris_error *error)
{
    const int count = iris_context_world_size(call->ctx);
    size_t used = strlen(error->message);

    if (error->rank >= 0 && error->rank < count)
        error->rank = call->ranks[error->rank];
    for (int i = 0; i < count && used + 48 < sizeof error->message; i++)
        used += (size_t)snprintf(error->message + used, sizeof error->message - used, "%s%d%s",
                                 i == 0 ? " (numbered within the group of ranks " : ", ",
                                 call->ranks[i], i == count - 1 ? ")" : "");
}

PyObject *iris_py_call_end_direct(const struct iris_py_call *call, enum iris_status status)
{
    if (status == IRIS_OK)
        Py_RETURN_NONE;
    if (call->ranks)
        name_ranks(call, iris_error_last());
    return iris_py_raise(call->state, status);
}

PyObject *iris_py_call_end(const struct iris_py_call *call, enum iris_status status)
{
    if (status != IRIS_OK)
        return iris_py_call_end_direct(call, status);
    Py_INCREF(call->workspace);
    return call->workspace;
}
