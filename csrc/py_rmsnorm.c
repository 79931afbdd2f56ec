/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce_rmsnorm as a function of the extension module.
 */
#include "py_ops.h"

#include "py_call.h"
#include "py_tensor.h"

enum { OUTPUT, RESIDUAL_OUT, INPUT, RESIDUAL, WEIGHT, TENSORS };

/* The tensors in the order above; the residual may be None. Returns how many have been read, all of
 * which are to be released; fewer than TENSORS with an exception. */
static int read_tensors(struct iris_py_state *state, PyObject *const *values,
                        struct iris_py_tensor *tensors)
{
    static const char *const names[TENSORS] = {"output", "residual_out", "input", "residual",
                                               "weight"};

    for (int i = 0; i < TENSORS; i++) {
        int result = 0;

        if (i == RESIDUAL && values[i] == Py_None)
            tensors[i] = (struct iris_py_tensor){0};
        else if (i <= RESIDUAL_OUT)
            result = iris_py_tensor_output(state, names[i], values[i], &tensors[i]);
        else
            result = iris_py_tensor_from_object(state, names[i], values[i], &tensors[i]);
        if (result < 0)
            return i;
    }
    return TENSORS;
}

static PyObject *all_reduce_rmsnorm(struct iris_py_call *call, PyObject *const *values, double eps)
{
    const bool has_residual = values[RESIDUAL] != Py_None;
    struct iris_py_tensor tensors[TENSORS];
    PyObject *result = NULL;
    enum iris_status status;
    const int count = read_tensors(call->state, values, tensors);
    const struct iris_rmsnorm_tensors core = {
        .output = &tensors[OUTPUT].tensor,
        .residual_out = &tensors[RESIDUAL_OUT].tensor,
        .input = &tensors[INPUT].tensor,
        .residual = has_residual ? &tensors[RESIDUAL].tensor : NULL,
        .weight = &tensors[WEIGHT].tensor,
    };

    if (count < TENSORS ||
        iris_py_tensor_stream(call->state, call->ctx, &tensors[OUTPUT], &call->options.stream) < 0)
        goto finally;
    Py_BEGIN_ALLOW_THREADS
    status = iris_all_reduce_rmsnorm(call->ctx, &core, eps, &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
finally:
    for (int i = 0; i < count; i++)
        if (i != RESIDUAL || has_residual)
            iris_py_tensor_release(&tensors[i]);
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
    double eps = 1e-6;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_REDUCE_RMSNORM, v[0],
                           &(struct iris_py_choices){v[8], v[9], v[7], v[10]}, &call) < 0)
        return NULL;
    if (v[6])
        eps = PyFloat_AsDouble(v[6]);
    if (PyErr_Occurred())
        return NULL;
    return all_reduce_rmsnorm(&call, &v[1], eps);
}

PyMethodDef iris_py_rmsnorm_methods[] = {
    {"all_reduce_rmsnorm", (PyCFunction)(void (*)(void))ops_all_reduce_rmsnorm,
     METH_FASTCALL | METH_KEYWORDS, all_reduce_rmsnorm_doc},
    {NULL, NULL, 0, NULL},
};
