/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Messages as functions of the extension module: send, recv, all_to_all.
 */
#include "py_ops.h"

#include "py_call.h"
#include "py_tensor.h"

/* ---- send, recv ---- */

typedef enum iris_status message_function(struct iris_context *, const struct iris_tensor *, int,
                                          void *);

static PyObject *message(struct iris_py_call *call, message_function *function,
                         struct iris_py_tensor *tensor, int other)
{
    enum iris_status status;
    PyObject *result = NULL;

    if (iris_py_tensor_stream(call->state, call->ctx, tensor, &call->options.stream) < 0)
        goto finally;
    Py_BEGIN_ALLOW_THREADS
    status = function(call->ctx, &tensor->tensor, other, call->options.stream);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end_direct(call, status);
finally:
    iris_py_tensor_release(tensor);
    return result;
}

#define MESSAGE_NOTES                                                                              \
    "group : sequence of int or None\n    None, or a group that holds both ranks. See "            \
    "Context.group.\n\n"                                                                           \
    "Raises\n------\n"                                                                             \
    "ValueError\n    The tensor, the rank; on both ranks: the sizes differ. The context is then\n" \
    "    of no more use.\n"                                                                        \
    "SignalTimeout, PeerError\n    The other rank did not come in time, or is gone."

PyDoc_STRVAR(send_doc,
             "send($module, ctx, tensor, dst, group=None)\n--\n\n"
             "Send a tensor to a rank, which calls recv. Can be captured in a graph.\n\n"
             "Messages between two ranks arrive in the order in which they were sent. Up to\n"
             "128 KiB wait in a buffer, so that the stream goes on; for more, the receiver\n"
             "must come.\n\n"
             "Parameters\n----------\n"
             "ctx : Context\n"
             "tensor : tensor\n    Contiguous, any dtype. It may be changed by what follows on the "
             "stream.\n"
             "dst : int\n    The rank to send to, not this one.\n" MESSAGE_NOTES);

static PyObject *ops_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "send",
        .count = 4,
        .required = 3,
        .positional = 4,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_tensor, IRIS_PY_NAME_dst, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_tensor tensor;
    struct iris_py_call call;
    int dst = 0;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin_direct(module, v[0], v[3], &call) < 0 ||
        iris_py_call_rank(&call, "dst", v[2], &dst) < 0 ||
        iris_py_tensor_from_object(call.state, "tensor", v[1], &tensor) < 0)
        return NULL;
    return message(&call, iris_send, &tensor, dst);
}

PyDoc_STRVAR(recv_doc, "recv($module, ctx, tensor, src, group=None)\n--\n\n"
                       "Receive a tensor from a rank, which calls send. Can be captured in a "
                       "graph.\n\n"
                       "Parameters\n----------\n"
                       "ctx : Context\n"
                       "tensor : tensor\n    Contiguous, of as many bytes as are sent.\n"
                       "src : int\n    The rank that sends, not this one.\n" MESSAGE_NOTES);

static PyObject *ops_recv(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "recv",
        .count = 4,
        .required = 3,
        .positional = 4,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_tensor, IRIS_PY_NAME_src, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_tensor tensor;
    struct iris_py_call call;
    int src = 0;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin_direct(module, v[0], v[3], &call) < 0 ||
        iris_py_call_rank(&call, "src", v[2], &src) < 0 ||
        iris_py_tensor_output(call.state, "tensor", v[1], &tensor) < 0)
        return NULL;
    return message(&call, iris_recv, &tensor, src);
}

/* ---- all_to_all ---- */

/* Equal parts (both sizes NULL or None), or rows for each rank. */
static PyObject *all_to_all(struct iris_py_call *call, PyObject *output_value,
                            PyObject *input_value, const int64_t *output_sizes,
                            const int64_t *input_sizes)
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
    if (output_sizes)
        status = iris_all_to_all_v(call->ctx, &output.tensor, &input.tensor, output_sizes,
                                   input_sizes, call->options.stream);
    else
        status = iris_all_to_all(call->ctx, &output.tensor, &input.tensor, &call->options);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end(call, status);
release_input:
    iris_py_tensor_release(&input);
release_output:
    iris_py_tensor_release(&output);
    return result;
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
    int64_t output_sizes[IRIS_MAX_RANKS], input_sizes[IRIS_MAX_RANKS];
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_call call;
    bool has_output_sizes, has_input_sizes;
    int world_size;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin(module, IRIS_OP_ALL_TO_ALL, v[0],
                           &(struct iris_py_choices){v[4], v[5], v[3], v[8]}, &call) < 0)
        return NULL;
    world_size = iris_context_world_size(call.ctx);
    has_output_sizes = v[6] && v[6] != Py_None;
    has_input_sizes = v[7] && v[7] != Py_None;
    if (has_output_sizes != has_input_sizes) {
        PyErr_Format(PyExc_ValueError, "%s: expected sizes, as %s has, got None",
                     has_output_sizes ? "input_split_sizes" : "output_split_sizes",
                     has_output_sizes ? "output_split_sizes" : "input_split_sizes");
        return NULL;
    }
    if (!has_output_sizes)
        return all_to_all(&call, v[1], v[2], NULL, NULL);
    if (iris_py_int64s("output_split_sizes", v[6], world_size, output_sizes) < 0 ||
        iris_py_int64s("input_split_sizes", v[7], world_size, input_sizes) < 0)
        return NULL;
    return all_to_all(&call, v[1], v[2], output_sizes, input_sizes);
}

#define OP(name) (PyCFunction)(void (*)(void)) ops_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc

PyMethodDef iris_py_message_methods[] = {
    {"send", OP(send)},
    {"recv", OP(recv)},
    {"all_to_all", OP(all_to_all)},
    {NULL, NULL, 0, NULL},
};
