/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the rows of ops.def become: for each function `name`
 *
 *   struct iris_py_args_name       its arguments as named fields, NULL where none was given
 *   iris_py_parse_name             fills it from a FASTCALL | KEYWORDS call
 *   iris_py_doc_name               its text signature and docstring
 *
 * A file that defines such a function includes this header and adds IRIS_PY_METHOD(name) to its
 * table of methods.
 */
#ifndef IRIS_PY_SIGNATURE_H
#define IRIS_PY_SIGNATURE_H

#include "ops.def"
#include "py_common.h"

#define IRIS_PY_FIELD_R(name, kind, type, meaning) PyObject *name;
#define IRIS_PY_FIELD_O(name, value, kind, type, meaning) PyObject *name;
#define IRIS_PY_NOTHING

/* The fields are borrowed from the caller of the function. */
#define IRIS_PY_DECLARE(op, namespace)                                                             \
    struct iris_py_args_##op {                                                                     \
        IRIS_PY_PARAMETERS_##op(IRIS_PY_FIELD_R,                                                   \
                                IRIS_PY_FIELD_O) IRIS_PY_KEYWORDS_##op(IRIS_PY_FIELD_O,            \
                                                                       IRIS_PY_NOTHING)            \
    };                                                                                             \
    int iris_py_parse_##op(const struct iris_py_state *state, PyObject *const *args,               \
                           Py_ssize_t nargs, PyObject *kwnames, struct iris_py_args_##op *out);    \
    extern const char iris_py_doc_##op[];
IRIS_PY_OPERATIONS(IRIS_PY_DECLARE)
#undef IRIS_PY_DECLARE

/* A row of a PyMethodDef table, for the function ops_name of the file. */
#define IRIS_PY_METHOD(op)                                                                         \
    {#op, (PyCFunction)(void (*)(void))ops_##op, METH_FASTCALL | METH_KEYWORDS, iris_py_doc_##op}

#endif
