/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One thin function per collective, as in py_matmul.c.
 */
#include "py_ops.h"

#include <string.h>
#include <strings.h>

#include "py_call.h"
#include "py_tensor.h"

/* ---- collectives ---- */

typedef enum iris_status collective_function(struct iris_context *ctx,
                                             const struct iris_tensor *output,
                                             const struct iris_tensor *input,
                                             const struct iris_op_options *options);

static PyObject *collective(struct iris_py_call *call, collective_function *function,
                            PyObject *output, PyObject *input)
{
    static const struct iris_py_tensor_role roles[] = {{"output", IRIS_PY_WRITTEN, false},
                                                       {"input", IRIS_PY_READ, false}};
    struct iris_py_tensor tensors[2];
    const struct iris_tensor *given[2];
    PyObject *result = NULL;
    enum iris_status status;

    if (iris_py_tensors_read(call->state, roles, (PyObject *[]){output, input}, 2, tensors, given) <
        0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[0], &call->options.stream) < 0)
        goto release;
    Py_BEGIN_ALLOW_THREADS
    status = function(call->ctx, given[0], given[1], &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
release:
    iris_py_tensors_release(tensors, given, 2);
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
    "async_op : bool\n    Without effect: it ends when this rank's result is complete.\n"          \
    "config : ccl.Config or None\n    None chooses.\n"                                             \
    "workspace : FusedWorkspace or None\n    None uses the context's own.\n" IRIS_PY_OP_GROUP      \
    "\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES

PyDoc_STRVAR(all_reduce_doc,
             "all_reduce($module, ctx, output, input, op='sum', async_op=False, config=None, "
             "workspace=None, group=None)\n--\n\n"
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

/* The collectives with the parameters (ctx, output, input, op, async_op, config, workspace). */
static PyObject *reducing_collective(PyObject *module, const char *name,
                                     enum iris_operation operation, collective_function *function,
                                     PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 8,
        .required = 3,
        .positional = 8,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_op,
                  IRIS_PY_NAME_async_op, IRIS_PY_NAME_config, IRIS_PY_NAME_workspace,
                  IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS], *result = NULL;
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation, v[0],
                           &(struct iris_py_choices){
                               .config = v[5], .workspace = v[6], .async_op = v[4], .group = v[7]},
                           &call) < 0)
        return NULL;
    if (parse_reduction(v[3], &call.options.reduce_op) == 0)
        result = collective(&call, function, v[1], v[2]);
    return iris_py_call_finish(&call, result);
}

static PyObject *ops_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    return reducing_collective(module, "all_reduce", IRIS_OP_ALL_REDUCE, iris_all_reduce, args,
                               nargs, kwnames);
}

PyDoc_STRVAR(all_reduce_preamble_doc,
             "all_reduce_preamble($module, ctx, output, input, config=None, workspace=None, "
             "group=None)\n--\n\n"
             "Agree on such a call and allocate for it, without reducing. Collective.\n\n"
             "Optional: a call does it when needed.");

static PyObject *ops_all_reduce_preamble(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                         PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "all_reduce_preamble",
        .count = 6,
        .required = 3,
        .positional = 6,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_config,
                  IRIS_PY_NAME_workspace, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(
            module, IRIS_OP_ALL_REDUCE, v[0],
            &(struct iris_py_choices){.config = v[3], .workspace = v[4], .group = v[5]}, &call) < 0)
        return NULL;
    call.options.prepare = true;
    return iris_py_call_finish(&call, collective(&call, iris_all_reduce, v[1], v[2]));
}

/* The collectives with the parameters (ctx, output, input, async_op, config, workspace). */
static PyObject *plain_collective(PyObject *module, const char *name, enum iris_operation operation,
                                  collective_function *function, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 7,
        .required = 3,
        .positional = 7,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_async_op,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation, v[0],
                           &(struct iris_py_choices){
                               .config = v[4], .workspace = v[5], .async_op = v[3], .group = v[6]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, collective(&call, function, v[1], v[2]));
}

PyDoc_STRVAR(reduce_scatter_doc,
             "reduce_scatter($module, ctx, output, input, op='sum', async_op=False, config=None, "
             "workspace=None, group=None)\n--\n\n"
             "output = this rank's share of input reduced over the ranks. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output : tensor\n    Contiguous, n elements.\n"
             "input : tensor\n    Contiguous, world_size * n elements; rank r gets the r-th "
             "n.\n"
             "op : str\n    As for all_reduce.\n" COLLECTIVE_TAIL);

static PyObject *ops_reduce_scatter(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames)
{
    return reducing_collective(module, "reduce_scatter", IRIS_OP_REDUCE_SCATTER,
                               iris_reduce_scatter, args, nargs, kwnames);
}

