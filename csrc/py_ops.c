/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One thin function per operation: parse, convert, call the core with the GIL released, return the
 * workspace. The checks of shapes, dtypes and aliasing are the core's, so that they are the same
 * for every caller.
 */
#include "py_ops.h"

#include <string.h>
#include <strings.h>

#include "device/device.h"
#include "kernels/gemm_host.h"
#include "py_context.h"
#include "py_tensor.h"
#include "py_workspace.h"

/* What every operation has besides its tensors. */
struct op_call {
    struct iris_py_state *state;
    struct iris_context *ctx;
    struct iris_config config;
    struct iris_op_options options; /* .config points to the member above, or is NULL */
    PyObject *workspace;            /* borrowed from the caller or from the context */
};

/* `config`, `workspace` and `async_op` may be NULL or None. */
static int call_begin(PyObject *module, enum iris_operation operation, PyObject *ctx,
                      PyObject *config, PyObject *workspace, PyObject *async_op,
                      struct op_call *call)
{
    struct iris_py_state *state = iris_py_state_of_module(module);

    if (!PyObject_TypeCheck(ctx, state->context_type))
        return iris_py_type_error("ctx", "an iris_c.Context", ctx);
    memset(&call->options, 0, sizeof call->options);
    call->state = state;
    call->ctx = ((struct iris_py_context *)ctx)->ctx;
    if (config && config != Py_None) {
        if (iris_py_config(state, config, &call->config) < 0)
            return -1;
        call->options.config = &call->config;
    }
    if (iris_py_bool(async_op, &call->options.async_op) < 0)
        return -1;
    if (!workspace || workspace == Py_None) {
        workspace = iris_py_context_workspace(state, (struct iris_py_context *)ctx, operation);
        if (!workspace)
            return -1;
    } else if (!PyObject_TypeCheck(workspace, state->workspace_type)) {
        return iris_py_type_error("workspace", "an iris_c.FusedWorkspace or None", workspace);
    }
    call->workspace = workspace;
    call->options.workspace = ((struct iris_py_workspace *)workspace)->workspace;
    return 0;
}

/* The operation's result: its workspace, or the exception for `status`. */
static PyObject *call_end(const struct op_call *call, enum iris_status status)
{
    if (status != IRIS_OK)
        return iris_py_raise(call->state, status);
    Py_INCREF(call->workspace);
    return call->workspace;
}

/* ---- matmul_all_reduce ---- */

static PyObject *matmul_all_reduce(struct op_call *call, PyObject *C_value, PyObject *A_value,
                                   PyObject *B_value, PyObject *bias_value)
{
    const bool has_bias = bias_value && bias_value != Py_None;
    struct iris_py_tensor C, A, B, bias;
    PyObject *result = NULL;
    enum iris_status status;

    if (iris_py_tensor_output(call->state, "C", C_value, &C) < 0)
        return NULL;
    if (iris_py_tensor_from_object(call->state, "A", A_value, &A) < 0)
        goto release_C;
    if (iris_py_tensor_from_object(call->state, "B", B_value, &B) < 0)
        goto release_A;
    if (has_bias && iris_py_tensor_from_object(call->state, "bias", bias_value, &bias) < 0)
        goto release_B;
    if (iris_py_tensor_stream(call->state, call->ctx, &C, &call->options.stream) < 0)
        goto release_bias;
    Py_BEGIN_ALLOW_THREADS
    status = iris_matmul_all_reduce(call->ctx, &C.tensor, &A.tensor, &B.tensor,
                                    has_bias ? &bias.tensor : NULL, &call->options);
    Py_END_ALLOW_THREADS
    result = call_end(call, status);
release_bias:
    if (has_bias)
        iris_py_tensor_release(&bias);
release_B:
    iris_py_tensor_release(&B);
release_A:
    iris_py_tensor_release(&A);
release_C:
    iris_py_tensor_release(&C);
    return result;
}

#define MATMUL_ALL_REDUCE_PARAMETERS                                                               \
    "Parameters\n----------\n"                                                                     \
    "ctx : Context\n"                                                                              \
    "C : tensor (M, N)\n    The result, equal on all ranks. In the symmetric heap it is written\n" \
    "    directly, anywhere else it is staged, with the same result.\n"                            \
    "A : tensor (M, K)\n    This rank's columns of the left factor; any strides.\n"                \
    "B : tensor (K, N)\n    This rank's rows of the right factor; any strides.\n"

#define MATMUL_ALL_REDUCE_TAIL                                                                     \
    "config : FusedConfig or None\n    None chooses.\n"                                            \
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n\n"

