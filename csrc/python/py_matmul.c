/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One thin function per fused product: parse, convert, call the core with the GIL released,
 * return the workspace. The checks of shapes, dtypes and aliasing are the core's, so that they are
 * the same for every caller.
 */
#include "py_methods.h"

#include "py_call.h"
#include "py_signature.h"
#include "py_state.h"
#include "py_tensor.h"
#include "py_values.h"
#include "py_wait.h"

static enum iris_status run(struct iris_py_call *call, enum iris_operation operation, int dim,
                            const struct iris_tensor *C, const struct iris_tensor *A,
                            const struct iris_tensor *B, const struct iris_tensor *bias)
{
    switch (operation) {
    case IRIS_OP_MATMUL_REDUCE_SCATTER:
        return iris_matmul_reduce_scatter(call->ctx, C, A, B, bias, dim, &call->options);
    case IRIS_OP_MATMUL_ALL_GATHER:
        return iris_matmul_all_gather(call->ctx, C, A, B, bias, &call->options);
    default:
        return iris_matmul_all_reduce(call->ctx, C, A, B, bias, &call->options);
    }
}

/* The operands of a call or of its preamble. */
struct operands {
    PyObject *C, *A, *B, *bias, *scale_a, *scale_b;
    PyObject *dim; /* of matmul_reduce_scatter; NULL: 0 */
};

static PyObject *matmul(struct iris_py_call *call, enum iris_operation operation,
                        const struct operands *values)
{
    static const struct iris_py_tensor_role roles[] = {
        {"C", IRIS_PY_WRITTEN, false},   {"A", IRIS_PY_READ, false},
        {"B", IRIS_PY_READ, false},      {"bias", IRIS_PY_READ, true},
        {"scale_a", IRIS_PY_READ, true}, {"scale_b", IRIS_PY_READ, true}};
    enum { COUNT = sizeof roles / sizeof roles[0] };
    struct iris_py_tensor tensors[COUNT];
    const struct iris_tensor *given[COUNT];
    PyObject *result = NULL;
    enum iris_status status;
    int dim = 0;

    if (iris_py_int("dim", values->dim, &dim) < 0 ||
        iris_py_tensors_read(call->state, roles,
                             (PyObject *[]){values->C, values->A, values->B, values->bias,
                                            values->scale_a, values->scale_b},
                             COUNT, call->options.prepare, tensors, given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[0], &call->options.stream) < 0)
        goto release;
    call->options.scale_a = given[4];
    call->options.scale_b = given[5];
    IRIS_PY_BEGIN_WAIT
    status = run(call, operation, dim, given[0], given[1], given[2], given[3]);
    IRIS_PY_END_WAIT(status)
    result =
        iris_py_tensors_finish(call->state, tensors, COUNT, status, iris_py_call_end(call, status));
release:
    iris_py_tensors_release(tensors, given, COUNT);
    return result;
}

/* What all of them do with parsed arguments: `a` is a struct iris_py_args_... */
#define CALL(operation, a, dim_value)                                                              \
    begin_and_run(                                                                                 \
        module, operation, (a).ctx, false,                                                         \
        &(struct iris_py_choices){.config = (a).config,                                            \
                                  .workspace = (a).workspace,                                      \
                                  .async_op = (a).async_op,                                        \
                                  .trace = (a).trace},                                             \
        &(struct operands){(a).C, (a).A, (a).B, (a).bias, (a).scale_a, (a).scale_b, dim_value})
#define PREPARE(operation, a, dim_value)                                                           \
    begin_and_run(                                                                                 \
        module, operation, (a).ctx, true,                                                          \
        &(struct iris_py_choices){.config = (a).config, .workspace = (a).workspace},               \
        &(struct operands){(a).C, (a).A, (a).B, (a).bias, (a).scale_a, (a).scale_b, dim_value})

static PyObject *begin_and_run(PyObject *module, enum iris_operation operation, PyObject *ctx,
                               bool prepares, const struct iris_py_choices *choices,
                               const struct operands *values)
{
    struct iris_py_call call;

    if (iris_py_call_begin(module, operation, ctx, choices, &call) < 0)
        return NULL;
    call.options.prepare = prepares;
    return iris_py_call_finish(&call, matmul(&call, operation, values));
}

static PyObject *ops_matmul_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    struct iris_py_args_matmul_all_reduce a;

    if (iris_py_parse_matmul_all_reduce(iris_py_state_of_module(module), args, nargs, kwnames, &a) <
        0)
        return NULL;
    return CALL(IRIS_OP_MATMUL_ALL_REDUCE, a, NULL);
}

static PyObject *ops_matmul_all_reduce_preamble(PyObject *module, PyObject *const *args,
                                                Py_ssize_t nargs, PyObject *kwnames)
{
    struct iris_py_args_matmul_all_reduce_preamble a;

    if (iris_py_parse_matmul_all_reduce_preamble(iris_py_state_of_module(module), args, nargs,
                                                 kwnames, &a) < 0)
        return NULL;
    return PREPARE(IRIS_OP_MATMUL_ALL_REDUCE, a, NULL);
}

static PyObject *ops_matmul_reduce_scatter(PyObject *module, PyObject *const *args,
                                           Py_ssize_t nargs, PyObject *kwnames)
{
    struct iris_py_args_matmul_reduce_scatter a;

    if (iris_py_parse_matmul_reduce_scatter(iris_py_state_of_module(module), args, nargs, kwnames,
                                            &a) < 0)
        return NULL;
    return CALL(IRIS_OP_MATMUL_REDUCE_SCATTER, a, a.dim);
}

static PyObject *ops_matmul_reduce_scatter_preamble(PyObject *module, PyObject *const *args,
                                                    Py_ssize_t nargs, PyObject *kwnames)
{
    struct iris_py_args_matmul_reduce_scatter_preamble a;

    if (iris_py_parse_matmul_reduce_scatter_preamble(iris_py_state_of_module(module), args, nargs,
                                                     kwnames, &a) < 0)
        return NULL;
    return PREPARE(IRIS_OP_MATMUL_REDUCE_SCATTER, a, a.dim);
}

static PyObject *ops_matmul_all_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    struct iris_py_args_matmul_all_gather a;

    if (iris_py_parse_matmul_all_gather(iris_py_state_of_module(module), args, nargs, kwnames, &a) <
        0)
        return NULL;
    return CALL(IRIS_OP_MATMUL_ALL_GATHER, a, NULL);
}

static PyObject *ops_matmul_all_gather_preamble(PyObject *module, PyObject *const *args,
                                                Py_ssize_t nargs, PyObject *kwnames)
{
    struct iris_py_args_matmul_all_gather_preamble a;

    if (iris_py_parse_matmul_all_gather_preamble(iris_py_state_of_module(module), args, nargs,
                                                 kwnames, &a) < 0)
        return NULL;
    return PREPARE(IRIS_OP_MATMUL_ALL_GATHER, a, NULL);
}

PyMethodDef iris_py_matmul_methods[] = {
    IRIS_PY_METHOD(matmul_all_reduce),
    IRIS_PY_METHOD(matmul_all_reduce_preamble),
    IRIS_PY_METHOD(matmul_reduce_scatter),
    IRIS_PY_METHOD(matmul_reduce_scatter_preamble),
    IRIS_PY_METHOD(matmul_all_gather),
    IRIS_PY_METHOD(matmul_all_gather_preamble),
    {NULL, NULL, 0, NULL},
};
