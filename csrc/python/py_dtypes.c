/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One table of the dtypes' names elsewhere.
 */
#include "py_dtypes.h"

#include <string.h>

static const struct {
    uint8_t dlpack_code;
    const char *format;
} dtypes[IRIS_DTYPE_COUNT] = {
    [IRIS_DTYPE_F32] = {IRIS_DLPACK_FLOAT, "f"},
    [IRIS_DTYPE_F16] = {IRIS_DLPACK_FLOAT, "e"},
    [IRIS_DTYPE_BF16] = {IRIS_DLPACK_BFLOAT, NULL},
    [IRIS_DTYPE_F64] = {IRIS_DLPACK_FLOAT, "d"},
    [IRIS_DTYPE_I8] = {IRIS_DLPACK_INT, "b"},
    [IRIS_DTYPE_I16] = {IRIS_DLPACK_INT, "h"},
    [IRIS_DTYPE_I32] = {IRIS_DLPACK_INT, "i"},
    [IRIS_DTYPE_I64] = {IRIS_DLPACK_INT, "q"},
    [IRIS_DTYPE_U8] = {IRIS_DLPACK_UINT, "B"},
    [IRIS_DTYPE_BOOL] = {IRIS_DLPACK_BOOL, "?"},
    [IRIS_DTYPE_U16] = {IRIS_DLPACK_UINT, "H"},
    [IRIS_DTYPE_U32] = {IRIS_DLPACK_UINT, "I"},
    [IRIS_DTYPE_U64] = {IRIS_DLPACK_UINT, "Q"},
    [IRIS_DTYPE_C64] = {IRIS_DLPACK_COMPLEX, "Zf"},
    [IRIS_DTYPE_C128] = {IRIS_DLPACK_COMPLEX, "Zd"},
    [IRIS_DTYPE_F8_E4M3FN] = {IRIS_DLPACK_FLOAT8_E4M3FN, NULL},
    [IRIS_DTYPE_F8_E5M2] = {IRIS_DLPACK_FLOAT8_E5M2, NULL},
    [IRIS_DTYPE_F8_E4M3FNUZ] = {IRIS_DLPACK_FLOAT8_E4M3FNUZ, NULL},
    [IRIS_DTYPE_F8_E5M2FNUZ] = {IRIS_DLPACK_FLOAT8_E5M2FNUZ, NULL},
    [IRIS_DTYPE_F8_E8M0FNU] = {IRIS_DLPACK_FLOAT8_E8M0FNU, NULL},
};

PyObject *iris_py_dtype_names(void)
{
    PyObject *names = PyUnicode_FromString(iris_dtype_name((enum iris_dtype)0));

    for (int d = 1; names && d < IRIS_DTYPE_COUNT; d++) {
        PyObject *longer =
            PyUnicode_FromFormat("%U%s%s", names, d < IRIS_DTYPE_COUNT - 1 ? ", " : " or ",
                                 iris_dtype_name((enum iris_dtype)d));

        Py_DECREF(names);
        names = longer;
    }
    return names;
}

uint8_t iris_py_dtype_dlpack_code(enum iris_dtype dtype)
{
    return dtypes[dtype].dlpack_code;
}

int iris_py_dtype_from_dlpack(const struct iris_dlpack_tensor *tensor, enum iris_dtype *out)
{
    for (int d = 0; d < IRIS_DTYPE_COUNT; d++) {
        if (dtypes[d].dlpack_code != tensor->type_code || tensor->type_lanes != 1 ||
            8 * iris_dtype_nbytes((enum iris_dtype)d) != tensor->type_bits)
            continue;
        *out = (enum iris_dtype)d;
        return 0;
    }
    return -1;
}

const char *iris_py_dtype_format(enum iris_dtype dtype)
{
    return dtypes[dtype].format;
}

int iris_py_dtype_from_format(const char *format, Py_ssize_t itemsize, enum iris_dtype *out)
{
    static const char of_either_size[] = "lnLN";
    const char *integer;

    if (!format)
        format = "B";
    if (format[0] == '@' || format[0] == '=' || format[0] == '<')
        format++;
    integer = format[0] != '\0' && format[1] == '\0' ? strchr(of_either_size, format[0]) : NULL;
    for (int d = 0; d < IRIS_DTYPE_COUNT; d++) {
        const enum iris_dtype dtype = (enum iris_dtype)d;
        const uint8_t code =
            integer && integer - of_either_size < 2 ? IRIS_DLPACK_INT : IRIS_DLPACK_UINT;

        if ((Py_ssize_t)iris_dtype_nbytes(dtype) != itemsize ||
            (integer ? dtypes[d].dlpack_code != code
                     : !dtypes[d].format || strcmp(dtypes[d].format, format) != 0))
            continue;
        *out = dtype;
        return 0;
    }
    return -1;
}
