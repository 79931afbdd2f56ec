/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the files of the CPython layer share: the argument parser, and the one place where a status
 * of the core becomes a Python exception.
 *
 * The layer contains no algorithm: a function parses, converts, calls the core with the GIL
 * released, and returns. Only the limited API of Python 3.11 is used. Unless a comment says
 * otherwise functions return -1 or NULL with an exception set, and results are new references.
 */
#ifndef IRIS_PY_COMMON_H
#define IRIS_PY_COMMON_H

#include <Python.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/abi/abi.h"
#include "py_state.h"

#define IRIS_UNUSED(name) name __attribute__((unused))

/* ---- arguments ---- */

enum { IRIS_PY_MAX_PARAMETERS = 16 };

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

#endif
