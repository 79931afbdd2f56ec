/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Configs: objects, tuples of their fields, and what the core takes.
 */
#ifndef IRIS_PY_CONFIG_H
#define IRIS_PY_CONFIG_H

#include <Python.h>

#include "py_state.h"
#include "runtime/iris.h"

/* Reads a FusedConfig or ccl.Config, once per object unless it is of a subclass. `value` is not
 * None. */
int iris_py_config(struct iris_py_state *state, PyObject *value, struct iris_config *out);
/* From (block_size_m, block_size_n, block_size_k, group_size_m, num_sms, num_xcds, num_fetch_sms,
 * k_per_flag, variant, staged_a_layout, overlap), None where the runtime is to choose. */
int iris_py_config_from_tuple(PyObject *tuple, struct iris_config *out);
PyObject *iris_py_config_to_tuple(const struct iris_config *config);

#endif
