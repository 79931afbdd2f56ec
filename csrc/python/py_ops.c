/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Checks of configs, and facts about the build, as functions of the extension module.
 */
#include "py_methods.h"

#include <string.h>

#include "device/device.h"
#include "kernels/cpu/gemm_host.h"
#include "py_common.h"
#include "py_config.h"
#include "py_values.h"

/* ---- configs ---- */

PyDoc_STRVAR(config_validate_doc,
             "_config_validate($module, fields, world_size, /)\n--\n\n"
             "Check a config's tuple; ValueError names the field and its value.");

static PyObject *ops_config_validate(PyObject *module, PyObject *args)
{
    PyObject *fields, *world_size_value;
    struct iris_config config;
    enum iris_status status;
    int world_size;

    if (!PyArg_ParseTuple(args, "OO:_config_validate", &fields, &world_size_value) ||
        iris_py_config_from_tuple(fields, &config) < 0 ||
        iris_py_int("world_size", world_size_value, &world_size) < 0)
        return NULL;
    status = iris_config_validate(&config, world_size);
    if (status != IRIS_OK)
        return iris_py_raise(iris_py_state_of_module(module), status);
    Py_RETURN_NONE;
}

/* A product on a chip that need not be there. */
struct product {
    enum iris_operation operation;
    int64_t M, N, K;
    enum iris_dtype dtype;
    int world_size;
    const char *arch; /* belongs to its value */
};

/* values: op, M, N, K, dtype, world_size, arch. */
static int read_product(const struct iris_py_state *state, PyObject *const values[7],
                        struct product *out)
{
    if (iris_py_operation("op", values[0], &out->operation) < 0 ||
        iris_py_int64("M", values[1], &out->M) < 0 || iris_py_int64("N", values[2], &out->N) < 0 ||
        iris_py_int64("K", values[3], &out->K) < 0 ||
        iris_py_dtype(state, values[4], &out->dtype) < 0 ||
        iris_py_int("world_size", values[5], &out->world_size) < 0)
        return -1;
    out->arch = iris_py_text("arch", values[6]);
    return out->arch ? 0 : -1;
}

PyDoc_STRVAR(auto_config_doc,
             "_auto_config($module, op, M, N, K, dtype, world_size, arch, /)\n--\n\n"
             "What iris_c.ops.auto_config returns, as a tuple.");

static PyObject *ops_auto_config(PyObject *module, PyObject *args)
{
    struct iris_py_state *state = iris_py_state_of_module(module);
    struct iris_config config = {0};
    enum iris_status status;
    PyObject *v[7];
    struct product p;

    if (!PyArg_ParseTuple(args, "OOOOOOO:auto_config", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
                          &v[6]) ||
        read_product(state, v, &p) < 0)
        return NULL;
    status = iris_auto_config(p.operation, p.M, p.N, p.K, p.dtype, p.world_size, p.arch, &config);
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
                                  const struct iris_candidate *candidate)
{
    const char *name = iris_decision_value_name(decision, candidate->value);
    PyObject *terms = PyDict_New();

    for (int i = 0; terms && i < IRIS_MAX_TERMS && decision->terms[i]; i++) {
        PyObject *seconds = PyFloat_FromDouble(candidate->terms[i]);

        if (!seconds || PyDict_SetItemString(terms, decision->terms[i], seconds) < 0)
            Py_CLEAR(terms);
        Py_XDECREF(seconds);
    }
    if (!terms)
        return NULL;
    if (name)
        return Py_BuildValue("sdN", name, candidate->seconds, terms);
    return Py_BuildValue("idN", (int)candidate->value, candidate->seconds, terms);
}

static PyObject *decision_object(const struct iris_decision *decision)
{
    PyObject *candidates = PyList_New(0);

    for (int i = 0; candidates && i < decision->count; i++) {
        PyObject *item = candidate_object(decision, &decision->candidates[i]);

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
    PyObject *v[7], *fields, *list;
    enum iris_status status;
    struct product p;

    if (!PyArg_ParseTuple(args, "OOOOOOOO:explain", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
                          &fields) ||
        read_product(state, v, &p) < 0 || iris_py_config_from_tuple(fields, &config) < 0)
        return NULL;
    status = iris_explain(p.operation, p.M, p.N, p.K, p.dtype, p.world_size, p.arch, &config,
                          &explanation);
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

PyDoc_STRVAR(log_choices_doc,
             "_log_choices($module, on, /)\n--\n\n"
             "Whether calls write to stderr what they have chosen, and among what.");

/* Called by whichever thread chooses, without the GIL. */
static void write_choice(const char *text)
{
    const PyGILState_STATE held = PyGILState_Ensure();

    /* A piece at a time: PySys_WriteStderr cuts what is longer. */
    for (size_t at = 0, length = strlen(text); at < length; at += 512)
        PySys_WriteStderr("%.512s", text + at);
    PySys_WriteStderr("\n");
    PyGILState_Release(held);
}

static PyObject *ops_log_choices(PyObject *IRIS_UNUSED(module), PyObject *on)
{
    iris_log_choices(on == Py_True ? write_choice : NULL);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_batch_invariant_doc,
             "_set_batch_invariant($module, invariant, /)\n--\n\n"
             "Whether configs that leave batch_invariant open mean True; what it was before.");

static PyObject *set_meaning(const char *name, PyObject *value, bool before, void (*set)(bool))
{
    if (!PyBool_Check(value)) {
        (void)iris_py_type_error(name, "a bool", value);
        return NULL;
    }
    set(value == Py_True);
    return PyBool_FromLong(before);
}

static PyObject *ops_set_batch_invariant(PyObject *IRIS_UNUSED(module), PyObject *invariant)
{
    return set_meaning("invariant", invariant, iris_is_batch_invariant(), iris_set_batch_invariant);
}

PyDoc_STRVAR(set_prefetch_b_doc,
             "_set_prefetch_b($module, prefetch, /)\n--\n\n"
             "Whether configs that leave prefetch_b open mean True; what it was before.");

static PyObject *ops_set_prefetch_b(PyObject *IRIS_UNUSED(module), PyObject *prefetch)
{
    return set_meaning("prefetch", prefetch, iris_prefetches_b(), iris_set_prefetch_b);
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
    const char *name = iris_py_text("backend", backend);
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
    {"_set_batch_invariant", ops_set_batch_invariant, METH_O, set_batch_invariant_doc},
    {"_set_prefetch_b", ops_set_prefetch_b, METH_O, set_prefetch_b_doc},
    {"_log_choices", ops_log_choices, METH_O, log_choices_doc},
    {NULL, NULL, 0, NULL},
};
