/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Single values of Python as values of C: what is not quite of the type is refused, by an error
 * that begins with the argument's name. A bool is not taken for an int, an int not for a bool, None
 * for neither; a number that does not fit is a ValueError. Whatever a conversion calls may run
 * Python code, which may raise anything.
 */
#include "py_values.h"

#include <string.h>

#include "py_common.h"
#include "py_dtypes.h"

/* ---- bools and numbers ---- */

/* numpy.bool_, which numpy's comparisons return. */
static bool is_numpy_bool(PyObject *value)
{
    PyObject *type = (PyObject *)Py_TYPE(value);
    PyObject *name = PyObject_GetAttrString(type, "__name__");
    PyObject *module = PyObject_GetAttrString(type, "__module__");
    const bool is = name && module && PyUnicode_Check(name) && PyUnicode_Check(module) &&
                    PyUnicode_CompareWithASCIIString(module, "numpy") == 0 &&
                    (PyUnicode_CompareWithASCIIString(name, "bool_") == 0 ||
                     PyUnicode_CompareWithASCIIString(name, "bool") == 0);

    PyErr_Clear();
    Py_XDECREF(name);
    Py_XDECREF(module);
    return is;
}

int iris_py_bool(const char *argument, PyObject *value, bool *out)
{
    int truth;

    if (!value)
        return 0;
    if (PyBool_Check(value)) {
        *out = value == Py_True;
        return 0;
    }
    if (!is_numpy_bool(value))
        return iris_py_type_error(argument, "a bool", value);
    truth = PyObject_IsTrue(value);
    if (truth < 0)
        return iris_py_rephrase(argument, "its __bool__");
    *out = truth != 0;
    return 0;
}

/* ValueError "argument: expected WHAT, got NUMBER"; the number may be too long to be printed. */
static int range_error(const char *argument, const char *expected, PyObject *number)
{
    PyObject *text = PyObject_Str(number);

    if (text) {
        PyErr_Format(PyExc_ValueError, "%s: expected %s, got %U", argument, expected, text);
    } else {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: expected %s, got one of thousands of digits", argument,
                     expected);
    }
    Py_XDECREF(text);
    return -1;
}

/* An int in [least, most]; `kind` and `range` say so in errors. */
static int read_int(const char *argument, PyObject *value, const char *kind, const char *range,
                    long long least, long long most, long long *out)
{
    PyObject *number;
    long long result;
    int overflow = 0, failed = 0;

    if (PyBool_Check(value) || !PyIndex_Check(value))
        return iris_py_type_error(argument, kind, value);
    number = PyNumber_Index(value);
    if (!number)
        return iris_py_rephrase(argument, "its __index__");
    result = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0 || result < least || result > most)
        failed = range_error(argument, overflow != 0 ? "an int of 64 bits" : range, number);
    else
        *out = result;
    Py_DECREF(number);
    return failed;
}

int iris_py_int(const char *argument, PyObject *value, int *out)
{
    long long result = 0;

    if (!value)
        return 0;
    if (read_int(argument, value, "an int", "a 32-bit int", INT32_MIN, INT32_MAX, &result) < 0)
        return -1;
    *out = (int)result;
    return 0;
}

int iris_py_int64(const char *argument, PyObject *value, int64_t *out)
{
    long long result = 0;

    if (!value)
        return 0;
    if (read_int(argument, value, "an int", "a 64-bit int", INT64_MIN, INT64_MAX, &result) < 0)
        return -1;
    *out = result;
    return 0;
}

int iris_py_double(const char *argument, PyObject *value, double *out)
{
    double result;

    if (!value)
        return 0;
    if (PyBool_Check(value) || !PyNumber_Check(value))
        return iris_py_type_error(argument, "a float", value);
    result = PyFloat_AsDouble(value);
    if (PyErr_Occurred())
        return iris_py_rephrase(argument, "its conversion to a float");
    *out = result;
    return 0;
}

/* ---- sequences of ints ---- */

static bool is_sequence(PyObject *value)
{
    return PySequence_Check(value) && !PyUnicode_Check(value) && !PyBytes_Check(value) &&
           !PyByteArray_Check(value);
}

