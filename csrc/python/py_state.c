/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The life of the module's state, and how it is found.
 */
#include "py_state.h"

static int intern_names(struct iris_py_state *state)
{
    static const char *const names[] = {
#define X(name) #name,
        IRIS_PY_NAMES(X)
#undef X
    };

    for (int i = 0; i < IRIS_PY_NAME_COUNT; i++) {
        state->names[i] = PyUnicode_InternFromString(names[i]);
        if (!state->names[i])
            return -1;
    }
    return 0;
}

int iris_py_state_init(struct iris_py_state *state)
{
    if (intern_names(state) < 0)
        return -1;
    state->dlpack_kwargs =
        Py_BuildValue("{s(ii)}", "max_version", (int)IRIS_DLPACK_MAJOR, (int)IRIS_DLPACK_MINOR);
    return state->dlpack_kwargs ? 0 : -1;
}

static int state_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (!state)
        return 0;
    Py_VISIT(state->context_type);
    Py_VISIT(state->buffer_type);
    Py_VISIT(state->workspace_type);
    Py_VISIT(state->heap_exhausted);
    Py_VISIT(state->peer_error);
    Py_VISIT(state->signal_timeout);
    Py_VISIT(state->backend_error);
    Py_VISIT(state->dlpack_kwargs);
    Py_VISIT(state->torch.tensor_type);
    Py_VISIT(state->torch.is_neg.object);
    Py_VISIT(state->torch.is_conj.object);
    Py_VISIT(state->torch.requires_grad);
    Py_VISIT(state->torch.dispatch);
    Py_VISIT(state->torch.is_grad_enabled.object);
    Py_VISIT(state->torch.increment_version.object);
    Py_VISIT(state->torch.forward_ad);
    for (int i = 0; i < IRIS_PY_NAME_COUNT; i++)
        Py_VISIT(state->names[i]);
    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++) {
        Py_VISIT(state->tensor_types[i].type);
        Py_VISIT(state->configs[i].object);
    }
    return 0;
}

static int state_clear(PyObject *module)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (!state)
        return 0;
    Py_CLEAR(state->context_type);
    Py_CLEAR(state->buffer_type);
    Py_CLEAR(state->workspace_type);
    Py_CLEAR(state->heap_exhausted);
    Py_CLEAR(state->peer_error);
    Py_CLEAR(state->signal_timeout);
    Py_CLEAR(state->backend_error);
    Py_CLEAR(state->dlpack_kwargs);
    Py_CLEAR(state->torch.tensor_type);
    Py_CLEAR(state->torch.is_neg.object);
    Py_CLEAR(state->torch.is_conj.object);
    Py_CLEAR(state->torch.requires_grad);
    Py_CLEAR(state->torch.dispatch);
    Py_CLEAR(state->torch.is_grad_enabled.object);
    Py_CLEAR(state->torch.increment_version.object);
    Py_CLEAR(state->torch.forward_ad);
    for (int i = 0; i < IRIS_PY_NAME_COUNT; i++)
        Py_CLEAR(state->names[i]);
    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++) {
        Py_CLEAR(state->tensor_types[i].type);
        Py_CLEAR(state->configs[i].object);
    }
    return 0;
}

static void state_free(void *module)
{
    (void)state_clear(module);
}

struct PyModuleDef iris_py_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "iris_c._C",
    .m_doc = "The compiled part of iris_c. Use the package's names.",
    .m_size = sizeof(struct iris_py_state),
    .m_traverse = state_traverse,
    .m_clear = state_clear,
    .m_free = state_free,
};

struct iris_py_state *iris_py_state_of_type(PyTypeObject *type)
{
    /* A Python subclass has no module of ours: the first base that has one is the type itself. */
    for (PyTypeObject *base = type; base; base = PyType_GetSlot(base, Py_tp_base)) {
        PyObject *module = PyType_GetModule(base); /* borrowed */

        if (module && PyModule_GetDef(module) == &iris_py_module_def)
            return PyModule_GetState(module);
        PyErr_Clear();
        if (!(PyType_GetFlags(base) & Py_TPFLAGS_HEAPTYPE))
            break;
    }
    PyErr_SetString(PyExc_TypeError, "expected a type of iris_c");
    return NULL;
}
