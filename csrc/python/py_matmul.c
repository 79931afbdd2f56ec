/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One thin function per fused product: parse, convert, call the core with the GIL released,
 * return the workspace. The checks of shapes, dtypes and aliasing are the core's, so that they are
 * the same for every caller.
 */
#include "py_ops.h"

#include "py_call.h"
#include "py_tensor.h"

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

/* dim_value: of matmul_reduce_scatter; NULL: 0. */
static PyObject *matmul(struct iris_py_call *call, enum iris_operation operation, PyObject *C,
                        PyObject *A, PyObject *B, PyObject *bias, PyObject *dim_value)
{
    static const struct iris_py_tensor_role roles[] = {{"C", IRIS_PY_WRITTEN, false},
                                                       {"A", IRIS_PY_READ, false},
                                                       {"B", IRIS_PY_READ, false},
                                                       {"bias", IRIS_PY_READ, true}};
    enum { COUNT = sizeof roles / sizeof roles[0] };
    struct iris_py_tensor tensors[COUNT];
    const struct iris_tensor *given[COUNT];
    PyObject *result = NULL;
    enum iris_status status;
    int dim = 0;

    if (iris_py_int("dim", dim_value, &dim) < 0 ||
        iris_py_tensors_read(call->state, roles, (PyObject *[]){C, A, B, bias}, COUNT, tensors,
                             given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[0], &call->options.stream) < 0)
        goto release;
    Py_BEGIN_ALLOW_THREADS
    status = run(call, operation, dim, given[0], given[1], given[2], given[3]);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
release:
    iris_py_tensors_release(tensors, given, COUNT);
    return result;
}

/* The products with the parameters (ctx, C, A, B, bias, async_op, config, workspace, *, trace). */
static PyObject *product(PyObject *module, const char *name, enum iris_operation operation,
                         PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 9,
        .required = 4,
        .positional = 8,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_bias, IRIS_PY_NAME_async_op, IRIS_PY_NAME_config,
                  IRIS_PY_NAME_workspace, IRIS_PY_NAME_trace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation, v[0],
                           &(struct iris_py_choices){
                               .config = v[6], .workspace = v[7], .async_op = v[5], .trace = v[8]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, matmul(&call, operation, v[1], v[2], v[3], v[4], NULL));
}

/* Their preambles: (ctx, C, A, B, config, workspace, *, bias). */
static PyObject *product_preamble(PyObject *module, const char *name, enum iris_operation operation,
                                  PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 7,
        .required = 4,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_bias},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation, v[0],
                           &(struct iris_py_choices){.config = v[4], .workspace = v[5]}, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return iris_py_call_finish(&call, matmul(&call, operation, v[1], v[2], v[3], v[6], NULL));
}

#define MATMUL_ALL_REDUCE_PARAMETERS                                                               \
    "Parameters\n----------\n"                                                                     \
    "ctx : Context\n"                                                                              \
    "C : tensor (M, N)\n    The result, equal on all ranks. In the symmetric heap it is written\n" \
    "    directly, anywhere else it is staged, with the same result.\n"                            \
    "A : tensor (M, K)\n    This rank's columns of the whole A; any strides.\n"                    \
    "B : tensor (K, N)\n    This rank's rows of the right factor; any strides.\n"

#define CONFIG_AND_WORKSPACE                                                                       \
    "config : FusedConfig or None\n    None chooses.\n"                                            \
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n"

#define TRACE IRIS_PY_OP_TRACE "\n"

