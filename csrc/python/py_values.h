/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Single values of Python as values of C.
 *
 * Errors begin with the argument's name. `value` is borrowed; where it may be NULL, *out then keeps
 * what it holds. TypeError: another type (a bool is no int); ValueError: it does not fit.
 */
#ifndef IRIS_PY_VALUES_H
#define IRIS_PY_VALUES_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/abi/abi.h"
#include "py_state.h"

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

#endif
