/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * iris_c.FusedWorkspace: attributes read from the core on each access, nothing stored twice.
 */
#include "py_workspace.h"

#include <string.h>
#include <structmember.h>

#include "py_common.h"
#include "py_context_object.h"
#include "py_values.h"
#include "py_wait.h"

static PyObject *wrap(PyTypeObject *type, struct iris_workspace *workspace)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct iris_py_workspace *self = (struct iris_py_workspace *)allocate(type, 0);

    if (!self) {
        iris_workspace_release(workspace);
        return NULL;
    }
    self->workspace = workspace;
    return (PyObject *)self;
}

PyObject *iris_py_workspace_new(const struct iris_py_state *state, struct iris_workspace *workspace)
{
    return wrap(state->workspace_type, workspace);
}

PyObject *iris_py_context_workspace(const struct iris_py_state *state, struct iris_py_context *self,
                                    enum iris_operation operation)
{
    struct iris_workspace *workspace;
    enum iris_status status;
    PyObject *made;

    if (self->workspaces[operation])
        return Py_NewRef(self->workspaces[operation]);
    status = iris_context_workspace(self->ctx, operation, &workspace);
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    made = iris_py_workspace_new(state, iris_workspace_retain(workspace));
    if (made && !self->workspaces[operation]) /* making it may have run code that asked for it */
        self->workspaces[operation] = Py_NewRef(made);
    Py_XDECREF(made);
    return made ? Py_NewRef(self->workspaces[operation]) : NULL;
}

static PyObject *workspace_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ctx", "operation", NULL};
    const struct iris_py_state *state = iris_py_state_of_type(type);
    struct iris_workspace *workspace = NULL;
    enum iris_operation operation = IRIS_OP_MATMUL_ALL_REDUCE;
    PyObject *ctx, *name = NULL;
    enum iris_status status;

    if (!state ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:FusedWorkspace", names, &ctx, &name))
        return NULL;
    if (!PyObject_TypeCheck(ctx, state->context_type)) {
        iris_py_type_error("ctx", "an iris_c.Context", ctx);
        return NULL;
    }
    if (name && iris_py_operation("operation", name, &operation) < 0)
        return NULL;
    status = iris_workspace_create(((struct iris_py_context *)ctx)->ctx, operation, &workspace);
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    return wrap(type, workspace);
}

static void workspace_dealloc(PyObject *object)
{
    struct iris_py_workspace *self = (struct iris_py_workspace *)object;

    if (self->weak_references)
        PyObject_ClearWeakRefs(object);
    if (self->workspace) {
        Py_BEGIN_ALLOW_THREADS
        iris_workspace_release(self->workspace);
        Py_END_ALLOW_THREADS
    }
    iris_py_free(object);
}

/* ---- attributes ---- */

static int read_info(PyObject *object, struct iris_workspace_info *out)
{
    struct iris_workspace *workspace = ((struct iris_py_workspace *)object)->workspace;
    enum iris_status status;

    IRIS_PY_BEGIN_WAIT
    status = iris_workspace_info(workspace, out);
    IRIS_PY_END_WAIT(status)
    if (status == IRIS_OK)
        return 0;
    iris_py_raise_for(object, status);
    return -1;
}

/* Whether a call has been made or prepared: shape and dtype mean nothing before. */
static bool has_description(const struct iris_workspace_info *info)
{
    return info->shape[0] != 0 || info->shape[1] != 0 || info->shape[2] != 0;
}

static PyObject *dtype_or_none(PyObject *object, const struct iris_workspace_info *info)
{
    const struct iris_py_state *state;

    if (!has_description(info))
        Py_RETURN_NONE;
    state = iris_py_state_of_type(Py_TYPE(object));
    return state ? iris_py_dtype_object(state, info->dtype) : NULL;
}

static PyObject *workspace_get_operation(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    if (read_info(object, &info) < 0)
        return NULL;
    return PyUnicode_FromString(iris_operation_name(info.operation));
}

static PyObject *workspace_get_shape(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    return read_info(object, &info) < 0 ? NULL : iris_py_int64_tuple(info.shape, 3);
}

static PyObject *workspace_get_dtype(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    return read_info(object, &info) < 0 ? NULL : dtype_or_none(object, &info);
}