PyDoc_STRVAR(all_gather_doc,
             "all_gather($module, ctx, output, input, async_op=False, config=None, "
             "workspace=None, group=None)\n--\n\n"
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
             "workspace=None, output_split_sizes=None, input_split_sizes=None, group=None)\n--\n\n"
             "output's r-th part = rank r's input's part for this rank. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output, input : tensor\n    Contiguous, of one dtype. Without sizes world_size equal "
             "parts.\n"
             "async_op : bool\n    Without effect: it ends when this rank's result is complete.\n"
             "config : ccl.Config or None\n    None chooses.\n"
             "workspace : FusedWorkspace or None\n    None uses the context's own.\n"
             "output_split_sizes, input_split_sizes : sequence of int or None\n"
             "    Both or none: rows, counted in the first dimension, from and to each rank. They\n"
             "    may be 0. What one rank sends another must expect; then it travels as by send\n"
             "    and recv, and needs no workspace.\n" IRIS_PY_OP_GROUP
             "\n" IRIS_PY_OP_RETURNS IRIS_PY_OP_RAISES);

static PyObject *all_to_all(struct iris_py_call *call, PyObject *output, PyObject *input,
                            PyObject *output_sizes, PyObject *input_sizes)
{
    const bool has_output_sizes = output_sizes && output_sizes != Py_None;
    const bool has_input_sizes = input_sizes && input_sizes != Py_None;
    const int count = iris_context_world_size(call->ctx);
    int64_t from[IRIS_MAX_RANKS], to[IRIS_MAX_RANKS];

    if (has_output_sizes != has_input_sizes) {
        PyErr_Format(PyExc_ValueError, "%s: expected sizes, as %s has, got None",
                     has_output_sizes ? "input_split_sizes" : "output_split_sizes",
                     has_output_sizes ? "output_split_sizes" : "input_split_sizes");
        return NULL;
    }
    if (has_output_sizes) {
        if (iris_py_int64s("output_split_sizes", output_sizes, count, from) < 0 ||
            iris_py_int64s("input_split_sizes", input_sizes, count, to) < 0)
            return NULL;
        call->options.output_sizes = from;
        call->options.input_sizes = to;
    }
    return collective(call, iris_all_to_all, output, input);
}

static PyObject *ops_all_to_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "all_to_all",
        .count = 9,
        .required = 3,
        .positional = 9,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_async_op,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_output_split_sizes,
                  IRIS_PY_NAME_input_split_sizes, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_TO_ALL, v[0],
                           &(struct iris_py_choices){
                               .config = v[4], .workspace = v[5], .async_op = v[3], .group = v[8]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, all_to_all(&call, v[1], v[2], v[6], v[7]));
}

PyDoc_STRVAR(broadcast_doc, "broadcast($module, ctx, tensor, src=0, async_op=False, config=None, "
                            "workspace=None, group=None)\n--\n\n"
                            "tensor = rank src's tensor, in place. Collective.\n\n"
                            "Parameters\n----------\n"
                            "ctx : Context\n"
                            "tensor : tensor\n    Contiguous, any dtype.\n"
                            "src : int\n    The rank whose tensor all get.\n" COLLECTIVE_TAIL);

static PyObject *broadcast(struct iris_py_call *call, PyObject *value, PyObject *src_value)
{
    struct iris_py_tensor tensor;
    PyObject *result = NULL;
    enum iris_status status;
    int src = 0;

    if (iris_py_call_rank(call, "src", src_value, &src) < 0 ||
        iris_py_tensor_from_object(call->state, "tensor", value, IRIS_PY_WRITTEN, &tensor) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensor, &call->options.stream) < 0)
        goto finally;
    Py_BEGIN_ALLOW_THREADS
    status = iris_broadcast(call->ctx, &tensor.tensor, src, &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
finally:
    iris_py_tensor_release(&tensor);
    return result;
}

static PyObject *ops_broadcast(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "broadcast",
        .count = 7,
        .required = 2,
        .positional = 7,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_tensor, IRIS_PY_NAME_src, IRIS_PY_NAME_async_op,
                  IRIS_PY_NAME_config, IRIS_PY_NAME_workspace, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_BROADCAST, v[0],
                           &(struct iris_py_choices){
                               .config = v[4], .workspace = v[5], .async_op = v[3], .group = v[6]},
                           &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, broadcast(&call, v[1], v[2]));
}

/* ---- collectives with a root: reduce, gather, scatter ---- */

typedef enum iris_status rooted_function(struct iris_context *, const struct iris_tensor *,
                                         const struct iris_tensor *, int,
                                         const struct iris_op_options *);

/* `output` and `input` may be None where the core does not look at them: one of them, `at_root`,
 * is looked at on the rank `root` alone. */