#define OP_RETURNS                                                                                 \
    "Returns\n-------\n"                                                                           \
    "FusedWorkspace\n    The workspace used: the object passed in, or the context's.\n\n"

#define OP_RAISES                                                                                  \
    "Raises\n------\n"                                                                             \
    "ValueError\n    Shapes, strides, dtypes, devices, aliasing, config.\n"                        \
    "HeapExhausted\n    The heap has no room for the workspace.\n"                                 \
    "SignalTimeout, PeerError\n    A rank did not take part in time, or is gone."

PyDoc_STRVAR(matmul_all_reduce_doc,
             "matmul_all_reduce($module, ctx, C, A, B, bias=None, async_op=False, config=None, "
             "workspace=None)\n--\n\n"
             "C = sum over ranks of A_r @ B_r, + bias, in one launch. Collective.\n\n"
             "float32, float16 or bfloat16, the same for all tensors; sums are in "
             "float32.\n\n" MATMUL_ALL_REDUCE_PARAMETERS
             "bias : tensor or None\n    Broadcasts to (M, N); equal on all ranks, added once.\n"
             "async_op : bool\n    False: when C is complete on this rank's stream it is complete "
             "on\n    all ranks'. True: it is complete on this rank's.\n" MATMUL_ALL_REDUCE_TAIL
                 OP_RETURNS OP_RAISES);

static PyObject *ops_matmul_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "matmul_all_reduce",
        .count = 8,
        .required = 4,
        .positional = 8,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_bias, IRIS_PY_NAME_async_op, IRIS_PY_NAME_config,
                  IRIS_PY_NAME_workspace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct op_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        call_begin(module, IRIS_OP_MATMUL_ALL_REDUCE, v[0], v[6], v[7], v[5], &call) < 0)
        return NULL;
    return matmul_all_reduce(&call, v[1], v[2], v[3], v[4]);
}

PyDoc_STRVAR(matmul_all_reduce_preamble_doc,
             "matmul_all_reduce_preamble($module, ctx, C, A, B, config=None, workspace=None, *, "
             "bias=None)\n--\n\n"
             "Agree on such a call and allocate for it, without computing. Collective.\n\n"
             "Optional: a call does it when needed. Calls that follow with the same arguments\n"
             "allocate nothing and can be captured in a graph.\n\n" MATMUL_ALL_REDUCE_PARAMETERS
                 MATMUL_ALL_REDUCE_TAIL OP_RETURNS OP_RAISES);

static PyObject *ops_matmul_all_reduce_preamble(PyObject *module, PyObject *const *args,
                                                Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "matmul_all_reduce_preamble",
        .count = 7,
        .required = 4,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_C, IRIS_PY_NAME_A, IRIS_PY_NAME_B,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_bias},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct op_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        call_begin(module, IRIS_OP_MATMUL_ALL_REDUCE, v[0], v[4], v[5], NULL, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return matmul_all_reduce(&call, v[1], v[2], v[3], v[6]);
}

/* ---- collectives ---- */

typedef enum iris_status collective_function(struct iris_context *ctx,
                                             const struct iris_tensor *output,
                                             const struct iris_tensor *input,
                                             const struct iris_op_options *options);

static PyObject *collective(struct op_call *call, collective_function *function,
                            PyObject *output_value, PyObject *input_value)
{
    struct iris_py_tensor output, input;
    PyObject *result = NULL;
    enum iris_status status;

    if (iris_py_tensor_output(call->state, "output", output_value, &output) < 0)
        return NULL;
    if (iris_py_tensor_from_object(call->state, "input", input_value, &input) < 0)
        goto release_output;
    if (iris_py_tensor_stream(call->state, call->ctx, &output, &call->options.stream) < 0)
        goto release_input;
    Py_BEGIN_ALLOW_THREADS
    status = function(call->ctx, &output.tensor, &input.tensor, &call->options);
    Py_END_ALLOW_THREADS
    result = call_end(call, status);
release_input:
    iris_py_tensor_release(&input);
release_output:
    iris_py_tensor_release(&output);
    return result;
}

/* A name, or an enumerator that prints as one (torch.distributed.ReduceOp.SUM). NULL: sum. */
static int parse_reduction(PyObject *value, enum iris_reduce_op *op)
{
    PyObject *text;
    const char *name;
    const char *dot;
    int result = -1;

    *op = IRIS_REDUCE_SUM;
    if (!value)
        return 0;
    text = PyObject_Str(value);
    name = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (!name)
        goto finally;
    dot = strrchr(name, '.');
    name = dot ? dot + 1 : name;
    if (strcasecmp(name, "product") == 0)
        name = "prod";
    for (int i = 0; result < 0 && i < IRIS_REDUCE_COUNT; ++i) {
        if (strcasecmp(name, iris_reduce_op_name((enum iris_reduce_op)i)) != 0)
            continue;
        *op = (enum iris_reduce_op)i;
        result = 0;
    }
    if (result < 0)
        PyErr_Format(PyExc_ValueError,
                     "op: expected 'sum', 'max', 'min', 'prod' or 'avg', got '%U'", text);
finally:
    Py_XDECREF(text);
    return result;
}

