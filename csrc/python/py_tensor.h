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

#include "py_common.h"

struct iris_py_tensor {
    struct iris_tensor tensor;
    const struct iris_dlpack_exchange *exchange; /* the type's table, or NULL */
    int32_t device_type;
    bool is_copy;      /* the producer described a copy: of no use as an output */
    PyObject *capsule; /* owned, or NULL: from __dlpack__, alive until the op has ended */
    Py_buffer view;    /* .obj NULL: none */
};

/* `argument` names it in messages. TypeError: not a tensor. ValueError: a tensor that cannot be
 * described. On success the caller calls iris_py_tensor_release. On failure `out` needs none. */
int iris_py_tensor_from_object(struct iris_py_state *state, const char *argument, PyObject *object,
                               struct iris_py_tensor *out);
/* The same for a tensor that is written: ValueError if it is read-only. */
int iris_py_tensor_output(struct iris_py_state *state, const char *argument, PyObject *object,
                          struct iris_py_tensor *out);
/* Keeps a raised exception. */
void iris_py_tensor_release(struct iris_py_tensor *tensor);

/* One of several tensor arguments. */
struct iris_py_tensor_role {
    const char *name;
    bool is_output;
    bool is_optional; /* NULL or None: left out */
};

/* Reads `count` values in their roles; given[i] is tensors[i]'s description, or NULL for one that
 * is left out. On success the caller calls iris_py_tensors_release, on failure nothing is held. */
int iris_py_tensors_read(struct iris_py_state *state, const struct iris_py_tensor_role *roles,
                         PyObject *const *values, int count, struct iris_py_tensor *tensors,
                         const struct iris_tensor **given);
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
