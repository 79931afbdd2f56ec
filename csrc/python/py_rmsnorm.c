/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce_rmsnorm as a function of the extension module.
 */
#include "py_methods.h"

#include "py_call.h"
#include "py_signature.h"
#include "py_state.h"
#include "py_tensor.h"
#include "py_values.h"
#include "py_wait.h"

enum { OUTPUT, RESIDUAL_OUT, INPUT, RESIDUAL, WEIGHT, OUTPUT_SCALE, TENSORS };

static PyObject *all_reduce_rmsnorm(struct iris_py_call *call, PyObject *const *values,
                                    PyObject *eps_value)
{
    static const struct iris_py_tensor_role roles[TENSORS] = {
        [OUTPUT] = {"output", IRIS_PY_WRITTEN, false},
        [RESIDUAL_OUT] = {"residual_out", IRIS_PY_WRITTEN, false},
        [INPUT] = {"input", IRIS_PY_READ, false},
        [RESIDUAL] = {"residual", IRIS_PY_READ, true},
        [WEIGHT] = {"weight", IRIS_PY_READ, false},
        [OUTPUT_SCALE] = {"output_scale", IRIS_PY_WRITTEN, true},
    };
    struct iris_py_tensor tensors[TENSORS];
    const struct iris_tensor *given[TENSORS];
    struct iris_rmsnorm_tensors core;
    PyObject *result = NULL;
    enum iris_status status;
    double eps = 1e-6;

    if (iris_py_double("eps", eps_value, &eps) < 0 ||
        iris_py_tensors_read(call->state, roles, values, TENSORS, call->options.prepare, tensors,
                             given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[OUTPUT], &call->options.stream) < 0)
        goto release;
    core = (struct iris_rmsnorm_tensors){.output = given[OUTPUT],
                                         .residual_out = given[RESIDUAL_OUT],
                                         .input = given[INPUT],
                                         .residual = given[RESIDUAL],
                                         .weight = given[WEIGHT],
                                         .output_scale = given[OUTPUT_SCALE]};
    IRIS_PY_BEGIN_WAIT
    status = iris_all_reduce_rmsnorm(call->ctx, &core, eps, &call->options);
    IRIS_PY_END_WAIT(status)
    result = iris_py_tensors_finish(call->state, tensors, TENSORS, status,
                                    iris_py_call_end(call, status));
release:
    iris_py_tensors_release(tensors, given, TENSORS);
    return result;
}

static PyObject *ops_all_reduce_rmsnorm(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames)
{
    struct iris_py_args_all_reduce_rmsnorm a;
    struct iris_py_call call;

    if (iris_py_parse_all_reduce_rmsnorm(iris_py_state_of_module(module), args, nargs, kwnames,
                                         &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_REDUCE_RMSNORM, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    return iris_py_call_finish(
        &call, all_reduce_rmsnorm(&call,
                                  (PyObject *[TENSORS]){[OUTPUT] = a.output,
                                                        [RESIDUAL_OUT] = a.residual_out,
                                                        [INPUT] = a.input,
                                                        [RESIDUAL] = a.residual,
                                                        [WEIGHT] = a.weight,
                                                        [OUTPUT_SCALE] = a.output_scale},
                                  a.eps));
}

PyMethodDef iris_py_rmsnorm_methods[] = {
    IRIS_PY_METHOD(all_reduce_rmsnorm),
    {NULL, NULL, 0, NULL},
};
