/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Messages between two ranks as functions of the extension module.
 */
#include "py_ops.h"

#include "py_call.h"
#include "py_tensor.h"

/* ---- send, recv ---- */

typedef enum iris_status message_function(struct iris_context *, const struct iris_tensor *, int,
                                          void *);

static PyObject *transfer(struct iris_py_call *call, PyObject *value, int other, bool receives,
                          message_function *function)
{
    struct iris_py_tensor tensor;
    PyObject *result = NULL;
    enum iris_status status;

    if (iris_py_tensor_from_object(call->state, "tensor", value,
                                   receives ? IRIS_PY_WRITTEN : IRIS_PY_READ, &tensor) < 0)
        return NULL;
    if (iris_py_tensor_stream(call->state, call->ctx, &tensor, &call->options.stream) < 0)
        goto finally;
    Py_BEGIN_ALLOW_THREADS
    status = function(call->ctx, &tensor.tensor, other, call->options.stream);
    Py_END_ALLOW_THREADS
    result = iris_py_call_end_direct(call, status);
finally:
    iris_py_tensor_release(&tensor);
    return result;
}

/* send and recv: (ctx, tensor, the other rank, group). */
static PyObject *message(PyObject *module, const char *name, enum iris_py_name other_name,
                         const char *other_text, bool receives, message_function *function,
                         PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 4,
        .required = 3,
        .positional = 4,
        .names = {IRIS_PY_NAME_ctx, IRIS_PY_NAME_tensor, other_name, IRIS_PY_NAME_group},
    };
    PyObject *v[IRIS_PY_MAX_PARAMETERS], *result = NULL;
    struct iris_py_call call;
    int other = 0;

    if (iris_py_parse(iris_py_state_of_module(module), &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_call_begin_direct(module, v[0], v[3], &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, other_text, v[2], &other) == 0)
        result = transfer(&call, v[1], other, receives, function);
    return iris_py_call_finish(&call, result);
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
    return message(module, "send", IRIS_PY_NAME_dst, "dst", false, iris_send, args, nargs, kwnames);
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
    return message(module, "recv", IRIS_PY_NAME_src, "src", true, iris_recv, args, nargs, kwnames);
}

#define OP(name) (PyCFunction)(void (*)(void)) ops_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc

PyMethodDef iris_py_message_methods[] = {
    {"send", OP(send)},
    {"recv", OP(recv)},
    {NULL, NULL, 0, NULL},
};
