/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Messages between two ranks as functions of the extension module.
 */
#include "py_ops.h"

#include "py_call.h"
#include "py_signature.h"
#include "py_tensor.h"
#include "py_wait.h"

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
    IRIS_PY_BEGIN_WAIT
    status = function(call->ctx, &tensor.tensor, other, call->options.stream);
    IRIS_PY_END_WAIT(status)
    result = iris_py_tensors_finish(call->state, &tensor, 1, status,
                                    iris_py_call_end_direct(call, status));
finally:
    iris_py_tensor_release(&tensor);
    return result;
}

static PyObject *message(PyObject *module, PyObject *ctx, PyObject *group, PyObject *tensor,
                         const char *other_name, PyObject *other_value, bool receives,
                         message_function *function)
{
    PyObject *result = NULL;
    struct iris_py_call call;
    int other = 0;

    if (iris_py_call_begin_direct(module, ctx, group, &call) < 0)
        return NULL;
    if (iris_py_call_rank(&call, other_name, other_value, &other) == 0)
        result = transfer(&call, tensor, other, receives, function);
    return iris_py_call_finish(&call, result);
}

static PyObject *ops_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    struct iris_py_args_send a;

    if (iris_py_parse_send(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0)
        return NULL;
    return message(module, a.ctx, a.group, a.tensor, "dst", a.dst, false, iris_send);
}

static PyObject *ops_recv(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    struct iris_py_args_recv a;

    if (iris_py_parse_recv(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0)
        return NULL;
    return message(module, a.ctx, a.group, a.tensor, "src", a.src, true, iris_recv);
}

PyMethodDef iris_py_message_methods[] = {
    IRIS_PY_METHOD(send),
    IRIS_PY_METHOD(recv),
    {NULL, NULL, 0, NULL},
};
