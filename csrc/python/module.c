/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The extension module iris_c._C: its definition, its state, nothing else. Multi-phase
 * initialisation; everything the layer remembers lies in the module's state.
 */
#include "py_buffer.h"
#include "py_common.h"
#include "py_context.h"
#include "py_ops.h"
#include "py_workspace.h"

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out ? PyModule_AddType(module, *out) : -1;
}

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

static int module_exec(PyObject *module)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (intern_names(state) < 0 || iris_py_errors_init(module, state) < 0)
        return -1;
    state->dlpack_kwargs =
        Py_BuildValue("{s(ii)}", "max_version", (int)IRIS_DLPACK_MAJOR, (int)IRIS_DLPACK_MINOR);
    if (!state->dlpack_kwargs)
        return -1;
    if (add_type(module, &iris_py_context_spec, &state->context_type) < 0 ||
        add_type(module, &iris_py_buffer_spec, &state->buffer_type) < 0 ||
        add_type(module, &iris_py_workspace_spec, &state->workspace_type) < 0)
        return -1;
    if (PyModule_AddFunctions(module, iris_py_ccl_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_matmul_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_gather_matmul_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_rmsnorm_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_message_methods) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "MAX_RANKS", IRIS_MAX_RANKS);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
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
    Py_VISIT(state->torch.is_neg);
    Py_VISIT(state->torch.is_conj);
    Py_VISIT(state->torch.dispatch);
    Py_VISIT(state->torch.is_grad_enabled);
    Py_VISIT(state->torch.increment_version);
    Py_VISIT(state->torch.forward_ad);
    for (int i = 0; i < IRIS_PY_NAME_COUNT; i++)
        Py_VISIT(state->names[i]);
    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++) {
        Py_VISIT(state->tensor_types[i].type);
        Py_VISIT(state->configs[i].object);
    }
    return 0;
}

static int module_clear(PyObject *module)
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
    Py_CLEAR(state->torch.is_neg);
    Py_CLEAR(state->torch.is_conj);
    Py_CLEAR(state->torch.dispatch);
    Py_CLEAR(state->torch.is_grad_enabled);
    Py_CLEAR(state->torch.increment_version);
    Py_CLEAR(state->torch.forward_ad);
    for (int i = 0; i < IRIS_PY_NAME_COUNT; i++)
        Py_CLEAR(state->names[i]);
    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++) {
        Py_CLEAR(state->tensor_types[i].type);
        Py_CLEAR(state->configs[i].object);
    }
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

struct PyModuleDef iris_py_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "iris_c._C",
    .m_doc = "The compiled part of iris_c. Use the package's names.",
    .m_size = sizeof(struct iris_py_state),
    .m_methods = iris_py_ops_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__C(void)
{
    return PyModuleDef_Init(&iris_py_module_def);
}
