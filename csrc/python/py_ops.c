/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Checks of configs, and facts about the build, as functions of the extension module.
 */
#include "py_ops.h"

#include <string.h>

#include "device/device.h"
#include "kernels/cpu/gemm_host.h"

/* ---- configs ---- */

PyDoc_STRVAR(config_validate_doc,
             "_config_validate($module, fields, world_size, /)\n--\n\n"
             "Check a config's tuple; ValueError names the field and its value.");

static PyObject *ops_config_validate(PyObject *module, PyObject *args)
{
    struct iris_config config;
    enum iris_status status;
    PyObject *fields;
    int world_size;

    if (!PyArg_ParseTuple(args, "Oi:_config_validate", &fields, &world_size) ||
        iris_py_config_from_tuple(fields, &config) < 0)
        return NULL;
    status = iris_config_validate(&config, world_size);
    if (status != IRIS_OK)
        return iris_py_raise(iris_py_state_of_module(module), status);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(auto_config_doc,
             "_auto_config($module, op, M, N, K, dtype, world_size, arch, /)\n--\n\n"
             "What iris_c.ops.auto_config returns, as a tuple.");

static PyObject *ops_auto_config(PyObject *module, PyObject *args)
{
    struct iris_py_state *state = iris_py_state_of_module(module);
    struct iris_config config = {0};
    enum iris_operation operation;
    const char *name, *arch;
    PyObject *dtype_value;
    enum iris_dtype dtype;
    enum iris_status status;
    long long M, N, K;
    int world_size;

    if (!PyArg_ParseTuple(args, "sLLLOis:auto_config", &name, &M, &N, &K, &dtype_value, &world_size,
                          &arch) ||
        iris_py_operation("op", name, &operation) < 0 ||
        iris_py_dtype(state, dtype_value, &dtype) < 0)
        return NULL;
    status = iris_auto_config(operation, M, N, K, dtype, world_size, arch, &config);
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    return iris_py_config_to_tuple(&config);
}

PyDoc_STRVAR(
    explain_doc,
    "_explain($module, op, M, N, K, dtype, world_size, arch, fields, /)\n--\n\n"
    "What iris_c.ops.explain shows: a list of (field, chosen, candidates), a candidate being\n"
    "(value, seconds, {term: seconds}).");

static PyObject *candidate_object(const struct iris_decision *decision,
                                  const struct iris_candidate *candidate, bool is_variant)
{
    PyObject *terms = PyDict_New();

    for (int i = 0; terms && i < IRIS_MAX_TERMS && decision->terms[i]; i++) {
        PyObject *seconds = PyFloat_FromDouble(candidate->terms[i]);

        if (!seconds || PyDict_SetItemString(terms, decision->terms[i], seconds) < 0)
            Py_CLEAR(terms);
        Py_XDECREF(seconds);
    }
    if (!terms)
        return NULL;
    if (is_variant)
        return Py_BuildValue("sdN", iris_variant_name((enum iris_variant)candidate->value),
                             candidate->seconds, terms);
    return Py_BuildValue("idN", (int)candidate->value, candidate->seconds, terms);
}

static PyObject *decision_object(const struct iris_decision *decision)
{
    const bool is_variant = strcmp(decision->field, "all_reduce_variant") == 0;
    PyObject *candidates = PyList_New(0);

    for (int i = 0; candidates && i < decision->count; i++) {
        PyObject *item = candidate_object(decision, &decision->candidates[i], is_variant);

        if (!item || PyList_Append(candidates, item) < 0)
            Py_CLEAR(candidates);
        Py_XDECREF(item);
    }
    return candidates ? Py_BuildValue("siN", decision->field, decision->chosen, candidates) : NULL;
}

static PyObject *ops_explain(PyObject *module, PyObject *args)
{
    struct iris_py_state *state = iris_py_state_of_module(module);
    struct iris_explanation explanation;
    struct iris_config config;
    enum iris_operation operation;
    const char *name, *arch;
    PyObject *dtype_value, *fields, *list;
    enum iris_dtype dtype;
    enum iris_status status;
    long long M, N, K;
    int world_size;

    if (!PyArg_ParseTuple(args, "sLLLOisO:explain", &name, &M, &N, &K, &dtype_value, &world_size,
                          &arch, &fields) ||
        iris_py_operation("op", name, &operation) < 0 ||
        iris_py_dtype(state, dtype_value, &dtype) < 0 ||
        iris_py_config_from_tuple(fields, &config) < 0)
        return NULL;
    status = iris_explain(operation, M, N, K, dtype, world_size, arch, &config, &explanation);
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    list = PyList_New(0);
    for (int i = 0; list && i < explanation.count; i++) {
        PyObject *item = decision_object(&explanation.decisions[i]);

        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* ---- facts about the build and the machine ---- */

PyDoc_STRVAR(backends_doc, "backends($module, /)\n--\n\n"
                           "Names of the backends that this build has.");

static PyObject *ops_backends(PyObject *IRIS_UNUSED(module), PyObject *IRIS_UNUSED(ignored))
{
    static const char *const names[] = {"hip", "cuda", "cpu"};
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list && i < sizeof names / sizeof names[0]; i++) {
        const struct iris_device_ops *device;
        PyObject *name;

        if (iris_device_find(names[i], &device) != IRIS_OK)
            continue;
        name = PyUnicode_FromString(names[i]);
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

PyDoc_STRVAR(cpu_isa_doc, "cpu_isa($module, /)\n--\n\n"
                          "The instruction set that the cpu backend computes with.");

static PyObject *ops_cpu_isa(PyObject *IRIS_UNUSED(module), PyObject *IRIS_UNUSED(ignored))
{
    return PyUnicode_FromString(iris_gemm_isa());
}

PyDoc_STRVAR(devices_doc,
             "_devices($module, backend, /)\n--\n\n"
             "(driver, [(name, arch, pci, compute units, (reaches the first, ...)), ...]) of a "
             "GPU backend;\nNone: it has no driver, or its driver does not answer.");

static PyObject *device_tuple(const struct iris_device_report *report, int number)
{
    const struct iris_device_facts *facts = &report->devices[number];
    PyObject *reaches = PyTuple_New(report->count);

    for (int i = 0; reaches && i < report->count; i++)
        if (PyTuple_SetItem(reaches, i, PyBool_FromLong(facts->reaches[i])) < 0)
            Py_CLEAR(reaches);
    if (!reaches)
        return NULL;
    return Py_BuildValue("(sssiN)", facts->name, facts->arch, facts->pci, facts->compute_units,
                         reaches);
}

static PyObject *ops_devices(PyObject *module, PyObject *backend)
{
    struct iris_device_report report = {.count = 0};
    const struct iris_device_ops *device;
    const char *name = PyUnicode_AsUTF8AndSize(backend, NULL);
    enum iris_status status;
    PyObject *list;

    if (!name)
        return NULL;
    status = iris_device_find(name, &device);
    if (status != IRIS_OK)
        return iris_py_raise(iris_py_state_of_module(module), status);
    if (!device->report)
        Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS
    status = device->report(&report);
    Py_END_ALLOW_THREADS
    if (status != IRIS_OK)
        Py_RETURN_NONE;
    list = PyList_New(0);
    for (int i = 0; list && i < report.count; i++) {
        PyObject *facts = device_tuple(&report, i);

        if (!facts || PyList_Append(list, facts) < 0)
            Py_CLEAR(list);
        Py_XDECREF(facts);
    }
    return list ? Py_BuildValue("(sN)", report.driver, list) : NULL;
}

PyMethodDef iris_py_ops_methods[] = {
    {"backends", ops_backends, METH_NOARGS, backends_doc},
    {"cpu_isa", ops_cpu_isa, METH_NOARGS, cpu_isa_doc},
    {"_devices", ops_devices, METH_O, devices_doc},
    {"_config_validate", ops_config_validate, METH_VARARGS, config_validate_doc},
    {"_auto_config", ops_auto_config, METH_VARARGS, auto_config_doc},
    {"_explain", ops_explain, METH_VARARGS, explain_doc},
    {NULL, NULL, 0, NULL},
};
