/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_gather_matmul and all_gather_matmul_hbm_buffer, with their preambles: parse, convert, call
 * the core with the GIL released.
 */
#include "py_call.h"
#include "py_methods.h"
#include "py_signature.h"
#include "py_state.h"
#include "py_tensor.h"
#include "py_values.h"
#include "py_wait.h"

enum { TENSORS = 7 };

/* values: C, A_shard, B, bias, A_gathered, scale_a, scale_b. gather_dim_value: NULL: 0. */
static PyObject *gather_matmul(struct iris_py_call *call, bool overlapped,
                               PyObject *const values[TENSORS], PyObject *gather_dim_value)
{
    static const struct iris_py_tensor_role roles[TENSORS] = {{"C", IRIS_PY_WRITTEN, false},
                                                              {"A_shard", IRIS_PY_READ, false},
                                                              {"B", IRIS_PY_READ, false},
                                                              {"bias", IRIS_PY_READ, true},
                                                              {"A_gathered", IRIS_PY_WRITTEN, true},
                                                              {"scale_a", IRIS_PY_READ, true},
                                                              {"scale_b", IRIS_PY_READ, true}};
    struct iris_py_tensor tensors[TENSORS];
    const struct iris_tensor *given[TENSORS];
    struct iris_gather_tensors core;
    PyObject *result = NULL;
    enum iris_status status;
    int gather_dim = 0;

    if (iris_py_int("gather_dim", gather_dim_value, &gather_dim) < 0 ||
        iris_py_tensors_read(call->state, roles, values, TENSORS, call->options.prepare, tensors,
                             given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[0], &call->options.stream) < 0)
        goto release;
    core = (struct iris_gather_tensors){
        .C = given[0], .A = given[1], .B = given[2], .bias = given[3], .joined = given[4]};
    call->options.scale_a = given[5];
    call->options.scale_b = given[6];
    IRIS_PY_BEGIN_WAIT
    status = iris_all_gather_matmul(call->ctx, &core, gather_dim, overlapped, &call->options);
    IRIS_PY_END_WAIT(status)
    result = iris_py_tensors_finish(call->state, tensors, TENSORS, status,
                                    iris_py_call_end(call, status));
release:
    iris_py_tensors_release(tensors, given, TENSORS);
    return result;
}

static enum iris_operation operation_of(bool overlapped)
{
    return overlapped ? IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER : IRIS_OP_ALL_GATHER_MATMUL;
}

/* Both operations have the same parameters, and so have their preambles. */
static PyObject *run(PyObject *module, bool overlapped,
                     const struct iris_py_args_all_gather_matmul *a)
{
    const struct iris_py_choices choices = {
        .config = a->config, .workspace = a->workspace, .async_op = a->async_op, .trace = a->trace};
    PyObject *const values[TENSORS] = {a->C,          a->A_shard, a->B,      a->bias,
                                       a->A_gathered, a->scale_a, a->scale_b};
    struct iris_py_call call;

    if (iris_py_call_begin(module, operation_of(overlapped), a->ctx, &choices, &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, gather_matmul(&call, overlapped, values, a->gather_dim));
}

static PyObject *prepare(PyObject *module, bool overlapped,
                         const struct iris_py_args_all_gather_matmul_preamble *a)
{
    const struct iris_py_choices choices = {.config = a->config, .workspace = a->workspace};
    PyObject *const values[TENSORS] = {a->C, a->A_shard, a->B, NULL, NULL, a->scale_a, a->scale_b};
    struct iris_py_call call;

    if (iris_py_call_begin(module, operation_of(overlapped), a->ctx, &choices, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return iris_py_call_finish(&call, gather_matmul(&call, overlapped, values, a->gather_dim));
}

#define FUNCTION(name, does, overlapped, parameters)                                               \
    static PyObject *ops_##name(PyObject *module, PyObject *const *args, Py_ssize_t nargs,         \
                                PyObject *kwnames)                                                 \
    {                                                                                              \
        struct iris_py_args_##name a;                                                              \
                                                                                                   \
        _Static_assert(sizeof a == sizeof(struct iris_py_args_##parameters), "the same fields");   \
        if (iris_py_parse_##name(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0)   \
            return NULL;                                                                           \
        return does(module, overlapped, (const struct iris_py_args_##parameters *)&a);             \
    }
FUNCTION(all_gather_matmul, run, false, all_gather_matmul)
FUNCTION(all_gather_matmul_preamble, prepare, false, all_gather_matmul_preamble)
FUNCTION(all_gather_matmul_hbm_buffer, run, true, all_gather_matmul)
FUNCTION(all_gather_matmul_hbm_buffer_preamble, prepare, true, all_gather_matmul_preamble)

PyMethodDef iris_py_gather_matmul_methods[] = {
    IRIS_PY_METHOD(all_gather_matmul),
    IRIS_PY_METHOD(all_gather_matmul_preamble),
    IRIS_PY_METHOD(all_gather_matmul_hbm_buffer),
    IRIS_PY_METHOD(all_gather_matmul_hbm_buffer_preamble),
    {NULL, NULL, 0, NULL},
};