#define COLLECTIVE_TAIL                                                                            \
    "async_op : bool\n    False: complete on all ranks' streams, True: on this rank's.\n"          \
    "config : ccl.Config or None\n    None chooses.\n"                                             \
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n\n" OP_RETURNS          \
        OP_RAISES

PyDoc_STRVAR(all_reduce_doc,
             "all_reduce($module, ctx, output, input, op='sum', async_op=False, config=None, "
             "workspace=None)\n--\n\n"
             "output = input reduced over the ranks. Collective.\n\n"
             "Floating point is accumulated in float32, integers wrap. In rank order, so that all\n"
             "ranks get the same bits, but in the variants 'atomic' and 'spinlock'.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output, input : tensor\n    Contiguous, of one shape and dtype: float32, float16,\n"
             "    bfloat16, int32 or int64. The same memory in the variants 'two_shot', 'ring',\n"
             "    'atomic' and 'spinlock'; config None then takes the first.\n"
             "op : str\n    'sum', 'max', 'min' (NaN if any is), 'prod' or 'avg' (of integers\n"
             "    rounded towards zero), or a torch.distributed.ReduceOp. 'atomic' and\n"
             "    'spinlock' take 'sum' and 'avg' of floating point.\n" COLLECTIVE_TAIL);

static PyObject *ops_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "all_reduce",
        .count = 7,
        .required = 3,
        .positional = 7,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_op,
                  IRIS_PY_NAME_async_op, IRIS_PY_NAME_config, IRIS_PY_NAME_workspace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct op_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        call_begin(module, IRIS_OP_ALL_REDUCE, v[0], v[5], v[6], v[4], &call) < 0 ||
        parse_reduction(v[3], &call.options.reduce_op) < 0)
        return NULL;
    return collective(&call, iris_all_reduce, v[1], v[2]);
}

PyDoc_STRVAR(all_reduce_preamble_doc,
             "all_reduce_preamble($module, ctx, output, input, config=None, workspace=None)\n--\n\n"
             "Agree on such a call and allocate for it, without reducing. Collective.\n\n"
             "Optional: a call does it when needed.");

static PyObject *ops_all_reduce_preamble(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                         PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "all_reduce_preamble",
        .count = 5,
        .required = 3,
        .positional = 5,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_config,
                  IRIS_PY_NAME_workspace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct op_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        call_begin(module, IRIS_OP_ALL_REDUCE, v[0], v[3], v[4], NULL, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return collective(&call, iris_all_reduce, v[1], v[2]);
}

/* The collectives with the parameters (ctx, output, input, async_op, config, workspace). */
static PyObject *plain_collective(PyObject *module, const char *name, enum iris_operation operation,
                                  collective_function *function, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 6,
        .required = 3,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_async_op,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct op_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        call_begin(module, operation, v[0], v[4], v[5], v[3], &call) < 0)
        return NULL;
    return collective(&call, function, v[1], v[2]);
}

PyDoc_STRVAR(reduce_scatter_doc,
             "reduce_scatter($module, ctx, output, input, async_op=False, config=None, "
             "workspace=None)\n--\n\n"
             "output = this rank's share of the sum over ranks of input. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output : tensor\n    Contiguous, n elements.\n"
             "input : tensor\n    Contiguous, world_size * n elements; rank r gets the r-th "
             "n.\n" COLLECTIVE_TAIL);

static PyObject *ops_reduce_scatter(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames)
{
    return plain_collective(module, "reduce_scatter", IRIS_OP_REDUCE_SCATTER, iris_reduce_scatter,
                            args, nargs, kwnames);
}

PyDoc_STRVAR(all_gather_doc,
             "all_gather($module, ctx, output, input, async_op=False, config=None, "
             "workspace=None)\n--\n\n"
             "output = all ranks' inputs in rank order. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output : tensor\n    Contiguous, world_size * n elements.\n"
             "input : tensor\n    Contiguous, n elements, any dtype.\n" COLLECTIVE_TAIL);

static PyObject *ops_all_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    return plain_collective(module, "all_gather", IRIS_OP_ALL_GATHER, iris_all_gather, args, nargs,
                            kwnames);
}

