/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the layer remembers: the state of the module iris_c._C. There is no other.
 */
#ifndef IRIS_PY_STATE_H
#define IRIS_PY_STATE_H

#include <Python.h>
#include <stdbool.h>

#include "dlpack.h"
#include "runtime/iris.h"

/* Every keyword and attribute name the layer looks up, interned once per module. */
#define IRIS_PY_NAMES(X)                                                                           \
    X(A)                                                                                           \
    X(A_gathered)                                                                                  \
    X(A_shard)                                                                                     \
    X(B)                                                                                           \
    X(C)                                                                                           \
    X(async_op)                                                                                    \
    X(bias)                                                                                        \
    X(config)                                                                                      \
    X(copy)                                                                                        \
    X(ctx)                                                                                         \
    X(cuda_stream)                                                                                 \
    X(device_index)                                                                                \
    X(dst)                                                                                         \
    X(messages)                                                                                    \
    X(recv_tensor)                                                                                 \
    X(send_tensor)                                                                                 \
    X(dim)                                                                                         \
    X(dl_device)                                                                                   \
    X(dtype)                                                                                       \
    X(input)                                                                                       \
    X(max_version)                                                                                 \
    X(op)                                                                                          \
    X(operation)                                                                                   \
    X(output)                                                                                      \
    X(scale_a)                                                                                     \
    X(scale_b)                                                                                     \
    X(shape)                                                                                       \
    X(src)                                                                                         \
    X(stream)                                                                                      \
    X(tensor)                                                                                      \
    X(timeout)                                                                                     \
    X(torch)                                                                                       \
    X(trace)                                                                                       \
    X(variant)                                                                                     \
    X(workspace)                                                                                   \
    X(compare)                                                                                     \
    X(consume)                                                                                     \
    X(eps)                                                                                         \
    X(gather_dim)                                                                                  \
    X(group)                                                                                       \
    X(input_split_sizes)                                                                           \
    X(output_split_sizes)                                                                          \
    X(peer)                                                                                        \
    X(raw_repr)                                                                                    \
    X(residual)                                                                                    \
    X(output_scale)                                                                                \
    X(residual_out)                                                                                \
    X(value)                                                                                       \
    X(weight)                                                                                      \
    X(word)                                                                                        \
    X(world_size)                                                                                  \
    X(_as_tuple)                                                                                   \
    X(_current_level)                                                                              \
    X(__dlpack__)                                                                                  \
    X(__dlpack_c_exchange_api__)                                                                   \
    X(__name__)
enum iris_py_name {
#define X(name) IRIS_PY_NAME_##name,
    IRIS_PY_NAMES(X)
#undef X
        IRIS_PY_NAME_COUNT
};

enum { IRIS_PY_CACHE_SIZE = 4 };

/* What there is to know about a type of tensors. */
struct iris_py_tensor_type {
    PyObject *type;                              /* owned by the cache */
    const struct iris_dlpack_exchange *exchange; /* NULL: it has none */
    bool is_torch;                               /* torch.Tensor, or a subclass */
    bool dispatches; /* of torch.Tensor, with a __torch_dispatch__ of its own */
};

/* A function of torch that is written in C: called as the interpreter does it, without what an
 * interpreter must find out first. `run` NULL: it is not written so, and is called as an object. */
struct iris_py_builtin {
    PyObject *object; /* owned */
    PyCFunction run;
    PyObject *self; /* the object's; of a method NULL: the tensor */
};

/* Attributes of torch.Tensor and of torch, once it is loaded; all owned, all or none. */
struct iris_py_torch {
    PyObject *tensor_type;                    /* the last to be set: the others are there */
    struct iris_py_builtin is_neg, is_conj;   /* methods */
    struct iris_py_builtin is_grad_enabled;   /* of nothing */
    struct iris_py_builtin increment_version; /* of a tuple of tensors */
    PyObject *requires_grad;                  /* the descriptor */
    descrgetfunc get_requires_grad;           /* its type's __get__ */
    PyObject *dispatch;                       /* Tensor's __torch_dispatch__ */
    PyObject *forward_ad;                     /* the module */
};

/* A config object that has been read, of a type whose objects never change. */
struct iris_py_config_entry {
    PyObject *object; /* owned, so that its address cannot come to mean another object */
    struct iris_config config;
};

struct iris_py_state {
    PyTypeObject *context_type;
    PyTypeObject *buffer_type;
    PyTypeObject *workspace_type;
    PyObject *heap_exhausted;
    PyObject *peer_error;
    PyObject *signal_timeout;
    PyObject *backend_error;
    PyObject *names[IRIS_PY_NAME_COUNT];
    PyObject *dlpack_kwargs; /* {"max_version": (1, 0)} */
    struct iris_py_torch torch;
    struct iris_py_tensor_type tensor_types[IRIS_PY_CACHE_SIZE];
    struct iris_py_config_entry configs[IRIS_PY_CACHE_SIZE];
    unsigned next_tensor_type, next_config; /* the entries to replace next */
};

/* The module's definition, to which module.c adds what is in it. */
extern struct PyModuleDef iris_py_module_def;

static inline struct iris_py_state *iris_py_state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

/* The state of the module that made `type` or one of its bases. NULL with TypeError. */
struct iris_py_state *iris_py_state_of_type(PyTypeObject *type);

/* Fills in the names and constants of a zeroed state. */
int iris_py_state_init(struct iris_py_state *state);

#endif