static PyObject *rooted_collective(struct iris_py_call *call, rooted_function *function,
                                   PyObject *output, PyObject *input, enum iris_py_use at_root,
                                   int root)
{
    const bool is_root = iris_context_rank(call->ctx) == root;
    const struct iris_py_tensor_role roles[] = {
        {"output", at_root == IRIS_PY_WRITTEN && !is_root ? IRIS_PY_IGNORED : IRIS_PY_WRITTEN,
         true},
        {"input", at_root == IRIS_PY_READ && !is_root ? IRIS_PY_IGNORED : IRIS_PY_READ, true}};
    struct iris_py_tensor tensors[2];
    const struct iris_tensor *given[2];
    PyObject *result = NULL;
    enum iris_status status;

    if (iris_py_tensors_read(call->state, roles, (PyObject *[]){output, input}, 2, tensors, given) <
        0)
        return NULL;
    for (int i = 0; i < 2; i++)
        if (given[i] && roles[i].use != IRIS_PY_IGNORED &&
            iris_py_tensor_stream(call->state, call->ctx, &tensors[i], &call->options.stream) < 0)
            goto release;
    Py_BEGIN_ALLOW_THREADS
    status = function(call->ctx, given[0], given[1], root, &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
release:
    iris_py_tensors_release(tensors, given, 2);
    return result;
}

PyDoc_STRVAR(reduce_doc,
             "reduce($module, ctx, output, input, dst=0, op='sum', async_op=False, config=None, "
             "workspace=None, group=None)\n--\n\n"
             "Rank dst's output = input reduced over the ranks. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output : tensor or None\n    Contiguous, as input, which it may be; only looked at "
             "on rank dst.\n"
             "input : tensor\n    As for all_reduce.\n"
             "dst : int\n    The rank that gets the result.\n"
             "op : str\n    As for all_reduce.\n" COLLECTIVE_TAIL);

static PyObject *ops_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "reduce",
        .count = 9,
        .required = 3,
        .positional = 9,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, IRIS_PY_NAME_dst,
                  IRIS_PY_NAME_op, IRIS_PY_NAME_async_op, IRIS_PY_NAME_config,
                  IRIS_PY_NAME_workspace, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS], *result = NULL;
    struct iris_py_call call;
    int dst = 0;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_REDUCE, v[0],
                           &(struct iris_py_choices){
                               .config = v[6], .workspace = v[7], .async_op = v[5], .group = v[8]},
                           &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, "dst", v[3], &dst) == 0 &&
        parse_reduction(v[4], &call.options.reduce_op) == 0)
        result = rooted_collective(&call, iris_reduce, v[1], v[2], IRIS_PY_WRITTEN, dst);
    return iris_py_call_finish(&call, result);
}

/* gather and scatter: (ctx, output, input, root, async_op, config, workspace). */
static PyObject *rooted_transfer(PyObject *module, const char *name, enum iris_py_name root_name,
                                 const char *root_text, enum iris_operation operation,
                                 rooted_function *function, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 8,
        .required = 3,
        .positional = 8,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_output, IRIS_PY_NAME_input, root_name,
                  IRIS_PY_NAME_async_op, IRIS_PY_NAME_config, IRIS_PY_NAME_workspace,
                  IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS], *result = NULL;
    struct iris_py_call call;
    int root = 0;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, operation, v[0],
                           &(struct iris_py_choices){
                               .config = v[5], .workspace = v[6], .async_op = v[4], .group = v[7]},
                           &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, root_text, v[3], &root) == 0)
        result =
            rooted_collective(&call, function, v[1], v[2],
                              operation == IRIS_OP_GATHER ? IRIS_PY_WRITTEN : IRIS_PY_READ, root);
    return iris_py_call_finish(&call, result);
}

PyDoc_STRVAR(gather_doc, "gather($module, ctx, output, input, dst=0, async_op=False, config=None, "
                         "workspace=None, group=None)\n--\n\n"
                         "Rank dst's output = all ranks' inputs in rank order. Collective.\n\n"
                         "Parameters\n----------\n"
                         "ctx : Context\n"
                         "output : tensor or None\n    Contiguous, world_size * n elements; only "
                         "looked at on rank dst.\n"
                         "input : tensor\n    Contiguous, n elements, any dtype.\n"
                         "dst : int\n    The rank that gets them.\n" COLLECTIVE_TAIL);

static PyObject *ops_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    return rooted_transfer(module, "gather", IRIS_PY_NAME_dst, "dst", IRIS_OP_GATHER, iris_gather,
                           args, nargs, kwnames);
}

PyDoc_STRVAR(scatter_doc,
             "scatter($module, ctx, output, input, src=0, async_op=False, config=None, "
             "workspace=None, group=None)\n--\n\n"
             "output = this rank's part of rank src's input. Collective.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "output : tensor\n    Contiguous, n elements, any dtype.\n"
             "input : tensor or None\n    Contiguous, world_size * n elements, rank r gets the "
             "r-th n; only looked\n    at on rank src.\n"
             "src : int\n    The rank whose tensor is dealt out.\n" COLLECTIVE_TAIL);

static PyObject *ops_scatter(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    return rooted_transfer(module, "scatter", IRIS_PY_NAME_src, "src", IRIS_OP_SCATTER,
                           iris_scatter, args, nargs, kwnames);
}

#define OP(name) (PyCFunction)(void (*)(void)) ops_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc

PyMethodDef iris_py_ccl_methods[] = {
    {"all_reduce", OP(all_reduce)},
    {"all_reduce_preamble", OP(all_reduce_preamble)},
    {"reduce_scatter", OP(reduce_scatter)},
    {"all_gather", OP(all_gather)},
    {"all_to_all", OP(all_to_all)},
    {"broadcast", OP(broadcast)},
    {"reduce", OP(reduce)},
    {"gather", OP(gather)},
    {"scatter", OP(scatter)},
    {NULL, NULL, 0, NULL},
};