/* The items of [0, count), each an int >= least. */
static int read_items(const char *argument, PyObject *value, const char *range, long long least,
                      Py_ssize_t count, int64_t *out)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(value, i);
        long long number = 0;
        int failed = item ? read_int(argument, item, "an int or a sequence of ints", range, least,
                                     INT64_MAX, &number)
                          : iris_py_rephrase(argument, "its __getitem__");

        Py_XDECREF(item);
        if (failed)
            return -1;
        out[i] = number;
    }
    return 0;
}

int iris_py_shape(const char *argument, PyObject *value, int *ndim, int64_t *shape)
{
    static const char range[] = "sizes >= 0";
    static const char kind[] = "an int or a sequence of ints";
    long long size = 0;
    Py_ssize_t count;

    if (!is_sequence(value)) {
        if (read_int(argument, value, kind, range, 0, INT64_MAX, &size) < 0)
            return -1;
        *ndim = 1;
        shape[0] = size;
        return 0;
    }
    count = PySequence_Size(value);
    if (count < 0 && PyIndex_Check(value)) { /* an array without dimensions, which is a number */
        PyErr_Clear();
        if (read_int(argument, value, kind, range, 0, INT64_MAX, &size) < 0)
            return -1;
        *ndim = 1;
        shape[0] = size;
        return 0;
    }
    if (count < 0)
        return iris_py_rephrase(argument, "its __len__");
    if (count > IRIS_MAX_DIMS) {
        PyErr_Format(PyExc_ValueError, "%s: expected at most %d dimensions, got %zd", argument,
                     (int)IRIS_MAX_DIMS, count);
        return -1;
    }
    if (read_items(argument, value, range, 0, count, shape) < 0)
        return -1;
    *ndim = (int)count;
    return 0;
}

int iris_py_int64s(const char *argument, PyObject *value, int count, int64_t *out)
{
    Py_ssize_t length;

    if (!is_sequence(value))
        return iris_py_type_error(argument, "a sequence of ints", value);
    length = PySequence_Size(value);
    if (length < 0)
        return iris_py_rephrase(argument, "its __len__");
    if (length != count) {
        PyErr_Format(PyExc_ValueError, "%s: expected %d sizes, one for each rank, got %zd",
                     argument, count, length);
        return -1;
    }
    return read_items(argument, value, "64-bit ints", INT64_MIN, count, out);
}

/* ---- text ---- */

const char *iris_py_text(const char *argument, PyObject *value)
{
    Py_ssize_t length;
    const char *text;

    if (!PyUnicode_Check(value)) {
        iris_py_type_error(argument, "a str", value);
        return NULL;
    }
    text = PyUnicode_AsUTF8AndSize(value, &length);
    if (!text) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
            return NULL;
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: expected text that has a UTF-8 form, got %A", argument,
                     value);
        return NULL;
    }
    if (strlen(text) != (size_t)length) {
        PyErr_Format(PyExc_ValueError, "%s: expected text without null characters, got %A",
                     argument, value);
        return NULL;
    }
    return text;
}

PyObject *iris_py_bytes_of_text(const char *argument, PyObject *value)
{
    PyObject *bytes;

    if (!PyUnicode_Check(value)) {
        iris_py_type_error(argument, "a str", value);
        return NULL;
    }
    bytes = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
    if (!bytes) {
        iris_py_rephrase(argument, "its encoding");
        return NULL;
    }
    if (strlen(PyBytes_AsString(bytes)) == (size_t)PyBytes_Size(bytes))
        return bytes;
    Py_DECREF(bytes);
    PyErr_Format(PyExc_ValueError, "%s: expected text without null characters, got %A", argument,
                 value);
    return NULL;
}

int iris_py_operation(const char *argument, PyObject *value, enum iris_operation *out)
{
    const char *name = iris_py_text(argument, value);

    if (!name)
        return -1;
    if (iris_operation_from_name(name, out))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected the name of an operation, got '%.100s'", argument,
                 name);
    return -1;
}

