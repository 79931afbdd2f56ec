/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One thin function per collective, as in py_matmul.c.
 */
#include "py_methods.h"

#include <string.h>
#include <strings.h>

#include "py_call.h"
#include "py_common.h"
#include "py_signature.h"
#include "py_tensor.h"
#include "py_values.h"
#include "py_wait.h"

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

    if (iris_py_tensors_read(call->state, roles, (PyObject *[]){output, input}, 2,
                             call->options.prepare, tensors, given) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensors[0], &call->options.stream) < 0)
        goto release;
    IRIS_PY_BEGIN_WAIT
    status = function(call->ctx, given[0], given[1], &call->options);
    IRIS_PY_END_WAIT(status)
    result =
        iris_py_tensors_finish(call->state, tensors, 2, status, iris_py_call_end(call, status));
release:
    iris_py_tensors_release(tensors, given, 2);
    return result;
}

/* The name of an enumerator of torch.distributed, which prints as RedOpType.SUM. NULL without an
 * exception: it is none. */
static PyObject *enumerator_name(PyObject *value)
{
    static const char *const types[] = {"RedOpType.", "ReduceOp."};
    PyObject *text = PyObject_Str(value), *name = NULL;
    const char *printed = text ? iris_py_text("op", text) : NULL;

    for (size_t i = 0; printed && !name && i < sizeof types / sizeof types[0]; ++i)
        if (strncmp(printed, types[i], strlen(types[i])) == 0)
            name = PyUnicode_FromString(printed + strlen(types[i]));
    Py_XDECREF(text);
    return name;
}

/* A name as such; that of an enumerator; or of a torch.distributed.ReduceOp made of one, whose
 * attribute `op` it is. */
