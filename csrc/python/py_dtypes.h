/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What dtypes are called elsewhere: by name, in DLPack, and in the buffer protocol.
 */
#ifndef IRIS_PY_DTYPES_H
#define IRIS_PY_DTYPES_H

#include "py_common.h"

/* "float32, float16, ...": all there are, for messages. A new reference. */
PyObject *iris_py_dtype_names(void);

/* DLPack's type code. Its bits are the dtype's size. */
uint8_t iris_py_dtype_dlpack_code(enum iris_dtype dtype);
/* -1 without an exception: there is no such dtype. */
int iris_py_dtype_from_dlpack(const struct iris_dlpack_tensor *tensor, enum iris_dtype *out);

/* The struct module's format of native byte order; NULL: it has none. */
const char *iris_py_dtype_format(enum iris_dtype dtype);
/* `format` NULL stands for "B". How long 'l', 'n', 'L' and 'N' are is the machine's affair or the
 * standard's, as the character before says: the item's size tells. -1 without an exception: no
 * dtype, or bytes in another order. */
int iris_py_dtype_from_format(const char *format, Py_ssize_t itemsize, enum iris_dtype *out);

#endif