int iris_py_one_of(const char *argument, PyObject *value, const char *const *names, int count,
                   int *out)
{
    const char *text;
    char all[96] = "";

    if (!value)
        return 0;
    text = iris_py_text(argument, value);
    if (!text)
        return -1;
    for (int i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    for (int i = 0; i < count; i++) {
        if (i > 0)
            strncat(all, ", ", sizeof all - strlen(all) - 1);
        strncat(all, names[i], sizeof all - strlen(all) - 1);
    }
    PyErr_Format(PyExc_ValueError, "%s: expected one of %s, got %R", argument, all, value);
    return -1;
}

/* The text that spells `value` as a dtype: itself, a scalar type's __name__, or its str(). */
static PyObject *dtype_text(const struct iris_py_state *state, PyObject *value)
{
    PyObject *text;

    if (PyUnicode_Check(value))
        return Py_NewRef(value);
    text = PyType_Check(value) ? PyObject_GetAttr(value, state->names[IRIS_PY_NAME___name__])
                               : PyObject_Str(value);
    if (!text)
        iris_py_rephrase("dtype", "its name");
    return text;
}

int iris_py_dtype(const struct iris_py_state *state, PyObject *value, enum iris_dtype *out)
{
    PyObject *text = dtype_text(state, value);
    const char *name = text ? iris_py_text("dtype", text) : NULL;
    PyObject *names;
    int result = -1;

    if (!name)
        goto finally;
    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    for (int i = 0; i < IRIS_DTYPE_COUNT; i++) {
        if (strcmp(name, iris_dtype_name((enum iris_dtype)i)) == 0) {
            *out = (enum iris_dtype)i;
            result = 0;
            goto finally;
        }
    }
    names = iris_py_dtype_names();
    if (names)
        PyErr_Format(PyExc_ValueError, "dtype: expected %U, got %.100s", names, name);
    Py_XDECREF(names);
finally:
    Py_XDECREF(text);
    return result;
}

/* ---- streams ---- */

/* A torch stream knows its device. */
static int check_device_of_stream(const struct iris_py_state *state, PyObject *value, int device_id)
{
    PyObject *index = PyObject_GetAttr(value, state->names[IRIS_PY_NAME_device_index]);
    int number = device_id;

    if (!index) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return iris_py_rephrase("stream", "its device_index");
        PyErr_Clear();
        return 0;
    }
    if (PyLong_Check(index) && iris_py_int("stream", index, &number) < 0) {
        Py_DECREF(index);
        return -1;
    }
    Py_DECREF(index);
    if (number == device_id)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "stream: expected one of device %d, the context's, got one of device %d",
                 device_id, number);
    return -1;
}

int iris_py_stream(const struct iris_py_state *state, PyObject *value, bool on_cpu, int device_id,
                   void **out)
{
    static const char kinds[] = "None, an int or a torch stream";
    PyObject *handle = NULL;
    unsigned long long stream;

    if (PyBool_Check(value))
        return iris_py_type_error("stream", kinds, value);
    if (PyLong_Check(value)) {
        handle = Py_NewRef(value);
    } else {
        handle = PyObject_GetAttr(value, state->names[IRIS_PY_NAME_cuda_stream]);
        if (!handle) {
            if (!PyErr_ExceptionMatches(PyExc_AttributeError))
                return iris_py_rephrase("stream", "its cuda_stream");
            PyErr_Clear();
            return iris_py_type_error("stream", kinds, value);
        }
        if (PyBool_Check(handle) || !PyLong_Check(handle)) {
            iris_py_type_error("stream", "a cuda_stream that is an int", handle);
            Py_DECREF(handle);
            return -1;
        }
        if (!on_cpu && check_device_of_stream(state, value, device_id) < 0) {
            Py_DECREF(handle);
            return -1;
        }
    }
    stream = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        range_error("stream", "the handle of one, an int >= 0 of 64 bits", handle);
        Py_DECREF(handle);
        return -1;
    }
    Py_DECREF(handle);
    if (on_cpu && stream != 0) {
        PyErr_Format(PyExc_ValueError, "stream: expected None on the cpu, which has none, got %R",
                     value);
        return -1;
    }
    *out = (void *)(uintptr_t)stream;
    return 0;
}
