/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * An extension module for tests: Exporter(buf, len, itemsize, readonly, ndim, format, shape,
 * strides, suboffsets) hands out exactly this Py_buffer, whatever the consumer asks for. `buf` is
 * an address; format, shape, strides and suboffsets may be None, and are then left out.
 */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

enum { DIMENSIONS = 16 };

struct exporter {
    PyObject_HEAD
    Py_buffer view;
    char format[32];
    Py_ssize_t shape[DIMENSIONS], strides[DIMENSIONS], suboffsets[DIMENSIONS];
};

/* *target: NULL for None, else `values` filled from a tuple. */
static int fill(PyObject *tuple, Py_ssize_t *values, Py_ssize_t **target)
{
    const Py_ssize_t count = tuple == Py_None ? 0 : PyTuple_Size(tuple);

    *target = tuple == Py_None ? NULL : values;
    for (Py_ssize_t i = 0; i < count && i < DIMENSIONS; i++)
        values[i] = PyLong_AsSsize_t(PyTuple_GetItem(tuple, i));
    return PyErr_Occurred() ? -1 : 0;
}

static int exporter_init(PyObject *object, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    struct exporter *self = (struct exporter *)object;
    PyObject *shape, *strides, *suboffsets;
    const char *format;
    unsigned long long buf;

    if (!PyArg_ParseTuple(args, "KnnpizOOO", &buf, &self->view.len, &self->view.itemsize,
                          &self->view.readonly, &self->view.ndim, &format, &shape, &strides,
                          &suboffsets) ||
        fill(shape, self->shape, &self->view.shape) < 0 ||
        fill(strides, self->strides, &self->view.strides) < 0 ||
        fill(suboffsets, self->suboffsets, &self->view.suboffsets) < 0)
        return -1;
    self->view.buf = (void *)(uintptr_t)buf;
    if (format)
        PyOS_snprintf(self->format, sizeof self->format, "%s", format);
    self->view.format = format ? self->format : NULL;
    return 0;
}

static int exporter_getbuffer(PyObject *object, Py_buffer *view, int Py_UNUSED(flags))
{
    *view = ((struct exporter *)object)->view;
    Py_INCREF(object);
    view->obj = object;
    return 0;
}

static PyType_Slot slots[] = {
    {Py_tp_init, exporter_init},
    {Py_bf_getbuffer, exporter_getbuffer},
    {0, NULL},
};
static PyType_Spec spec = {
    .name = "buffer_exporter.Exporter",
    .basicsize = sizeof(struct exporter),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "buffer_exporter"};

PyMODINIT_FUNC PyInit_buffer_exporter(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = module ? PyType_FromSpec(&spec) : NULL;

    if (!type || PyModule_AddObjectRef(module, "Exporter", type) < 0)
        Py_CLEAR(module);
    Py_XDECREF(type);
    return module;
}
