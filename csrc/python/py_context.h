/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c._C.Context: the base class of iris_c.Context.
 */
#ifndef IRIS_PY_CONTEXT_H
#define IRIS_PY_CONTEXT_H

#include <Python.h>

extern PyType_Spec iris_py_context_spec;

#endif
