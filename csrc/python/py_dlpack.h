/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * DLPack descriptions of other libraries' tensors, read into struct iris_py_tensor.
 */
#ifndef IRIS_PY_DLPACK_H
#define IRIS_PY_DLPACK_H

#include <Python.h>

#include "py_description.h"
#include "py_state.h"

/* Copies the description: shape and strides belong to the producer. ValueError. */
int iris_py_dlpack_read(const char *argument, const struct iris_dlpack_tensor *source,
                        struct iris_py_tensor *out);

/* Through the object's __dlpack__ method. 1: described; 0: the object is no DLPack exporter, or
 * cannot export this but has the buffer protocol; -1: error. */
int iris_py_dlpack_call(struct iris_py_state *state, const char *argument, PyObject *object,
                        struct iris_py_tensor *out);

#endif
