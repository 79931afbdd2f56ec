/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Objects with the buffer protocol, read into struct iris_py_tensor.
 */
#ifndef IRIS_PY_VIEW_H
#define IRIS_PY_VIEW_H

#include <Python.h>

#include "py_description.h"

/* TypeError: it has no buffer protocol. ValueError. */
int iris_py_view_read(const char *argument, PyObject *object, struct iris_py_tensor *out);

#endif
