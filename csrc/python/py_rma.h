/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Methods of iris_c._C.Context that one rank calls alone: put, get, signal, wait.
 */
#ifndef IRIS_PY_RMA_H
#define IRIS_PY_RMA_H

#include "py_context_object.h"

iris_py_context_method iris_py_context_put, iris_py_context_get, iris_py_context_signal,
    iris_py_context_wait;
extern const char iris_py_put_doc[], iris_py_get_doc[], iris_py_signal_doc[], iris_py_wait_doc[];

#endif