static PyObject *reduction_text(PyObject *value)
{
    PyObject *held, *name;

    if (PyUnicode_Check(value))
        return Py_NewRef(value);
    name = enumerator_name(value);
    if (name || PyErr_Occurred())
        return name;
    held = PyObject_GetAttrString(value, "op");
    if (held)
        name = enumerator_name(held);
    else if (PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    Py_XDECREF(held);
    if (!name && !PyErr_Occurred())
        iris_py_type_error("op", "a str or a torch.distributed.ReduceOp", value);
    return name;
}

/* A name, or an enumerator of torch.distributed.ReduceOp. NULL: sum. */
static int parse_reduction(PyObject *value, enum iris_reduce_op *op)
{
    PyObject *text;
    const char *name;
    int result = -1;

    *op = IRIS_REDUCE_SUM;
    if (!value)
        return 0;
    text = reduction_text(value);
    name = text ? iris_py_text("op", text) : NULL;
    if (!name)
        goto finally;
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

static PyObject *ops_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    struct iris_py_args_all_reduce a;
    struct iris_py_call call;
    PyObject *result = NULL;

    if (iris_py_parse_all_reduce(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_REDUCE, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    if (parse_reduction(a.op, &call.options.reduce_op) == 0)
        result = collective(&call, iris_all_reduce, a.output, a.input);
    return iris_py_call_finish(&call, result);
}

static PyObject *ops_all_reduce_preamble(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                         PyObject *kwnames)
{
    struct iris_py_args_all_reduce_preamble a;
    struct iris_py_call call;

    if (iris_py_parse_all_reduce_preamble(iris_py_state_of_module(module), args, nargs, kwnames,
                                          &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_REDUCE, a.ctx,
                           &(struct iris_py_choices){
                               .config = a.config, .workspace = a.workspace, .group = a.group},
                           &call) < 0)
        return NULL;
    call.options.prepare = true;
    return iris_py_call_finish(&call, collective(&call, iris_all_reduce, a.output, a.input));
}

static PyObject *ops_reduce_scatter(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames)
{
    struct iris_py_args_reduce_scatter a;
    struct iris_py_call call;
    PyObject *result = NULL;

    if (iris_py_parse_reduce_scatter(iris_py_state_of_module(module), args, nargs, kwnames, &a) <
            0 ||
        iris_py_call_begin(module, IRIS_OP_REDUCE_SCATTER, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    if (parse_reduction(a.op, &call.options.reduce_op) == 0)
        result = collective(&call, iris_reduce_scatter, a.output, a.input);
    return iris_py_call_finish(&call, result);
}

static PyObject *ops_all_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    struct iris_py_args_all_gather a;
    struct iris_py_call call;

    if (iris_py_parse_all_gather(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_GATHER, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, collective(&call, iris_all_gather, a.output, a.input));
}

static PyObject *all_to_all(struct iris_py_call *call, PyObject *output, PyObject *input,
                            PyObject *output_sizes, PyObject *input_sizes)
{
    const bool has_output_sizes = output_sizes && output_sizes != Py_None;
    const bool has_input_sizes = input_sizes && input_sizes != Py_None;
    const int count = iris_context_world_size(call->ctx);
    int64_t from[IRIS_MAX_RANKS], to[IRIS_MAX_RANKS];
    PyObject *result;

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
    result = collective(call, iris_all_to_all, output, input);
    call->options.output_sizes = call->options.input_sizes = NULL; /* they end here */
    return result;
}

static PyObject *ops_all_to_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    struct iris_py_args_all_to_all a;
    struct iris_py_call call;

    if (iris_py_parse_all_to_all(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_TO_ALL, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    return iris_py_call_finish(
        &call, all_to_all(&call, a.output, a.input, a.output_split_sizes, a.input_split_sizes));
}

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
    IRIS_PY_BEGIN_WAIT
    status = iris_broadcast(call->ctx, &tensor.tensor, src, &call->options);
    IRIS_PY_END_WAIT(status)
    result =
        iris_py_tensors_finish(call->state, &tensor, 1, status, iris_py_call_end(call, status));
finally:
    iris_py_tensor_release(&tensor);
    return result;
}

static PyObject *ops_broadcast(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames)
{
    struct iris_py_args_broadcast a;
    struct iris_py_call call;

    if (iris_py_parse_broadcast(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_BROADCAST, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    return iris_py_call_finish(&call, broadcast(&call, a.tensor, a.src));
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

    if (iris_py_tensors_read(call->state, roles, (PyObject *[]){output, input}, 2,
                             call->options.prepare, tensors, given) < 0)
        return NULL;
    for (int i = 0; i < 2; i++)
        if (given[i] && roles[i].use != IRIS_PY_IGNORED &&
            iris_py_tensor_stream(call->state, call->ctx, &tensors[i], &call->options.stream) < 0)
            goto release;
    IRIS_PY_BEGIN_WAIT
    status = function(call->ctx, given[0], given[1], root, &call->options);
    IRIS_PY_END_WAIT(status)
    result =
        iris_py_tensors_finish(call->state, tensors, 2, status, iris_py_call_end(call, status));
release:
    iris_py_tensors_release(tensors, given, 2);
    return result;
}

static PyObject *ops_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    struct iris_py_args_reduce a;
    struct iris_py_call call;
    PyObject *result = NULL;
    int dst = 0;

    if (iris_py_parse_reduce(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_REDUCE, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, "dst", a.dst, &dst) == 0 &&
        parse_reduction(a.op, &call.options.reduce_op) == 0)
        result = rooted_collective(&call, iris_reduce, a.output, a.input, IRIS_PY_WRITTEN, dst);
    return iris_py_call_finish(&call, result);
}

static PyObject *ops_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    struct iris_py_args_gather a;
    struct iris_py_call call;
    PyObject *result = NULL;
    int dst = 0;

    if (iris_py_parse_gather(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_GATHER, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, "dst", a.dst, &dst) == 0)
        result = rooted_collective(&call, iris_gather, a.output, a.input, IRIS_PY_WRITTEN, dst);
    return iris_py_call_finish(&call, result);
}

static PyObject *ops_scatter(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    struct iris_py_args_scatter a;
    struct iris_py_call call;
    PyObject *result = NULL;
    int src = 0;

    if (iris_py_parse_scatter(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin(module, IRIS_OP_SCATTER, a.ctx,
                           &(struct iris_py_choices)IRIS_PY_COLLECTIVE_CHOICES(a), &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, "src", a.src, &src) == 0)
        result = rooted_collective(&call, iris_scatter, a.output, a.input, IRIS_PY_READ, src);
    return iris_py_call_finish(&call, result);
}

PyMethodDef iris_py_ccl_methods[] = {
    IRIS_PY_METHOD(all_reduce),     IRIS_PY_METHOD(all_reduce_preamble),
    IRIS_PY_METHOD(reduce_scatter), IRIS_PY_METHOD(all_gather),
    IRIS_PY_METHOD(all_to_all),     IRIS_PY_METHOD(broadcast),
    IRIS_PY_METHOD(reduce),         IRIS_PY_METHOD(gather),
    IRIS_PY_METHOD(scatter),        {NULL, NULL, 0, NULL},
};
