/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Context.survivors: the context of the ranks that are left.
 */
#include "py_survivors.h"

#include <string.h>

#include "py_common.h"
#include "py_context_object.h"
#include "py_values.h"
#include "py_wait.h"

const char iris_py_survivors_doc[] =
    "survivors($self, /, timeout=None)\n--\n\n"
    "The context of those ranks that are left. Closes this one. Collective over them.\n\n"
    "See iris_c.Context.survivors.";

PyObject *iris_py_context_survivors(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                    Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "survivors", .count = 1, .positional = 1, .names = {IRIS_PY_NAME_timeout}};
    const struct iris_py_state *state = PyType_GetModuleState(cls);
    const struct iris_py_context *self = (const struct iris_py_context *)object;
    PyObject *values[IRIS_PY_MAX_PARAMETERS];
    struct iris_context *survivors = NULL;
    int ranks[IRIS_MAX_RANKS] = {0};
    const double *timeout = NULL;
    enum iris_status status;
    double seconds;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, values) < 0)
        return NULL;
    if (values[0] && values[0] != Py_None) {
        if (iris_py_double("timeout", values[0], &seconds) < 0)
            return NULL;
        timeout = &seconds;
    }
    IRIS_PY_BEGIN_WAIT
    status = iris_context_survivors(self->ctx, timeout, &survivors, ranks);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK) {
        iris_context_release(survivors);
        return iris_py_raise(state, status);
    }
    for (int i = 0; i < iris_context_world_size(survivors); i++)
        ranks[i] = self->ranks[ranks[i]];
    return iris_py_context_wrap(Py_TYPE(object), survivors, ranks);
}

PyObject *iris_py_context_run_key(PyObject *object, void *IRIS_UNUSED(closure))
{
    const char *key = iris_context_run_key(((const struct iris_py_context *)object)->ctx);

    return PyUnicode_DecodeUTF8(key, (Py_ssize_t)strlen(key), "surrogateescape");
}
