/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c._C.Context: one rank's membership in a world of ranks, and its symmetric heap.
 *
 * The Python subclass iris_c.Context adds what is not worth C: tensors of the user's library,
 * namespaces. Whatever may wait for peers runs without the GIL.
 */
#include "py_context.h"

#include <string.h>

#include "base/wait.h"
#include "py_common.h"
#include "py_config.h"
#include "py_context_object.h"
#include "py_memory.h"
#include "py_options.h"
#include "py_rma.h"
#include "py_survivors.h"
#include "py_tensor.h"
#include "py_trace.h"
#include "py_values.h"
#include "py_wait.h"

static struct iris_context *core(PyObject *object)
{
    return ((struct iris_py_context *)object)->ctx;
}

/* ---- life ---- */

PyDoc_STRVAR(
    context_doc,
    "Context(*, heap_size=1073741824, local_size=0, backend=None, rank=0, world_size=1, "
    "local_rank=0, timeout=30.0, run_key='', num_threads=0,\n"
    "        debug=False, kernel_directory='', ranks=None, parent=None)\n--\n\n"
    "Meet the other ranks and map the symmetric heap. Collective; use iris_c.init.\n\n"
    "Parameters\n----------\n"
    "heap_size : int\n    Bytes of the heap, equal on all ranks.\n"
    "local_size : int\n    Bytes of the local arena, equal on all ranks.\n"
    "backend : str or None\n    'hip', 'cuda' or 'cpu'; None takes the first that is present.\n"
    "rank, world_size : int\n"
    "local_rank : int\n    The rank on this node, which is the number of its device.\n"
    "timeout : float\n    Seconds that a rank waits for the others, now and in every later wait.\n"
    "run_key : str\n    A name that all ranks of this run share and no other run has.\n"
    "num_threads : int\n    Threads of the cpu backend; 0: the runtime chooses.\n"
    "debug : bool\n    Whether the ranks compare every call before it starts.\n"
    "kernel_directory : str\n    The directory of the GPU code objects.\n"
    "ranks : sequence of int or None\n    Of a group: its members' numbers in the context that it "
    "is made of.\n"
    "parent : Context or None\n    Of a group: the context that it is made of. Ranks that die "
    "there are not waited for.");

static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"heap_size",   "local_size", "backend",          "rank",
                            "world_size",  "local_rank", "timeout",          "run_key",
                            "num_threads", "debug",      "kernel_directory", "ranks",
                            "parent",      NULL};
    const struct iris_py_state *state = iris_py_state_of_type(type);
    struct iris_context_options options = {.world_size = 1,
                                           .timeout = 30.0,
                                           .run_key = "",
                                           .kernel_directory = "",
                                           .heap_size = (size_t)1 << 30};
    struct iris_context *ctx = NULL;
    enum iris_status status;
    int64_t members_given[IRIS_MAX_RANKS] = {0};
    int ranks[IRIS_MAX_RANKS] = {0};
    struct iris_py_options given = {.ranks = NULL};
    struct iris_members members = {0};

    if (!state || !PyArg_ParseTupleAndKeywords(
                      args, kwargs, "|$OOOOOOOOOOOOO:Context", names, &given.heap_size,
                      &given.local_size, &given.backend, &given.rank, &given.world_size,
                      &given.local_rank, &given.timeout, &given.run_key, &given.num_threads,
                      &given.debug, &given.kernel_directory, &given.ranks, &given.parent))
        return NULL;
    if (iris_py_options_read(&given, &options, members_given) < 0) {
        iris_py_options_release(&given);
        return NULL;
    }
    if (given.parent && given.parent != Py_None) {
        if (!PyObject_TypeCheck(given.parent, state->context_type)) {
            iris_py_options_release(&given);
            iris_py_type_error("parent", "an iris_c.Context or None", given.parent);
            return NULL;
        }
        members.parent = core(given.parent);
        for (int i = 0; i < options.world_size && i < IRIS_MAX_RANKS; i++)
            if (members_given[i] >= 0 && members_given[i] < IRIS_MAX_RANKS)
                members.ranks |= UINT32_C(1) << members_given[i];
        options.check_meeting = iris_members_check;
        options.check_meeting_arg = &members;
    }
    /* The parent belongs to args and kwargs, which the caller holds. */
    IRIS_PY_BEGIN_WAIT
    status = iris_context_create(&options, &ctx);
    IRIS_PY_END_WAIT(status)
    iris_py_options_release(&given);
    if (status != IRIS_OK) {
        iris_context_release(ctx);
        return iris_py_raise(state, status);
    }
    for (int i = 0; i < options.world_size; i++)
        ranks[i] = given.ranks && given.ranks != Py_None ? (int)members_given[i] : i;
    return iris_py_context_wrap(type, ctx, ranks);
}

