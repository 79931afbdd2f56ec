/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_gather_matmul and all_gather_matmul_hbm_buffer, with their preambles: parse, convert, call
 * the core with the GIL released.
 */
#include "py_call.h"
#include "py_ops.h"
#include "py_tensor.h"

enum { TENSORS = 5 };

/* values: C, A_shard, B, bias, A_gathered. gather_dim_value: NULL: 0. */
static PyObject *gather_matmul(struct iris_py_call *call, bool overlapped,
                               PyObject *const values[TENSORS], PyObject *gather_dim_value)
{
    static const struct iris_py_tensor_role roles[TENSORS] = {
        {"C", IRIS_PY_WRITTEN, false},
        {"A_shard", IRIS_PY_READ, false},
        {"B", IRIS_PY_READ, false},
        {"bias", IRIS_PY_READ, true},
        {"A_gathered", IRIS_PY_WRITTEN, true}};
    struct iris_py_tensor tensors[TENSORS];
    const struct iris_tensor *given[TENSORS];
    struct iris_gather_tensors core;
    PyObject *result = NULL;
    enum iris_status status;
    int gather_dim = 0;

    if (iris_py_int("gather_dim", gather_dim_value, &gather_dim) < 0 ||
        iris_py_tensors_read(call->state, roles, values, TENSORS, tensors, given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[0], &call->options.stream) < 0)
        goto release;
    core = (struct iris_gather_tensors){
        .C = given[0], .A = given[1], .B = given[2], .bias = given[3], .joined = given[4]};
    Py_BEGIN_ALLOW_THREADS
    status = iris_all_gather_matmul(call->ctx, &core, gather_dim, overlapped, &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
release:
    iris_py_tensors_release(tensors, given, TENSORS);
    return result;
}

static enum iris_operation operation_of(bool overlapped)
{
    return overlapped ? IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER : IRIS_OP_ALL_GATHER_MATMUL;
}

/* (ctx, C, A_shard, B, bias, gather_dim, async_op, config, workspace, *, A_gathered, trace). */
static PyObject *run(PyObject *module, const char *name, bool overlapped, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 11,
        .required = 4,
        .positional = 9,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A_shard, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_bias, IRIS_PY_NAME_gather_dim, IRIS_PY_NAME_async_op,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_A_gathered,
                  IRIS_PY_NAME_trace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation_of(overlapped), v[0],
                           &(struct iris_py_choices){
                               .config = v[7], .workspace = v[8], .async_op = v[6], .trace = v[10]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(
        &call,
        gather_matmul(&call, overlapped, (PyObject *[]){v[1], v[2], v[3], v[4], v[9]}, v[5]));
}

/* (ctx, C, A_shard, B, config, workspace, *, gather_dim). */
static PyObject *prepare(PyObject *module, const char *name, bool overlapped, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 7,
        .required = 4,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A_shard, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_gather_dim},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation_of(overlapped), v[0],
                           &(struct iris_py_choices){.config = v[4], .workspace = v[5]}, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return iris_py_call_finish(
        &call,
        gather_matmul(&call, overlapped, (PyObject *[]){v[1], v[2], v[3], NULL, NULL}, v[6]));
}

#define PARAMETERS                                                                                 \
    "Parameters\n----------\n"                                                                     \
    "ctx : Context\n"                                                                              \
    "C : tensor (M, N)\n    This rank's result; anywhere, any strides.\n"                          \
    "A_shard : tensor\n    This rank's part of A (M, K): (M / world_size, K) for gather_dim 0,\n"  \
    "    (M, K / world_size) for 1; any strides, ordinary memory.\n"                               \
    "B : tensor (K, N)\n    This rank's right factor, mostly its columns; any strides.\n"

#define TAIL                                                                                       \
    "bias : tensor or None\n    Broadcasts to C; this rank's.\n"                                   \
    "gather_dim : int\n    Along which dimension of A the shards are joined.\n"                    \
    "async_op : bool\n    Without effect: it ends when this rank's result is complete.\n"          \
    "config : FusedConfig or None\n    None chooses.\n"                                            \
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n"                       \
    "A_gathered : tensor (M, K) or None\n    Gets the joined A.\n" IRIS_PY_OP_TRACE "\n"

#define PREAMBLE                                                                                   \
    "Agree on such a call and allocate for it, without computing. Collective.\n\n"                 \
    "Optional: a call does it when needed. Calls that follow with the same arguments\n"            \
    "allocate nothing and can be captured in a graph.\n\n" PARAMETERS                              \
    "config : FusedConfig or None\n    None chooses.\n"                                            \
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n"                       \
    "gather_dim : int\n    As in the call.\n\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES

PyDoc_STRVAR(
    all_gather_matmul_doc,
    "all_gather_matmul($module, ctx, C, A_shard, B, bias=None, gather_dim=0, async_op=False, "
    "config=None, workspace=None, *, A_gathered=None, trace=False)\n--\n\n"
    "C = (all ranks' A_shard, joined) @ B, + bias: gathers, then multiplies. Collective.\n\n"
    "One launch. float32, float16 or bfloat16, the same for all tensors; sums are in float32.\n"
    "See all_gather_matmul_hbm_buffer for the same with both at once.\n\n" PARAMETERS TAIL
        IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_all_gather_matmul(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    return run(module, "all_gather_matmul", false, args, nargs, kwnames);
}

PyDoc_STRVAR(all_gather_matmul_preamble_doc,
             "all_gather_matmul_preamble($module, ctx, C, A_shard, B, config=None, "
             "workspace=None, *, gather_dim=0)\n--\n\n" PREAMBLE);

static PyObject *ops_all_gather_matmul_preamble(PyObject *module, PyObject *const *args,
                                                Py_ssize_t nargs, PyObject *kwnames)
{
    return prepare(module, "all_gather_matmul_preamble", false, args, nargs, kwnames);
}

PyDoc_STRVAR(
    all_gather_matmul_hbm_buffer_doc,
    "all_gather_matmul_hbm_buffer($module, ctx, C, A_shard, B, bias=None, gather_dim=0, "
    "async_op=False, config=None, workspace=None, *, A_gathered=None, trace=False)\n--\n\n"
    "C = (all ranks' A_shard, joined) @ B, + bias, multiplied as it arrives. Collective.\n\n"
    "Each rank sends its shard, unit by unit, into buffers of its peers, which multiply their own\n"
    "rows first and then whatever has come. config.num_fetch_sms, k_per_flag and\n"
    "staged_a_layout are of this operation. One launch; dtypes as in all_gather_matmul, which has\n"
    "the same result.\n\n" PARAMETERS TAIL IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_all_gather_matmul_hbm_buffer(PyObject *module, PyObject *const *args,
                                                  Py_ssize_t nargs, PyObject *kwnames)
{
    return run(module, "all_gather_matmul_hbm_buffer", true, args, nargs, kwnames);
}

PyDoc_STRVAR(all_gather_matmul_hbm_buffer_preamble_doc,
             "all_gather_matmul_hbm_buffer_preamble($module, ctx, C, A_shard, B, config=None, "
             "workspace=None, *, gather_dim=0)\n--\n\n" PREAMBLE);

static PyObject *ops_all_gather_matmul_hbm_buffer_preamble(PyObject *module, PyObject *const *args,
                                                           Py_ssize_t nargs, PyObject *kwnames)
{
    return prepare(module, "all_gather_matmul_hbm_buffer_preamble", true, args, nargs, kwnames);
}

#define OP(name) (PyCFunction)(void (*)(void)) ops_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc

PyMethodDef iris_py_gather_matmul_methods[] = {
    {"all_gather_matmul", OP(all_gather_matmul)},
    {"all_gather_matmul_preamble", OP(all_gather_matmul_preamble)},
    {"all_gather_matmul_hbm_buffer", OP(all_gather_matmul_hbm_buffer)},
    {"all_gather_matmul_hbm_buffer_preamble", OP(all_gather_matmul_hbm_buffer_preamble)},
    {NULL, NULL, 0, NULL},
};