PyDoc_STRVAR(matmul_all_reduce_doc,
             "matmul_all_reduce($module, ctx, C, A, B, bias=None, async_op=False, config=None, "
             "workspace=None, *, trace=False)\n--\n\n"
             "C = sum over ranks of A_r @ B_r, + bias, in one launch. Collective.\n\n"
             "float32, float16 or bfloat16, the same for all tensors; sums are in "
             "float32.\n\n" MATMUL_ALL_REDUCE_PARAMETERS
             "bias : tensor or None\n    Broadcasts to (M, N); equal on all ranks, added once.\n"
             "async_op : bool\n    False: when C is complete on this rank's stream it is complete "
             "on\n    all ranks'. True: it is complete on this rank's.\n" CONFIG_AND_WORKSPACE TRACE
                 IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_matmul_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    return product(module, "matmul_all_reduce", IRIS_OP_MATMUL_ALL_REDUCE, args, nargs, kwnames);
}

PyDoc_STRVAR(matmul_all_reduce_preamble_doc,
             "matmul_all_reduce_preamble($module, ctx, C, A, B, config=None, workspace=None, *, "
             "bias=None)\n--\n\n"
             "Agree on such a call and allocate for it, without computing. Collective.\n\n"
             "Optional: a call does it when needed. Calls that follow with the same arguments\n"
             "allocate nothing and can be captured in a "
             "graph.\n\n" MATMUL_ALL_REDUCE_PARAMETERS CONFIG_AND_WORKSPACE
             "\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_matmul_all_reduce_preamble(PyObject *module, PyObject *const *args,
                                                Py_ssize_t nargs, PyObject *kwnames)
{
    return product_preamble(module, "matmul_all_reduce_preamble", IRIS_OP_MATMUL_ALL_REDUCE, args,
                            nargs, kwnames);
}

/* ---- matmul_reduce_scatter ---- */

#define MATMUL_REDUCE_SCATTER_PARAMETERS                                                           \
    "Parameters\n----------\n"                                                                     \
    "ctx : Context\n"                                                                              \
    "C : tensor\n    (M / world_size, N) for dim 0, (M, N / world_size) for dim 1. Anywhere.\n"    \
    "A : tensor (M, K)\n    This rank's columns of the whole A; any strides.\n"                    \
    "B : tensor (K, N)\n    This rank's rows of the right factor; any strides.\n"