static int context_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct iris_py_context *self = (struct iris_py_context *)object;

    for (int i = 0; i < IRIS_OP_COUNT; i++)
        Py_VISIT(self->workspaces[i]);
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static int context_clear(PyObject *object)
{
    struct iris_py_context *self = (struct iris_py_context *)object;

    for (int i = 0; i < IRIS_OP_COUNT; i++)
        Py_CLEAR(self->workspaces[i]);
    return 0;
}

static void context_dealloc(PyObject *object)
{
    struct iris_context *ctx = core(object);

    PyObject_GC_UnTrack(object);
    (void)context_clear(object);
    if (ctx) {
        Py_BEGIN_ALLOW_THREADS
        /* Tensors may keep the heap, but nobody can start anything together any more: tell the
         * peers now. May join threads. */
        struct iris_interruptible *suspended = iris_wait_suspend(); /* no exception gets out */
        iris_context_close(ctx);
        iris_context_release(ctx);
        iris_wait_resume(suspended);
        Py_END_ALLOW_THREADS
    }
    iris_py_free(object);
}

/* ---- attributes ---- */

static PyObject *context_get_rank(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromLong(iris_context_rank(core(object)));
}

static PyObject *context_get_world_size(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromLong(iris_context_world_size(core(object)));
}

static PyObject *context_get_backend(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyUnicode_FromString(iris_context_backend(core(object)));
}

static PyObject *context_get_device_id(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromLong(iris_context_device_id(core(object)));
}

static PyObject *context_get_heap_size(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_heap_size(core(object)));
}

static PyObject *context_get_heap_used(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyLong_FromSize_t(iris_context_heap_used(core(object)));
}

static PyObject *context_get_ranks(PyObject *object, void *IRIS_UNUSED(closure))
{
    const struct iris_py_context *self = (const struct iris_py_context *)object;
    const int count = iris_context_world_size(self->ctx);
    int64_t ranks[IRIS_MAX_RANKS];

    for (int i = 0; i < count; i++)
        ranks[i] = self->ranks[i];
    return iris_py_int64_tuple(ranks, count);
}

static PyObject *context_get_closed(PyObject *object, void *IRIS_UNUSED(closure))
{
    return PyBool_FromLong(iris_context_is_closed(core(object)));
}

static PyObject *context_repr(PyObject *object)
{
    const struct iris_context *ctx = core(object);

    return PyUnicode_FromFormat(
        "iris_c.Context(rank=%d, world_size=%d, backend='%s', heap_size=%zu, heap_used=%zu%s)",
        iris_context_rank(ctx), iris_context_world_size(ctx), iris_context_backend(ctx),
        iris_context_heap_size(ctx), iris_context_heap_used(ctx),
        iris_context_is_closed(ctx) ? ", closed" : "");
}

/* ---- methods ---- */

static PyObject *context_get_rank_method(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    return context_get_rank(object, NULL);
}

static PyObject *context_get_num_ranks(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    return context_get_world_size(object, NULL);
}

static PyObject *context_get_cu_count(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    return PyLong_FromLong(iris_context_compute_units(core(object)));
}

