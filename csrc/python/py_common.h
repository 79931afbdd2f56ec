/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the files of the CPython layer share: the module's state, the argument parser, conversions
 * of single values, and the one place where a status of the core becomes a Python exception.
 *
 * The layer contains no algorithm: a function parses, converts, calls the core with the GIL
 * released, and returns. Only the limited API of Python 3.11 is used. Unless a comment says
 * otherwise functions return -1 or NULL with an exception set, and results are new references.
 */
#ifndef IRIS_PY_COMMON_H
#define IRIS_PY_COMMON_H

#include <Python.h>
#include <stdbool.h>

#include "dlpack.h"
#include "runtime/iris.h"

#define IRIS_UNUSED(name) name __attribute__((unused))

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
    X(requires_grad)                                                                               \
    X(residual)                                                                                    \
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

/* Attributes of torch.Tensor and of torch, once it is loaded; all owned, all or none. */
struct iris_py_torch {
    PyObject *tensor_type; /* the last to be set: the others are there */
    PyObject *is_neg, *is_conj;
    PyObject *dispatch;          /* its __torch_dispatch__ */
    PyObject *is_grad_enabled;   /* torch's function */
    PyObject *increment_version; /* of each tensor of a tuple */
    PyObject *forward_ad;        /* the module */
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

extern struct PyModuleDef iris_py_module_def;

static inline struct iris_py_state *iris_py_state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

/* The state of the module that made `type` or one of its bases. NULL with TypeError. */
struct iris_py_state *iris_py_state_of_type(PyTypeObject *type);

/* ---- arguments ---- */

enum { IRIS_PY_MAX_PARAMETERS = 12 };

/* A function's parameters in order: `positional` of them may be given by position, the first
 * `required` must be given. */
struct iris_py_signature {
    const char *function;
    int count, required, positional;
    enum iris_py_name names[IRIS_PY_MAX_PARAMETERS];
};

/* Sorts the arguments of a FASTCALL | KEYWORDS call into values[], NULL where none was given
 * (borrowed from the caller). TypeErrors are worded as CPython's own. */
int iris_py_parse(const struct iris_py_state *state, const struct iris_py_signature *signature,
                  PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **values);

/* Values, in py_values.c. Errors begin with the argument's name. `value` is borrowed; where it may
 * be NULL, *out then keeps what it holds. TypeError: another type (a bool is no int); ValueError:
 * it does not fit. */
int iris_py_bool(const char *argument, PyObject *value, bool *out);     /* or NULL */
int iris_py_int(const char *argument, PyObject *value, int *out);       /* or NULL; 32 bits */
int iris_py_int64(const char *argument, PyObject *value, int64_t *out); /* or NULL */
int iris_py_double(const char *argument, PyObject *value, double *out); /* or NULL */
/* An int (one dimension) or a sequence of ints, each >= 0; *ndim <= IRIS_MAX_DIMS. */
int iris_py_shape(const char *argument, PyObject *value, int *ndim, int64_t *shape);
/* A sequence of one int for each of `count` ranks. */
int iris_py_int64s(const char *argument, PyObject *value, int count, int64_t *out);
/* A str in UTF-8, without null characters; belongs to `value`. */
const char *iris_py_text(const char *argument, PyObject *value);
/* The same for text that came from bytes, as names of files and environment variables do: they come
 * back as they were (surrogateescape). New. */
PyObject *iris_py_bytes_of_text(const char *argument, PyObject *value);
/* The index of a str among `count` names. `value` may be NULL. */
int iris_py_one_of(const char *argument, PyObject *value, const char *const *names, int count,
                   int *out);
/* ValueError: there is no such operation. */
int iris_py_operation(const char *argument, PyObject *value, enum iris_operation *out);
/* A dtype by name, or any object that spells one: torch.float32, numpy.dtype, numpy.float32. */
int iris_py_dtype(const struct iris_py_state *state, PyObject *value, enum iris_dtype *out);
/* An integer handle, or an object with a `cuda_stream` attribute, whose device is `device_id`; on
 * the cpu 0 alone. */
int iris_py_stream(const struct iris_py_state *state, PyObject *value, bool on_cpu, int device_id,
                   void **out);

/* torch.dtype when torch is loaded, else the name. */
PyObject *iris_py_dtype_object(const struct iris_py_state *state, enum iris_dtype dtype);
PyObject *iris_py_int64_tuple(const int64_t *values, int count);

/* Raises TypeError "argument: expected WHAT, got TYPE". Returns -1. */
int iris_py_type_error(const char *argument, const char *expected, PyObject *value);

/* For an exception that another library raised: replaces it by one whose text begins with the
 * argument's name, "argument: WHAT raised TYPE: its first line", a TypeError if it was one, else a
 * ValueError, with the original as its cause. Those that are not about the argument (MemoryError,
 * KeyboardInterrupt) stay. Returns -1. */
int iris_py_rephrase(const char *argument, const char *what);

/* Frees an object of a heap type: tp_free, then the reference to the type. */
void iris_py_free(PyObject *self);

/* ---- errors ---- */

/* Raises the exception that belongs to `status` and the thread's last error. Returns NULL. */
PyObject *iris_py_raise(const struct iris_py_state *state, enum iris_status status);
/* The same with the state looked up from the object's type. */
PyObject *iris_py_raise_for(PyObject *self, enum iris_status status);

int iris_py_errors_init(PyObject *module, struct iris_py_state *state);

/* ---- configs ---- */

/* Reads a FusedConfig or ccl.Config, once per object unless it is of a subclass. `value` is not
 * None. */
int iris_py_config(struct iris_py_state *state, PyObject *value, struct iris_config *out);
/* From (block_size_m, block_size_n, block_size_k, group_size_m, num_sms, num_xcds, num_fetch_sms,
 * k_per_flag, variant, staged_a_layout, overlap), None where the runtime is to choose. */
int iris_py_config_from_tuple(PyObject *tuple, struct iris_config *out);
PyObject *iris_py_config_to_tuple(const struct iris_config *config);

#endif