static PyObject *workspace_get_world_size(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    return read_info(object, &info) < 0 ? NULL : PyLong_FromLong(info.world_size);
}

static PyObject *workspace_get_variant(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    if (read_info(object, &info) < 0)
        return NULL;
    return PyUnicode_FromString(iris_variant_name(info.variant));
}

static PyObject *workspace_get_call_counter(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    return read_info(object, &info) < 0 ? NULL : PyLong_FromUnsignedLong(info.call_counter);
}

static PyObject *workspace_get_nbytes(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    return read_info(object, &info) < 0 ? NULL : PyLong_FromSize_t(info.nbytes);
}

static PyObject *workspace_get_prepared(PyObject *object, void *IRIS_UNUSED(closure))
{
    struct iris_workspace_info info;

    return read_info(object, &info) < 0 ? NULL : PyBool_FromLong(info.prepared);
}

static PyObject *workspace_repr(PyObject *object)
{
    struct iris_workspace_info info;
    PyObject *shape = NULL;
    PyObject *repr = NULL;

    if (iris_workspace_is_inherited(((struct iris_py_workspace *)object)->workspace))
        return PyUnicode_FromString("<iris_c.FusedWorkspace of the parent process>");
    if (read_info(object, &info) < 0)
        return NULL;
    shape = iris_py_int64_tuple(info.shape, 3);
    if (shape)
        repr = PyUnicode_FromFormat(
            "iris_c.FusedWorkspace(operation='%s', shape=%R, dtype=%s, world_size=%d, "
            "variant='%s', call_counter=%u, nbytes=%zu, prepared=%s)",
            iris_operation_name(info.operation), shape,
            has_description(&info) ? iris_dtype_name(info.dtype) : "None", info.world_size,
            iris_variant_name(info.variant), (unsigned)info.call_counter, info.nbytes,
            info.prepared ? "True" : "False");
    Py_XDECREF(shape);
    return repr;
}

/* ---- methods ---- */

PyDoc_STRVAR(workspace_matches_doc,
             "matches($self, /, operation, shape, dtype, world_size, variant='')\n--\n\n"
             "Return whether the last call was of this kind and the workspace is prepared.\n"
             "\n"
             "A workspace serves other calls too: the next call prepares it for them.\n\n"
             "Parameters\n----------\n"
             "operation : str\n"
             "shape : tuple of int\n    (M, N, K).\n"
             "dtype : torch.dtype, numpy.dtype or str\n"
             "world_size : int\n"
             "variant : str\n    An empty string matches every variant.");

static PyObject *workspace_matches(PyObject *object, PyTypeObject *cls, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct iris_py_signature signature = {
        .function = "matches",
        .count = 5,
        .required = 4,
        .positional = 5,
        .names = {IRIS_PY_NAME_operation, IRIS_PY_NAME_shape, IRIS_PY_NAME_dtype,
                  IRIS_PY_NAME_world_size, IRIS_PY_NAME_variant},
    };
    const struct iris_py_state *state = PyType_GetModuleState(cls);
    PyObject *values[IRIS_PY_MAX_PARAMETERS];
    struct iris_workspace_info info;
    int64_t shape[IRIS_MAX_DIMS];
    enum iris_dtype dtype;
    const char *operation;
    const char *variant = "";
    int ndim, world_size = 0;
    bool equal;

    if (iris_py_parse(state, &signature, args, nargs, kwnames, values) < 0)
        return NULL;
    operation = iris_py_text("operation", values[0]);
    if (operation && values[4])
        variant = iris_py_text("variant", values[4]);
    if (!operation || !variant || iris_py_shape("shape", values[1], &ndim, shape) < 0 ||
        iris_py_dtype(state, values[2], &dtype) < 0 ||
        iris_py_int("world_size", values[3], &world_size) < 0 || read_info(object, &info) < 0)
        return NULL;
    equal = info.prepared && ndim == 3 && shape[0] == info.shape[0] && shape[1] == info.shape[1] &&
            shape[2] == info.shape[2] && dtype == info.dtype && world_size == info.world_size &&
            strcmp(operation, iris_operation_name(info.operation)) == 0 &&
            (variant[0] == '\0' || strcmp(variant, iris_variant_name(info.variant)) == 0);
    return PyBool_FromLong(equal);
}

