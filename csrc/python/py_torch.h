/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What torch knows about its tensors that no description of memory says: a negation or conjugation
 * that has been put off, storage that has been given back, subclasses that are not what their
 * memory holds; and autograd's part in them. Nothing here imports torch; where it is not loaded,
 * nothing is a torch.Tensor.
 */
#ifndef IRIS_PY_TORCH_H
#define IRIS_PY_TORCH_H

#include <Python.h>

#include "py_description.h"
#include "py_state.h"

/* Fills in is_torch and dispatches of an entry about `type`. 0 also where torch is not loaded. */
int iris_py_torch_describe_type(struct iris_py_state *state, PyTypeObject *type,
                                struct iris_py_tensor_type *out);

/* ValueError: a torch.Tensor whose storage has no memory. */
int iris_py_torch_check_storage(const char *argument, PyObject *object,
                                const struct iris_tensor *tensor);

/* What autograd is about to record, for all tensors of a call. */
struct iris_py_torch_modes {
    bool are_known; /* false at first: where no torch.Tensor comes, nothing is asked */
    bool records_gradients, has_tangents;
};

/* For a torch.Tensor that is about to be read or written. ValueError: its memory does not hold its
 * values. RuntimeError: it takes part in automatic differentiation. */
int iris_py_torch_check_values(struct iris_py_state *state, struct iris_py_torch_modes *modes,
                               const char *argument, PyObject *object, enum iris_dtype dtype);

/* Whether a call of these arguments may be differentiated: one of the tensors among them requires a
 * gradient, which is recorded, or there is a level of forward differentiation. -1: error. */
int iris_py_torch_is_differentiated(struct iris_py_state *state, PyObject *arguments);

/* Tells autograd that those of the tensors which are `written`, so many, were written. Keeps a
 * raised exception, and is then not heard of if it fails. */
int iris_py_torch_increment(struct iris_py_state *state, const struct iris_py_tensor *tensors,
                            int count, int written);

#endif
