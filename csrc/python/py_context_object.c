/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Making a Context of Python.
 */
#include "py_context_object.h"

PyObject *iris_py_context_wrap(PyTypeObject *type, struct iris_context *ctx, const int *ranks)
{
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct iris_py_context *self = (struct iris_py_context *)allocate(type, 0);

    if (!self) {
        iris_context_release(ctx);
        return NULL;
    }
    self->ctx = ctx;
    for (int i = 0; i < iris_context_world_size(ctx); i++)
        self->ranks[i] = ranks[i];
    return (PyObject *)self;
}
