/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What torch knows about its tensors that no description of memory says: a negation or conjugation
 * that has been put off, storage that has been given back, subclasses that are not what their
 * memory holds. Nothing here imports torch; where it is not loaded, nothing is a torch.Tensor.
 */
#ifndef IRIS_PY_TORCH_H
#define IRIS_PY_TORCH_H

#include "py_tensor.h"

/* Fills in is_torch and dispatches of an entry about `type`. 0 also where torch is not loaded. */
int iris_py_torch_describe_type(struct iris_py_state *state, PyTypeObject *type,
                                struct iris_py_tensor_type *out);

/* Whether a torch.Tensor is what its description says. ValueError, TypeError. */
int iris_py_torch_check(struct iris_py_state *state, const char *argument, PyObject *object,
                        const struct iris_tensor *tensor);

#endif
