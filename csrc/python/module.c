/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The extension module iris_c._C: what is in it, nothing else. Multi-phase initialisation; what the
 * layer remembers, and the rest of the module's definition, is in py_state.c.
 */
#include "py_buffer.h"
#include "py_common.h"
#include "py_context.h"
#include "py_methods.h"
#include "py_state.h"
#include "py_workspace.h"

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out ? PyModule_AddType(module, *out) : -1;
}

static int module_exec(PyObject *module)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (iris_py_state_init(state) < 0 || iris_py_errors_init(module, state) < 0)
        return -1;
    if (add_type(module, &iris_py_context_spec, &state->context_type) < 0 ||
        add_type(module, &iris_py_buffer_spec, &state->buffer_type) < 0 ||
        add_type(module, &iris_py_workspace_spec, &state->workspace_type) < 0)
        return -1;
    if (PyModule_AddFunctions(module, iris_py_ccl_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_matmul_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_gather_matmul_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_rmsnorm_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_message_methods) < 0 ||
        PyModule_AddFunctions(module, iris_py_kernel_methods) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "MAX_RANKS", IRIS_MAX_RANKS);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

PyMODINIT_FUNC PyInit__C(void)
{
    iris_py_module_def.m_methods = iris_py_ops_methods;
    iris_py_module_def.m_slots = module_slots;
    return PyModuleDef_Init(&iris_py_module_def);
}