PyDoc_STRVAR(
    matmul_reduce_scatter_doc,
    "matmul_reduce_scatter($module, ctx, C, A, B, bias=None, dim=0, async_op=False, config=None, "
    "workspace=None, *, trace=False)\n--\n\n"
    "C = this rank's share of the sum over ranks of A_r @ B_r, + bias, in one launch.\n\n"
    "Collective. float32, float16 or bfloat16, the same for all tensors; the sum is in float32,\n"
    "in rank order.\n\n" MATMUL_REDUCE_SCATTER_PARAMETERS
    "bias : tensor or None\n    Broadcasts to C, added once.\n"
    "dim : int\n    0: rank r gets the r-th of world_size equal parts of the rows; 1: of the "
    "columns.\n"
    "async_op : bool\n    Without effect: it ends when this rank's result is "
    "complete.\n" CONFIG_AND_WORKSPACE TRACE IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_matmul_reduce_scatter(PyObject *module, PyObject *const *args,
                                           Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "matmul_reduce_scatter",
        .count = 10,
        .required = 4,
        .positional = 9,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_bias, IRIS_PY_NAME_dim, IRIS_PY_NAME_async_op, IRIS_PY_NAME_config,
                  IRIS_PY_NAME_workspace, IRIS_PY_NAME_trace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_MATMUL_REDUCE_SCATTER, v[0],
                           &(struct iris_py_choices){
                               .config = v[7], .workspace = v[8], .async_op = v[6], .trace = v[9]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(
        &call, matmul(&call, IRIS_OP_MATMUL_REDUCE_SCATTER, v[1], v[2], v[3], v[4], v[5]));
}

PyDoc_STRVAR(
    matmul_reduce_scatter_preamble_doc,
    "matmul_reduce_scatter_preamble($module, ctx, C, A, B, config=None, workspace=None, *, "
    "bias=None, dim=0)\n--\n\n"
    "Agree on such a call and allocate for it, without computing. Collective.\n\n"
    "Optional: a call does it when needed. Calls that follow with the same arguments\n"
    "allocate nothing and can be captured in a "
    "graph.\n\n" MATMUL_REDUCE_SCATTER_PARAMETERS CONFIG_AND_WORKSPACE
    "\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_matmul_reduce_scatter_preamble(PyObject *module, PyObject *const *args,
                                                    Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "matmul_reduce_scatter_preamble",
        .count = 8,
        .required = 4,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_bias, IRIS_PY_NAME_dim},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_MATMUL_REDUCE_SCATTER, v[0],
                           &(struct iris_py_choices){.config = v[4], .workspace = v[5]}, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return iris_py_call_finish(
        &call, matmul(&call, IRIS_OP_MATMUL_REDUCE_SCATTER, v[1], v[2], v[3], v[6], v[7]));
}

/* ---- matmul_all_gather ---- */

#define MATMUL_ALL_GATHER_PARAMETERS                                                               \
    "Parameters\n----------\n"                                                                     \
    "ctx : Context\n"                                                                              \
    "C : tensor (world_size * M, N)\n    The result, equal on all ranks; best in the symmetric "   \
    "heap.\n"                                                                                      \
    "A : tensor (M, K)\n    This rank's rows of the whole A; any strides.\n"                       \
    "B : tensor (K, N)\n    The right factor, mostly equal on all ranks; any strides.\n"

PyDoc_STRVAR(
    matmul_all_gather_doc,
    "matmul_all_gather($module, ctx, C, A, B, bias=None, async_op=False, config=None, "
    "workspace=None, *, trace=False)\n--\n\n"
    "C = all ranks' A_r @ B_r + bias_r, one below the other, in one launch. Collective.\n\n"
    "float32, float16 or bfloat16, the same for all tensors; each rank computes its own rows and\n"
    "pushes tiles to all others as they are finished.\n\n" MATMUL_ALL_GATHER_PARAMETERS
    "bias : tensor or None\n    Broadcasts to (M, N): this rank's rows.\n"
    "async_op : bool\n    False: when C is complete on this rank's stream it is complete "
    "on\n    all ranks'. True: it is complete on this rank's.\n" CONFIG_AND_WORKSPACE TRACE
        IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_matmul_all_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    return product(module, "matmul_all_gather", IRIS_OP_MATMUL_ALL_GATHER, args, nargs, kwnames);
}

PyDoc_STRVAR(matmul_all_gather_preamble_doc,
             "matmul_all_gather_preamble($module, ctx, C, A, B, config=None, workspace=None, *, "
             "bias=None)\n--\n\n"
             "Agree on such a call and allocate for it, without computing. Collective.\n\n"
             "Optional: a call does it when needed. Calls that follow with the same arguments\n"
             "allocate nothing and can be captured in a "
             "graph.\n\n" MATMUL_ALL_GATHER_PARAMETERS CONFIG_AND_WORKSPACE
             "\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *ops_matmul_all_gather_preamble(PyObject *module, PyObject *const *args,
                                                Py_ssize_t nargs, PyObject *kwnames)
{
    return product_preamble(module, "matmul_all_gather_preamble", IRIS_OP_MATMUL_ALL_GATHER, args,
                            nargs, kwnames);
}

#define OP(name) (PyCFunction)(void (*)(void)) ops_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc

PyMethodDef iris_py_matmul_methods[] = {
    {"matmul_all_reduce", OP(matmul_all_reduce)},
    {"matmul_all_reduce_preamble", OP(matmul_all_reduce_preamble)},
    {"matmul_reduce_scatter", OP(matmul_reduce_scatter)},
    {"matmul_reduce_scatter_preamble", OP(matmul_reduce_scatter_preamble)},
    {"matmul_all_gather", OP(matmul_all_gather)},
    {"matmul_all_gather_preamble", OP(matmul_all_gather_preamble)},
    {NULL, NULL, 0, NULL},
};