PyDoc_STRVAR(workspace_reset_doc,
             "reset($self, /)\n--\n\n"
             "Mark the workspace as not prepared: the next call agrees with the peers anew.");

static PyObject *workspace_reset(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    struct iris_workspace *workspace = ((struct iris_py_workspace *)object)->workspace;
    enum iris_status status;

    IRIS_PY_BEGIN_WAIT
    status = iris_workspace_reset(workspace);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(workspace_clear_doc,
             "clear($self, /)\n--\n\n"
             "Give the buffers back to the heap and set call_counter to 0. Not collective.");

static PyObject *workspace_clear(PyObject *object, PyObject *IRIS_UNUSED(ignored))
{
    struct iris_workspace *workspace = ((struct iris_py_workspace *)object)->workspace;
    enum iris_status status;

    IRIS_PY_BEGIN_WAIT
    status = iris_workspace_clear(workspace);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(workspace_set_calls_doc, "_set_calls($self, calls, /)\n--\n\n"
                                      "Test hook: make `calls` the number of completed calls.\n\n"
                                      "On all ranks with one value, between two barriers.");

static PyObject *workspace_set_calls(PyObject *object, PyObject *value)
{
    struct iris_workspace *workspace = ((struct iris_py_workspace *)object)->workspace;
    enum iris_status status;
    int64_t calls;

    if (iris_py_int64("calls", value, &calls) < 0)
        return NULL;
    if (calls < 0) {
        PyErr_Format(PyExc_ValueError, "calls: expected >= 0, got %lld", (long long)calls);
        return NULL;
    }
    IRIS_PY_BEGIN_WAIT
    status = iris_workspace_set_calls(workspace, (uint64_t)calls);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}

static PyMethodDef workspace_methods[] = {
    {"matches", (PyCFunction)(void (*)(void))workspace_matches,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, workspace_matches_doc},
    {"reset", workspace_reset, METH_NOARGS, workspace_reset_doc},
    {"clear", workspace_clear, METH_NOARGS, workspace_clear_doc},
    {"_set_calls", workspace_set_calls, METH_O, workspace_set_calls_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef workspace_getset[] = {
    {"operation", workspace_get_operation, NULL, "str: the operation it belongs to.", NULL},
    {"shape", workspace_get_shape, NULL,
     "tuple of int: (M, N, K) of the last call, zeros before the first.", NULL},
    {"dtype", workspace_get_dtype, NULL,
     "Element type of the last call: a torch.dtype if torch has been imported, else its name; "
     "None before the first.",
     NULL},
    {"world_size", workspace_get_world_size, NULL, "int: number of ranks.", NULL},
    {"variant", workspace_get_variant, NULL, "str: algorithm of the last call, '' before.", NULL},
    {"call_counter", workspace_get_call_counter, NULL,
     "int: signal value of the last completed call, 0 before the first.", NULL},
    {"nbytes", workspace_get_nbytes, NULL, "int: heap bytes held.", NULL},
    {"prepared", workspace_get_prepared, NULL,
     "bool: whether the ranks have agreed on buffers and still hold them.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef workspace_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct iris_py_workspace, weak_references),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    workspace_doc,
    "FusedWorkspace(ctx, operation='matmul_all_reduce')\n--\n\n"
    "Buffers and signals that an operation keeps between its calls.\n\n"
    "An operation returns the workspace that it used. A new workspace holds nothing; the\n"
    "first call allocates, on all ranks together. One workspace serves calls of any shapes\n"
    "and variants of its operation: it grows when needed and never shrinks by itself.");

static PyType_Slot workspace_slots[] = {
    {Py_tp_doc, (void *)workspace_doc}, {Py_tp_new, workspace_new},
    {Py_tp_dealloc, workspace_dealloc}, {Py_tp_methods, workspace_methods},
    {Py_tp_getset, workspace_getset},   {Py_tp_members, workspace_members},
    {Py_tp_repr, workspace_repr},       {0, NULL},
};

PyType_Spec iris_py_workspace_spec = {
    .name = "iris_c.FusedWorkspace",
    .basicsize = sizeof(struct iris_py_workspace),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = workspace_slots,
};