PyDoc_STRVAR(all_to_all_doc,
             "all_to_all($module, ctx, output, input, async_op=False, config=None, "
             "workspace=None)\n--\n\n"
             "output's r-th part = rank r's input's part for this rank. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output, input : tensor\n    Contiguous, of one dtype; world_size equal "
             "parts.\n" COLLECTIVE_TAIL);

static PyObject *ops_all_to_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    return plain_collective(module, "all_to_all", IRIS_OP_ALL_TO_ALL, iris_all_to_all, args, nargs,
                            kwnames);
}

PyDoc_STRVAR(broadcast_doc, "broadcast($module, ctx, tensor, src=0, async_op=False, config=None, "
                            "workspace=None)\n--\n\n"
                            "tensor = rank src's tensor, in place. Collective.\n\n"
                            "Parameters\n----------\n"
                            "ctx : Context\n"
                            "tensor : tensor\n    Contiguous, any dtype.\n"
                            "src : int\n    The rank whose tensor all get.\n" COLLECTIVE_TAIL);

static PyObject *ops_broadcast(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "broadcast",
        .count = 6,
        .required = 2,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_tensor, IRIS_PY_NAME_src, IRIS_PY_NAME_async_op,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_tensor tensor;
    PyObject *result = NULL;
    enum iris_status status;
    struct op_call call;
    int src = 0;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        call_begin(module, IRIS_OP_BROADCAST, v[0], v[4], v[5], v[3], &call) < 0 ||
        iris_py_int("src", v[2], &src) < 0 ||
        iris_py_tensor_output(call.state, "tensor", v[1], &tensor) < 0)
        return NULL;
    if (iris_py_tensor_stream(call.state, call.ctx, &tensor, &call.options.stream) < 0)
        goto finally;
    Py_BEGIN_ALLOW_THREADS
    status = iris_broadcast(call.ctx, &tensor.tensor, src, &call.options);
    Py_END_ALLOW_THREADS
    result = call_end(&call, status);
finally:
    iris_py_tensor_release(&tensor);
    return result;
}

/* ---- configs ---- */

PyDoc_STRVAR(config_validate_doc,
             "_config_validate($module, fields, world_size, /)\n--\n\n"
             "Check a config's tuple; ValueError names the field and its value.");

static PyObject *ops_config_validate(PyObject *module, PyObject *args)
{
    struct iris_config config;
    enum iris_status status;
    PyObject *fields;
    int world_size;

    if (!PyArg_ParseTuple(args, "Oi:_config_validate", &fields, &world_size) ||
        iris_py_config_from_tuple(fields, &config) < 0)
        return NULL;
    status = iris_config_validate(&config, world_size);
    if (status != IRIS_OK)
        return iris_py_raise(iris_py_state_of_module(module), status);
    Py_RETURN_NONE;
}

/* ---- facts about the build and the machine ---- */

PyDoc_STRVAR(backends_doc, "backends($module, /)\n--\n\n"
                           "Names of the backends that this build has.");

static PyObject *ops_backends(PyObject *IRIS_UNUSED(module), PyObject *IRIS_UNUSED(ignored))
{
    static const char *const names[] = {"hip", "cuda", "cpu"};
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list && i < sizeof names / sizeof names[0]; i++) {
        const struct iris_device_ops *device;
        PyObject *name;

        if (iris_device_find(names[i], &device) != IRIS_OK)
            continue;
        name = PyUnicode_FromString(names[i]);
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

PyDoc_STRVAR(cpu_isa_doc, "cpu_isa($module, /)\n--\n\n"
                          "The instruction set that the cpu backend computes with.");

static PyObject *ops_cpu_isa(PyObject *IRIS_UNUSED(module), PyObject *IRIS_UNUSED(ignored))
{
    return PyUnicode_FromString(iris_gemm_isa());
}

#define OP(name) (PyCFunction)(void (*)(void)) ops_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc

PyMethodDef iris_py_ops_methods[] = {
    {"matmul_all_reduce", OP(matmul_all_reduce)},
    {"matmul_all_reduce_preamble", OP(matmul_all_reduce_preamble)},
    {"all_reduce", OP(all_reduce)},
    {"all_reduce_preamble", OP(all_reduce_preamble)},
    {"reduce_scatter", OP(reduce_scatter)},
    {"all_gather", OP(all_gather)},
    {"all_to_all", OP(all_to_all)},
    {"broadcast", OP(broadcast)},
    {"backends", ops_backends, METH_NOARGS, backends_doc},
    {"cpu_isa", ops_cpu_isa, METH_NOARGS, cpu_isa_doc},
    {"_config_validate", ops_config_validate, METH_VARARGS, config_validate_doc},
    {NULL, NULL, 0, NULL},
};
