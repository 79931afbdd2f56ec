/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * put, get, signal and wait.
 */
#include "py_rma.h"

#include "py_common.h"
#include "py_context_object.h"
#include "py_tensor.h"
#include "py_values.h"
#include "py_wait.h"

static struct iris_context *core(PyObject *object)
{
    return ((struct iris_py_context *)object)->ctx;
}

/* ---- put, get ---- */

typedef enum iris_status copy_function(struct iris_context *, const struct iris_tensor *,
                                       const struct iris_tensor *, int, void *);

/* writes_here: dst is this rank's, not the peer's. */
static PyObject *copy(PyObject *object, PyTypeObject *cls, const char *name, bool writes_here,
                      copy_function *function, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    const struct iris_py_signature signature = {
        .function = name,
        .count = 4,
        .required = 3,
        .positional = 4,
        .names = {IRIS_PY_NAME_dst, IRIS_PY_NAME_src, IRIS_PY_NAME_peer, IRIS_PY_NAME_stream},
    };
    struct iris_py_state *state = PyType_GetModuleState(cls);
    struct iris_context *ctx = core(object);
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    static const struct iris_py_tensor_role roles[] = {{"dst", IRIS_PY_WRITTEN, false},
                                                       {"src", IRIS_PY_READ, false}};
    struct iris_py_tensor tensors[2];
    const struct iris_tensor *given[2];
    PyObject *result;
    enum iris_status status;
    void *stream = NULL;
    int peer = 0;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_int("peer", v[2], &peer) < 0 ||
        iris_py_context_stream(state, ctx, v[3], &stream) < 0 ||
        iris_py_tensors_read(state, roles, v, 2, false, tensors, given) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = function(ctx, given[0], given[1], peer, stream);
    IRIS_PY_END_WAIT(status)
    result = status == IRIS_OK ? Py_NewRef(Py_None) : iris_py_raise(state, status);
    if (writes_here || peer == iris_context_rank(ctx))
        result = iris_py_tensors_finish(state, tensors, 2, status, result);
    iris_py_tensors_release(tensors, given, 2);
    return result;
}

const char iris_py_put_doc[] =
    "put($self, /, dst, src, peer, stream=None)\n--\n\n"
    "Copy src into rank `peer`'s copy of dst. Not collective.\n"
    "\n"
    "The copy is queued on `stream` (None: torch's current one) and can be captured in a graph.\n"
    "The peer may read it after a signal that follows on the stream, or after a device_barrier.\n\n"
    "Parameters\n----------\n"
    "dst : tensor\n    Contiguous, on this rank's heap. It names the place: the peer's tensor at "
    "the same\n"
    "    offset. This rank's own is not touched.\n"
    "src : tensor\n    Contiguous, on the heap or off it, of dst's dtype and number of elements.\n"
    "peer : int";

PyObject *iris_py_context_put(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    return copy(object, cls, "put", false, iris_rma_put, args, nargs, kwnames);
}

const char iris_py_get_doc[] =
    "get($self, /, dst, src, peer, stream=None)\n--\n\n"
    "Copy rank `peer`'s copy of src into dst. Not collective.\n"
    "\n"
    "The copy is queued on `stream` (None: torch's current one) and can be captured in a graph.\n\n"
    "Parameters\n----------\n"
    "dst : tensor\n    Contiguous, on the heap or off it.\n"
    "src : tensor\n    Contiguous, on this rank's heap. It names the place: the peer's tensor at "
    "the same\n"
    "    offset. This rank's own is not touched.\n"
    "peer : int";

PyObject *iris_py_context_get(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    return copy(object, cls, "get", true, iris_rma_get, args, nargs, kwnames);
}

/* ---- signal, wait ---- */

/* An int32; NULL: *out keeps what it holds. */
static int read_value(PyObject *value, int32_t *out)
{
    int number = *out;

    if (iris_py_int("value", value, &number) < 0)
        return -1;
    *out = number;
    return 0;
}

const char iris_py_signal_doc[] =
    "signal($self, /, word, peer, value=1, op='set', stream=None)\n--\n\n"
    "Write rank `peer`'s copy of a word, after all earlier work on the stream.\n"
    "\n"
    "Whoever waits for the word then sees what this rank has put before. Not collective; can be\n"
    "captured in a graph.\n\n"
    "Parameters\n----------\n"
    "word : tensor\n    One int32 on this rank's heap. It names the place: the peer's word at the "
    "same\n"
    "    offset.\n"
    "peer : int\n"
    "value : int\n    Of 32 bits.\n"
    "op : str\n    'set' stores the value; 'add' adds it atomically and wraps.";

