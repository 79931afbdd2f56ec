/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Tensor arguments: anything that can describe itself, turned into struct iris_tensor.
 *
 * In order of preference: an iris_c.Buffer; a type with the DLPack exchange table (torch.Tensor
 * since 2.10), which costs a few tens of nanoseconds and allocates nothing; __dlpack__; the buffer
 * protocol. The description does not own the memory: the caller's argument does, or what
 * iris_py_tensor_release lets go.
 */
#ifndef IRIS_PY_TENSOR_H
#define IRIS_PY_TENSOR_H

#include <Python.h>
#include <stdbool.h>

#include "base/status.h"
#include "py_description.h"
#include "py_state.h"
#include "runtime/iris.h"

/* What a call does with a tensor argument. Like torch's functions with out=, it takes no part in
 * autograd: while gradients are recorded, what it reads or writes must not require one. */
enum iris_py_use {
    IRIS_PY_READ,
    IRIS_PY_WRITTEN,
    IRIS_PY_IGNORED /* neither: it must be a tensor, and that is all */
};

/* `argument` names it in messages. RuntimeError: it requires a gradient. On success the caller
 * calls iris_py_tensor_release. On failure `out` needs none. */
int iris_py_tensor_from_object(struct iris_py_state *state, const char *argument, PyObject *object,
                               enum iris_py_use use, struct iris_py_tensor *out);
/* Keeps a raised exception. */
void iris_py_tensor_release(struct iris_py_tensor *tensor);

/* One of several tensor arguments. */
struct iris_py_tensor_role {
    const char *name;
    enum iris_py_use use;
    bool is_optional; /* NULL or None: left out */
};

/* Reads `count` values in their roles; given[i] is tensors[i]'s description, or NULL for one that
 * is left out. `prepares`: for a preamble, which neither reads nor writes any of them. On success
 * the caller calls iris_py_tensors_release, on failure nothing is held. */
int iris_py_tensors_read(struct iris_py_state *state, const struct iris_py_tensor_role *roles,
                         PyObject *const *values, int count, bool prepares,
                         struct iris_py_tensor *tensors, const struct iris_tensor **given);
/* After a call of the core on them that ended with `status`: raises autograd's version of those
 * that were written, so that a backward pass that needs their old values says so. `result` is the
 * call's, NULL with an exception set; returned, or replaced by NULL with an exception. */
PyObject *iris_py_tensors_finish(struct iris_py_state *state, const struct iris_py_tensor *tensors,
                                 int count, enum iris_status status, PyObject *result);
void iris_py_tensors_release(struct iris_py_tensor *tensors, const struct iris_tensor *const *given,
                             int count);

/* The stream on which the tensor's library is working; NULL on the cpu. */
int iris_py_tensor_stream(struct iris_py_state *state, const struct iris_context *ctx,
                          const struct iris_py_tensor *tensor, void **out);

/* `value` as iris_py_stream takes it; None is torch's current stream on the context's device, or
 * the default stream without torch. */
int iris_py_context_stream(struct iris_py_state *state, const struct iris_context *ctx,
                           PyObject *value, void **out);

#endif
