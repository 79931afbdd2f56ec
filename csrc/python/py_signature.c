/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Parsers and docstrings made of ops.def by the preprocessor.
 */
#include "py_signature.h"

/* ---- docstrings ---- */

#define RETURNS_WORKSPACE                                                                          \
    "\nReturns\n-------\n"                                                                         \
    "FusedWorkspace\n    The workspace that the call used: the given one, or the context's "       \
    "own.\n\n"                                                                                     \
    "Raises\n------\n"                                                                             \
    "ValueError\n    An argument is not valid: its shape, strides, dtype, device or config, "      \
    "memory that\n"                                                                                \
    "    overlaps, a workspace of another context or operation. Or the ranks made different\n"     \
    "    calls; all of them get the same text.\n"                                                  \
    "HeapExhausted\n    The heap has no room for the workspace; raised on every rank.\n"           \
    "SignalTimeout, PeerError\n    A rank did not take part in time, or is gone."
#define RETURNS_NONE                                                                               \
    "\nRaises\n------\n"                                                                           \
    "ValueError\n    The tensor or the rank is not valid. Or, on both ranks, the sizes differ; "   \
    "the\n"                                                                                        \
    "    context can then only be closed.\n"                                                       \
    "SignalTimeout, PeerError\n    The other rank did not make its call in time, or is gone."
#define IRIS_PY_RETURNS_WORKSPACE RETURNS_WORKSPACE
#define IRIS_PY_RETURNS_NONE RETURNS_NONE

#define SIGNATURE_R(name, kind, type, meaning) ", " #name
#define SIGNATURE_O(name, value, kind, type, meaning) ", " #name "=" value
#define SIGNATURE_STAR ", *"
#define TEXT_R(name, kind, type, meaning) #name " : " type "\n    " meaning "\n"
#define TEXT_O(name, value, kind, type, meaning) TEXT_R(name, kind, type, meaning)

#define DOCUMENT(op, namespace)                                                                    \
    const char iris_py_doc_##op[] =                                                                \
        #op "($module" IRIS_PY_PARAMETERS_##op(SIGNATURE_R, SIGNATURE_O)                           \
            IRIS_PY_KEYWORDS_##op(SIGNATURE_O, SIGNATURE_STAR) ")\n--\n\n" IRIS_PY_SUMMARY_##op    \
        "\n\nParameters\n----------\n" IRIS_PY_PARAMETERS_##op(TEXT_R, TEXT_O)                     \
            IRIS_PY_KEYWORDS_##op(TEXT_O, IRIS_PY_NOTHING) IRIS_PY_RESULT_##op;
IRIS_PY_OPERATIONS(DOCUMENT)

/* ---- parsers ---- */

#define COUNT_R(name, kind, type, meaning) +1
#define COUNT_O(name, value, kind, type, meaning) +1
#define COUNT_NONE(name, value, kind, type, meaning)
#define NAME_R(name, kind, type, meaning) IRIS_PY_NAME_##name,
#define NAME_O(name, value, kind, type, meaning) IRIS_PY_NAME_##name,

#define PARSE(op, namespace)                                                                       \
    int iris_py_parse_##op(const struct iris_py_state *state, PyObject *const *args,               \
                           Py_ssize_t nargs, PyObject *kwnames, struct iris_py_args_##op *out)     \
    {                                                                                              \
        static const struct iris_py_signature signature = {                                        \
            .function = #op,                                                                       \
            .count = sizeof *out / sizeof(PyObject *),                                             \
            .required = 0 IRIS_PY_PARAMETERS_##op(COUNT_R, COUNT_NONE),                            \
            .positional = 0 IRIS_PY_PARAMETERS_##op(COUNT_R, COUNT_O),                             \
            .names = {IRIS_PY_PARAMETERS_##op(NAME_R, NAME_O)                                      \
                          IRIS_PY_KEYWORDS_##op(NAME_O, IRIS_PY_NOTHING)},                         \
        };                                                                                         \
        _Static_assert(sizeof *out / sizeof(PyObject *) <= IRIS_PY_MAX_PARAMETERS,                 \
                       "the signature has room for all");                                          \
        /* A struct of pointers alone lies in memory as an array of them does. */                  \
        return iris_py_parse(state, &signature, args, nargs, kwnames, (PyObject **)out);           \
    }
IRIS_PY_OPERATIONS(PARSE)