PyObject *iris_py_context_signal(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const ops[] = {
        [IRIS_SIGNAL_OP_SET] = "set",
        [IRIS_SIGNAL_OP_ADD] = "add",
    };
    static const struct iris_py_signature signature = {
        .function = "signal",
        .count = 5,
        .required = 2,
        .positional = 5,
        .names = {IRIS_PY_NAME_word, IRIS_PY_NAME_peer, IRIS_PY_NAME_value, IRIS_PY_NAME_op,
                  IRIS_PY_NAME_stream},
    };
    struct iris_py_state *state = PyType_GetModuleState(cls);
    struct iris_context *ctx = core(object);
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_tensor word;
    enum iris_status status;
    PyObject *result;
    int peer = 0, op = IRIS_SIGNAL_OP_SET;
    int32_t value = 1;
    void *stream = NULL;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, v) < 0 ||
        iris_py_int("peer", v[1], &peer) < 0 || read_value(v[2], &value) < 0 ||
        iris_py_one_of("op", v[3], ops, IRIS_SIGNAL_OP_COUNT, &op) < 0 ||
        iris_py_context_stream(state, ctx, v[4], &stream) < 0 ||
        iris_py_tensor_from_object(state, "word", v[0], IRIS_PY_WRITTEN, &word) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = iris_rma_signal(ctx, &word.tensor, peer, value, (enum iris_signal_op)op, stream);
    IRIS_PY_END_WAIT(status)
    result = status == IRIS_OK ? Py_NewRef(Py_None) : iris_py_raise(state, status);
    if (peer == iris_context_rank(ctx))
        result = iris_py_tensors_finish(state, &word, 1, status, result);
    iris_py_tensor_release(&word);
    return result;
}

const char iris_py_wait_doc[] =
    "wait($self, /, word, value=1, compare='ge', consume=False, stream=None)\n--\n\n"
    "Make the stream wait until this rank's word is, for example, >= `value`.\n"
    "\n"
    "What the signalling rank put before its signal is then visible. The wait ends at the "
    "context's\n"
    "timeout at the latest. Not collective; can be captured in a graph. A signal with op='add' "
    "and\n"
    "a wait with consume=True make a semaphore, which graphs can replay without a reset.\n\n"
    "Parameters\n----------\n"
    "word : tensor\n    One int32 on this rank's heap.\n"
    "value : int\n    Of 32 bits, signed.\n"
    "compare : str\n    The wait ends when the word is 'eq', 'ne', 'gt', 'ge', 'lt' or 'le' to the "
    "value.\n"
    "consume : bool\n    Subtract the value from the word afterwards, atomically.\n\n"
    "Raises\n------\n"
    "SignalTimeout\n    The word did not become so in time. On a GPU the context's next operation "
    "raises it.";

PyObject *iris_py_context_wait(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const compares[] = {
        [IRIS_COMPARE_EQ] = "eq", [IRIS_COMPARE_NE] = "ne", [IRIS_COMPARE_GT] = "gt",
        [IRIS_COMPARE_GE] = "ge", [IRIS_COMPARE_LT] = "lt", [IRIS_COMPARE_LE] = "le",
    };
    static const struct iris_py_signature signature = {
        .function = "wait",
        .count = 5,
        .required = 1,
        .positional = 5,
        .names = {IRIS_PY_NAME_word, IRIS_PY_NAME_value, IRIS_PY_NAME_compare, IRIS_PY_NAME_consume,
                  IRIS_PY_NAME_stream},
    };
    struct iris_py_state *state = PyType_GetModuleState(cls);
    struct iris_context *ctx = core(object);
    PyObject *v[IRIS_PY_MAX_PARAMETERS];
    struct iris_py_tensor word;
    enum iris_status status;
    PyObject *result;
    int compare = IRIS_COMPARE_GE;
    bool consume = false;
    int32_t value = 1;
    void *stream = NULL;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, v) < 0 ||
        read_value(v[1], &value) < 0 ||
        iris_py_one_of("compare", v[2], compares, IRIS_COMPARE_COUNT, &compare) < 0 ||
        iris_py_bool("consume", v[3], &consume) < 0 ||
        iris_py_context_stream(state, ctx, v[4], &stream) < 0 ||
        iris_py_tensor_from_object(state, "word", v[0], IRIS_PY_WRITTEN, &word) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = iris_rma_wait(ctx, &word.tensor, value, (enum iris_compare)compare, consume, stream);
    IRIS_PY_END_WAIT(status)
    result = status == IRIS_OK ? Py_NewRef(Py_None) : iris_py_raise(state, status);
    if (consume)
        result = iris_py_tensors_finish(state, &word, 1, status, result);
    iris_py_tensor_release(&word);
    return result;
}