static PyObject *context_heap_bases(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    uint64_t bases[IRIS_MAX_RANKS] = {0};
    const int count = iris_context_world_size(core(object));
    PyObject *tuple = PyTuple_New(count);

    iris_context_heap_bases(core(object), bases);
    for (int i = 0; tuple && i < count; i++) {
        PyObject *item = PyLong_FromUnsignedLongLong(bases[i]);

        if (!item || PyTuple_SetItem(tuple, i, item) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* Both barriers: parse the stream, wait without the GIL. */
static PyObject *barrier(PyObject *object, PyTypeObject *cls, const char *function,
                         PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         enum iris_status (*wait)(struct iris_context *, void *))
{
    const struct iris_py_signature signature = {
        .function = function, .count = 1, .positional = 1, .names = {IRIS_PY_NAME_stream}};
    struct iris_py_state *state = PyType_GetModuleState(cls);
    struct iris_context *ctx = core(object);
    PyObject *values[IRIS_PY_MAX_PARAMETERS];
    enum iris_status status;
    void *stream = NULL;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, values) < 0 ||
        iris_py_context_stream(state, ctx, values[0], &stream) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = wait(ctx, stream);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(context_barrier_doc,
             "barrier($self, /, stream=None)\n--\n\n"
             "Wait, on the host, until all ranks have called it and their streams are done.\n"
             "\n"
             "Collective. `stream` is this rank's; None: torch's current one.");

static PyObject *context_barrier(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames)
{
    return barrier(object, cls, "barrier", args, nargs, kwnames, iris_context_barrier);
}

PyDoc_STRVAR(
    context_device_barrier_doc,
    "device_barrier($self, /, stream=None)\n--\n\n"
    "Make the streams of all ranks wait for each other; the host does not wait.\n"
    "\n"
    "What any rank queued before is complete and visible to what any rank queues after it.\n"
    "Collective; can be captured in a graph.");

static PyObject *context_device_barrier(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                        Py_ssize_t nargs, PyObject *kwnames)
{
    return barrier(object, cls, "device_barrier", args, nargs, kwnames,
                   iris_context_device_barrier);
}

PyDoc_STRVAR(context_exchange_doc, "_exchange($self, value, /)\n--\n\n"
                                   "Tell all ranks an int of 64 bits; return theirs, by rank.\n"
                                   "\n"
                                   "Collective. The hosts wait for each other, and for no device.");

static PyObject *context_exchange(PyObject *object, PyObject *argument)
{
    const int count = iris_context_world_size(core(object));
    int64_t value, values[IRIS_MAX_RANKS] = {0};
    enum iris_status status;
    PyObject *tuple;

    if (iris_py_int64("value", argument, &value) < 0)
        return NULL;
    IRIS_PY_BEGIN_WAIT
    status = iris_context_exchange(core(object), value, values);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    tuple = PyTuple_New(count);
    for (int i = 0; tuple && i < count; i++) {
        PyObject *item = PyLong_FromLongLong(values[i]);

        if (!item || PyTuple_SetItem(tuple, i, item) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

PyDoc_STRVAR(context_broadcast_doc,
             "_broadcast($self, data, nbytes, src, /)\n--\n\n"
             "Return the bytes that rank `src` gives as `data`; the others give None.\n"
             "\n"
             "Collective; `nbytes` and `src` are equal on all ranks. Waits for no device.");

static PyObject *context_broadcast(PyObject *object, PyObject *args)
{
    PyObject *data, *size, *source, *result;
    int64_t nbytes, src;
    enum iris_status status;

    if (!PyArg_ParseTuple(args, "OOO:_broadcast", &data, &size, &source) ||
        iris_py_int64("nbytes", size, &nbytes) < 0 || iris_py_int64("src", source, &src) < 0)
        return NULL;
    if (nbytes < 0 || (PyBytes_Check(data) && PyBytes_Size(data) != nbytes)) {
        PyErr_Format(PyExc_ValueError, "nbytes: expected the size of data, got %lld",
                     (long long)nbytes);
        return NULL;
    }
    /* Nobody else has these bytes yet: they are filled while the GIL is released. */
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)nbytes);
    if (!result)
        return NULL;
    if (PyBytes_Check(data))
        memcpy(PyBytes_AsString(result), PyBytes_AsString(data), (size_t)nbytes);
    IRIS_PY_BEGIN_WAIT
    status = iris_context_broadcast(core(object), PyBytes_AsString(result), (size_t)nbytes,
                                    src < 0 || src > IRIS_MAX_RANKS ? -1 : (int)src);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK) {
        Py_DECREF(result);
        return iris_py_raise_for(object, status);
    }
    return result;
}

PyDoc_STRVAR(context_select_config_doc,
             "_select_config($self, operation, M, N, K, dtype, fields, /)\n--\n\n"
             "Fill the None fields of a config as a call would; returns its tuple.");

static PyObject *context_select_config(PyObject *object, PyObject *args)
{
    const struct iris_py_state *state = iris_py_state_of_type(Py_TYPE(object));
    enum iris_operation operation;
    struct iris_config config;
    enum iris_dtype dtype;
    enum iris_status status;
    PyObject *name, *sizes[3], *dtype_value, *fields;
    int64_t M, N, K;

    if (!state || !PyArg_ParseTuple(args, "OOOOOO:_select_config", &name, &sizes[0], &sizes[1],
                                    &sizes[2], &dtype_value, &fields))
        return NULL;
    if (iris_py_operation("operation", name, &operation) < 0 ||
        iris_py_int64("M", sizes[0], &M) < 0 || iris_py_int64("N", sizes[1], &N) < 0 ||
        iris_py_int64("K", sizes[2], &K) < 0 || iris_py_dtype(state, dtype_value, &dtype) < 0 ||
        iris_py_config_from_tuple(fields, &config) < 0)
        return NULL;
    status = iris_config_select(core(object), operation, M, N, K, dtype, &config);
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    return iris_py_config_to_tuple(&config);
}

PyDoc_STRVAR(
    context_close_doc,
    "close($self, /)\n--\n\n"
    "Leave the peers. Tensors stay readable. Not collective.\n"
    "\n"
    "The call waits, up to the timeout, until the peers have taken what was sent to them. A\n"
    "second call does nothing.");

static PyObject *context_close(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    enum iris_status status = IRIS_OK;

    IRIS_PY_BEGIN_WAIT
    iris_context_close(core(object));
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

static PyObject *context_close_now(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS
    iris_context_close_now(core(object));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *context_require_open(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    const enum iris_status status = iris_context_check(core(object));

    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

static PyObject *context_enter(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    Py_INCREF(object);
    return object;
}

static PyObject *context_exit(PyObject *object, PyObject *IRIS_UNUSED(args))
{
    PyObject *result = PyObject_CallMethod(object, "close", NULL); /* which closes groups too */

    if (!result)
        return NULL;
    Py_DECREF(result); /* whatever a subclass returns: no exception is swallowed */
    Py_RETURN_NONE;
}

static PyMethodDef context_methods[] = {
    {"get_rank", context_get_rank_method, METH_NOARGS,
     "get_rank($self, /)\n--\n\nReturn this rank's number."},
    {"get_num_ranks", context_get_num_ranks, METH_NOARGS,
     "get_num_ranks($self, /)\n--\n\nReturn the number of ranks."},
    {"get_cu_count", context_get_cu_count, METH_NOARGS,
     "get_cu_count($self, /)\n--\n\nReturn the compute units of the device; on the cpu the threads "
     "of a rank."},
    {"_heap_bases", context_heap_bases, METH_NOARGS,
     "_heap_bases($self, /)\n--\n\nReturn the addresses of all ranks' heaps, as mapped in this "
     "process."},
    {"barrier", (PyCFunction)(void (*)(void))context_barrier,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, context_barrier_doc},
    {"device_barrier", (PyCFunction)(void (*)(void))context_device_barrier,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, context_device_barrier_doc},
    {"_exchange", context_exchange, METH_O, context_exchange_doc},
    {"_broadcast", context_broadcast, METH_VARARGS, context_broadcast_doc},
    {"is_symmetric", iris_py_context_is_symmetric, METH_O, iris_py_is_symmetric_doc},
    {"is_reachable", iris_py_context_is_reachable, METH_O, iris_py_is_reachable_doc},
    {"allocate", (PyCFunction)(void (*)(void))iris_py_context_allocate,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_allocate_doc},
    {"_pool", iris_py_context_pool, METH_NOARGS,
     "_pool($self, /)\n--\n\nReturn the number of the context's functions for torch's "
     "allocator."},
    {"_capture", iris_py_context_capture, METH_NOARGS,
     "_capture($self, /)\n--\n\nReturn the id of what torch's current stream is being captured "
     "into; 0: it is not."},
    {"_watch_capture", iris_py_context_watch_capture, METH_NOARGS,
     "_watch_capture($self, /)\n--\n\nReturn a function that says whether what torch's current "
     "stream is being\ncaptured into has ceased to exist."},
    {"allocate_local", (PyCFunction)(void (*)(void))iris_py_context_allocate_local,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_allocate_local_doc},
    {"put", (PyCFunction)(void (*)(void))iris_py_context_put,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_put_doc},
    {"get", (PyCFunction)(void (*)(void))iris_py_context_get,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_get_doc},
    {"signal", (PyCFunction)(void (*)(void))iris_py_context_signal,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_signal_doc},
    {"wait", (PyCFunction)(void (*)(void))iris_py_context_wait,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_wait_doc},
    {"survivors", (PyCFunction)(void (*)(void))iris_py_context_survivors,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, iris_py_survivors_doc},
    {"_trace", iris_py_context_trace, METH_NOARGS, iris_py_trace_doc},
    {"_trace_clear", iris_py_context_trace_clear, METH_NOARGS, iris_py_trace_clear_doc},
    {"_select_config", context_select_config, METH_VARARGS, context_select_config_doc},
    {"_require_open", context_require_open, METH_NOARGS,
     "_require_open($self, /)\n--\n\nRaise RuntimeError if it is closed or the parent process's."},
    {"_close_now", context_close_now, METH_NOARGS,
     "_close_now($self, /)\n--\n\nClose without waiting for what was sent to be taken."},
    {"close", context_close, METH_NOARGS, context_close_doc},
    {"__enter__", context_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nThe context itself."},
    {"__exit__", context_exit, METH_VARARGS, "__exit__($self, /, *args)\n--\n\nclose()."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef context_getset[] = {
    {"rank", context_get_rank, NULL, "int: this rank.", NULL},
    {"world_size", context_get_world_size, NULL, "int: number of ranks.", NULL},
    {"backend", context_get_backend, NULL, "str: 'cpu', 'cuda' or 'hip'.", NULL},
    {"device_id", context_get_device_id, NULL, "int: the device's index on the node.", NULL},
    {"heap_size", context_get_heap_size, NULL, "int: bytes of the symmetric heap.", NULL},
    {"heap_used", context_get_heap_used, NULL,
     "int: bytes of this rank's live allocations and workspaces.", NULL},
    {"memory_kind", iris_py_context_memory_kind, NULL,
     "str: the heap's memory on this rank: 'shared' (cpu), 'device' (cuda), 'uncached', "
     "'fine-grained' or 'unknown' (hip).",
     NULL},
    {"local_size", iris_py_context_local_size, NULL, "int: bytes of the local arena.", NULL},
    {"local_used", iris_py_context_local_used, NULL,
     "int: bytes of the local arena that are allocated.", NULL},
    {"_local_room", iris_py_context_local_room, NULL,
     "int: the most that the local arena can give now in one piece.", NULL},
    {"ranks", context_get_ranks, NULL,
     "tuple of int: of a group, or of survivors, the ranks' numbers in the context that they come "
     "from; else all ranks.",
     NULL},
    {"_run_key", iris_py_context_run_key, NULL, "str: what the ranks met by.", NULL},
    {"closed", context_get_closed, NULL, "bool: whether close() was called.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot context_slots[] = {
    {Py_tp_doc, (void *)context_doc},
    {Py_tp_new, context_new},
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_traverse, context_traverse},
    {Py_tp_clear, context_clear},
    {Py_tp_methods, context_methods},
    {Py_tp_getset, context_getset},
    {Py_tp_repr, context_repr},
    {0, NULL},
};

PyType_Spec iris_py_context_spec = {
    .name = "iris_c._C.Context",
    .basicsize = sizeof(struct iris_py_context),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = context_slots,
};
