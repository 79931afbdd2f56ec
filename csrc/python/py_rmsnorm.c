/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce_rmsnorm as a function of the extension module.
 */
#include "py_ops.h"

#include "py_call.h"
#include "py_tensor.h"

enum { OUTPUT, RESIDUAL_OUT, INPUT, RESIDUAL, WEIGHT, TENSORS };

static PyObject *all_reduce_rmsnorm(struct iris_py_call *call, PyObject *const *values,
                                    PyObject *eps_value)
{
    static const struct iris_py_tensor_role roles[TENSORS] = {
        [OUTPUT] = {"output", IRIS_PY_WRITTEN, false},
        [RESIDUAL_OUT] = {"residual_out", IRIS_PY_WRITTEN, false},
        [INPUT] = {"input", IRIS_PY_READ, false},
        [RESIDUAL] = {"residual", IRIS_PY_READ, true},
        [WEIGHT] = {"weight", IRIS_PY_READ, false},
    };
    struct iris_py_tensor tensors[TENSORS];
    const struct iris_tensor *given[TENSORS];
    struct iris_rmsnorm_tensors core;
    PyObject *result = NULL;
    enum iris_status status;
    double eps = 1e-6;

    if (eps_value)
        eps = PyFloat_AsDouble(eps_value);
    if (PyErr_Occurred())
        return NULL;
    if (iris_py_tensors_read(call->state, roles, values, TENSORS, tensors, given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[OUTPUT], &call->options.stream) < 0)
        goto release;
    core = (struct iris_rmsnorm_tensors){.output = given[OUTPUT],
                                         .residual_out = given[RESIDUAL_OUT],
                                         .input = given[INPUT],
                                         .residual = given[RESIDUAL],
                                         .weight = given[WEIGHT]};
    Py_BEGIN_ALLOW_THREADS
    status = iris_all_reduce_rmsnorm(call->ctx, &core, eps, &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
release:
    iris_py_tensors_release(tensors, given, TENSORS);
    return result;
}

PyDoc_STRVAR(
    all_reduce_rmsnorm_doc,
    "all_reduce_rmsnorm($module, ctx, output, residual_out, input, residual, weight, eps=1e-06, "
    "async_op=False, config=None, workspace=None, group=None)\n--\n\n"
    "The end of a tensor-parallel layer in one kernel. Collective.\n\n"
    "    residual_out = sum over ranks of input + residual\n"
    "    output = residual_out * weight / sqrt(mean(residual_out ** 2) + eps)\n\n"
    "The sum and the mean, over the last dimension, are in float32; residual_out is rounded\n"
    "once, and output is computed from what it then holds. All ranks get the same bits. Messages\n"
    "travel as those of all_reduce's variants 'll' and 'll_two_shot': made for decoding.\n\n"
    "Parameters\n----------\n"
    "ctx : Context\n"
    "output : tensor (..., n)\n    Contiguous; may be input.\n"
    "residual_out : tensor (..., n)\n    Contiguous; may be residual.\n"
    "input : tensor (..., n)\n    Contiguous; float32, float16 or bfloat16, as all others.\n"
    "residual : tensor (..., n) or None\n    Contiguous, equal on all ranks; None: nothing is "
    "added.\n"
    "weight : tensor (n,)\n    Equal on all ranks.\n"
    "eps : float\n"
    "async_op : bool\n    Without effect: it ends when this rank's result is complete.\n"
    "config : ccl.Config or None\n    None chooses.\n"
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n" IRIS_PY_OP_GROUP
    "\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_all_reduce_rmsnorm(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "all_reduce_rmsnorm",
        .count = 11,
        .required = 6,
        .positional = 11,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_residual_out,
                  IRIS_PY_NAME_input, IRIS_PY_NAME_residual, IRIS_PY_NAME_weight, IRIS_PY_NAME_eps,
                  IRIS_PY_NAME_async_op, IRIS_PY_NAME_config, IRIS_PY_NAME_workspace,
                  IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_REDUCE_RMSNORM, v[0],
                           &(struct iris_py_choices){
                               .config = v[8], .workspace = v[9], .async_op = v[7], .group = v[10]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, all_reduce_rmsnorm(&call, &v[1], v[6]));
}

PyMethodDef iris_py_rmsnorm_methods[] = {
    {"all_reduce_rmsnorm", (PyCFunction)(void (*)(void))ops_all_reduce_rmsnorm,
     METH_FASTCALL | METH_KEYWORDS, all_reduce_rmsnorm_doc},
    {NULL, NULL, 0, NULL},
};
