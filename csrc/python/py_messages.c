/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Messages between two ranks as functions of the extension module.
 */
#include "py_methods.h"

#include "py_call.h"
#include "py_common.h"
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

/* ---- several at once ---- */

/* A list of messages as it is read: the tensors, and what the core gets. */
struct message_list {
    struct iris_py_tensor *tensors;
    PyObject *
        *objects; /* what the tensors describe; owned: an item's attribute may be a property */
    struct iris_message *messages;
    char (*names)[48];
    int count; /* of those read */
};

static void list_release(struct message_list *list)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback); /* an object's last reference may be ours */
    while (list->count > 0) {
        iris_py_tensor_release(&list->tensors[--list->count]);
        Py_DECREF(list->objects[list->count]);
    }
    PyErr_Restore(type, value, traceback);
    PyMem_Free(list->objects);
    PyMem_Free(list->tensors);
    PyMem_Free(list->messages);
    PyMem_Free(list->names);
}

static int list_reserve(struct message_list *list, Py_ssize_t count)
{
    *list = (struct message_list){0};
    list->tensors = PyMem_Calloc((size_t)count + 1, sizeof *list->tensors);
    list->objects = PyMem_Calloc((size_t)count + 1, sizeof *list->objects);
    list->messages = PyMem_Calloc((size_t)count + 1, sizeof *list->messages);
    list->names = PyMem_Calloc((size_t)count + 1, sizeof *list->names);
    if (list->tensors && list->objects && list->messages && list->names)
        return 0;
    list_release(list);
    PyErr_NoMemory();
    return -1;
}

/* `name` is the tensor's in errors. Its stream becomes the call's, from the first tensor. */
static int list_add(struct message_list *list, struct iris_py_call *call, const char *name,
                    PyObject *tensor, const char *peer_name, PyObject *peer, bool receives)
{
    const int i = list->count;
    int rank = 0;

    (void)PyOS_snprintf(list->names[i], sizeof list->names[i], "%s", name);
    if (iris_py_call_rank(call, peer_name, peer, &rank) < 0 ||
        iris_py_tensor_from_object(call->state, list->names[i], tensor,
                                   receives ? IRIS_PY_WRITTEN : IRIS_PY_READ,
                                   &list->tensors[i]) < 0)
        return -1;
    list->objects[i] = Py_NewRef(tensor);
    list->count++;
    list->messages[i] =
        (struct iris_message){list->names[i], &list->tensors[i].tensor, rank, receives};
    if (i > 0)
        return 0;
    return iris_py_tensor_stream(call->state, call->ctx, &list->tensors[0], &call->options.stream);
}

static PyObject *list_run(struct message_list *list, struct iris_py_call *call,
                          enum iris_operation operation)
{
    enum iris_status status;

    IRIS_PY_BEGIN_WAIT
    status = iris_messages(call->ctx, operation, list->messages, list->count, call->options.stream);
    IRIS_PY_END_WAIT(status)
    return iris_py_tensors_finish(call->state, list->tensors, list->count, status,
                                  iris_py_call_end_direct(call, status));
}

static PyObject *ops_sendrecv(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames)
{
    struct iris_py_args_sendrecv a;
    struct message_list list;
    struct iris_py_call call;
    PyObject *result = NULL;

    if (iris_py_parse_sendrecv(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin_direct(module, a.ctx, a.group, &call) < 0)
        return NULL;
    if (list_reserve(&list, 2) == 0) {
        if (list_add(&list, &call, "recv_tensor", a.recv_tensor, "src", a.src, true) == 0 &&
            list_add(&list, &call, "send_tensor", a.send_tensor, "dst", a.dst, false) == 0)
            result = list_run(&list, &call, IRIS_OP_SENDRECV);
        list_release(&list);
    }
    return iris_py_call_finish(&call, result);
}

/* A ccl.Send or ccl.Recv: what has a tensor, and a dst or a src. */
static int list_add_item(struct message_list *list, struct iris_py_call *call, PyObject *item)
{
    const struct iris_py_state *state = call->state;
    PyObject *tensor = PyObject_GetAttr(item, state->names[IRIS_PY_NAME_tensor]);
    PyObject *dst = tensor ? PyObject_GetAttr(item, state->names[IRIS_PY_NAME_dst]) : NULL;
    PyObject *src = NULL;
    char argument[32], name[48];
    int result = -1;

    (void)PyOS_snprintf(argument, sizeof argument, "messages[%d]", list->count);
    if (tensor && !dst && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        src = PyObject_GetAttr(item, state->names[IRIS_PY_NAME_src]);
    }
    if (!dst && !src) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
            iris_py_type_error(argument, "a ccl.Send or ccl.Recv", item);
        }
    } else {
        (void)PyOS_snprintf(name, sizeof name, "%s.tensor", argument);
        result = list_add(list, call, name, tensor, dst ? "dst" : "src", dst ? dst : src, !dst);
    }
    Py_XDECREF(src);
    Py_XDECREF(dst);
    Py_XDECREF(tensor);
    return result;
}

static PyObject *ops_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    struct iris_py_args_batch a;
    struct message_list list;
    struct iris_py_call call;
    PyObject *items, *result = NULL;
    Py_ssize_t count;

    if (iris_py_parse_batch(iris_py_state_of_module(module), args, nargs, kwnames, &a) < 0 ||
        iris_py_call_begin_direct(module, a.ctx, a.group, &call) < 0)
        return NULL;
    /* A tuple of its own: reading an item may run Python code that changes the caller's list. */
    items = PySequence_Check(a.messages) ? PySequence_Tuple(a.messages) : NULL;
    if (!items) {
        if (!PyErr_Occurred())
            (void)iris_py_type_error("messages", "a sequence of ccl.Send and ccl.Recv", a.messages);
        return iris_py_call_finish(&call, NULL);
    }
    count = PyTuple_Size(items);
    if (count > IRIS_MAX_MESSAGES) {
        PyErr_Format(PyExc_ValueError, "messages: expected at most %d, got %zd",
                     (int)IRIS_MAX_MESSAGES, count);
    } else if (list_reserve(&list, count) == 0) {
        Py_ssize_t i = 0;

        while (i < count && list_add_item(&list, &call, PyTuple_GetItem(items, i)) == 0)
            i++;
        if (i == count)
            result = list_run(&list, &call, IRIS_OP_BATCH);
        list_release(&list);
    }
    Py_DECREF(items);
    return iris_py_call_finish(&call, result);
}

PyMethodDef iris_py_message_methods[] = {
    IRIS_PY_METHOD(send),  IRIS_PY_METHOD(recv),  IRIS_PY_METHOD(sendrecv),
    IRIS_PY_METHOD(batch), {NULL, NULL, 0, NULL},
};
