/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Configs: from the tuple that FusedConfig and ccl.Config make of themselves, and back.
 */
#include "py_config.h"

#include <string.h>

#include "py_common.h"
#include "py_values.h"

static int config_field(const char *name, PyObject *value, int32_t *out)
{
    int number = 0;

    if (value == Py_None)
        return 0;
    if (iris_py_int(name, value, &number) < 0)
        return -1;
    if (number <= 0) {
        PyErr_Format(PyExc_ValueError, "%s: expected > 0 or None, got %d", name, number);
        return -1;
    }
    *out = number;
    return 0;
}

static int config_variant(PyObject *value, enum iris_variant *out)
{
    const char *name;

    if (value == Py_None)
        return 0;
    name = iris_py_text("all_reduce_variant", value);
    if (!name)
        return -1;
    if (name[0] == '\0' || !iris_variant_from_name(name, out)) {
        PyErr_Format(PyExc_ValueError,
                     "all_reduce_variant: expected atomic, spinlock, one_shot, two_shot, ring, for "
                     "collectives also ll, ll_two_shot, one_shot_legacy, or None, got '%.100s'",
                     name);
        return -1;
    }
    return 0;
}

static int config_layout(PyObject *value, bool *m_contiguous)
{
    const char *name;

    if (value == Py_None)
        return 0;
    name = iris_py_text("staged_a_layout", value);
    if (!name)
        return -1;
    *m_contiguous = strcmp(name, "m_contiguous") == 0;
    if (*m_contiguous || strcmp(name, "k_contiguous") == 0)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "staged_a_layout: expected k_contiguous, m_contiguous or None, got '%.100s'",
                 name);
    return -1;
}

static int config_form(PyObject *value, enum iris_form *out)
{
    const char *name;

    if (value == Py_None)
        return 0;
    name = iris_py_text("form", value);
    if (!name)
        return -1;
    if (name[0] == '\0' || !iris_form_from_name(name, out)) {
        PyErr_Format(PyExc_ValueError, "form: expected tiles, decode, plain or None, got '%.100s'",
                     name);
        return -1;
    }
    return 0;
}

static PyObject *choice_object(enum iris_choice choice)
{
    return choice == IRIS_OPEN ? Py_None : choice == IRIS_YES ? Py_True : Py_False;
}

static int config_choice(const char *name, PyObject *value, enum iris_choice *out)
{
    if (value == Py_None)
        return 0;
    if (!PyBool_Check(value))
        return iris_py_type_error(name, "a bool or None", value);
    *out = value == Py_True ? IRIS_YES : IRIS_NO;
    return 0;
}

int iris_py_config_from_tuple(PyObject *tuple, struct iris_config *out)
{
    struct iris_config config = {0};
    struct {
        const char *name;
        int32_t *target;
    } const fields[] = {
        {"block_size_m", &config.block_size_m},
        {"block_size_n", &config.block_size_n},
        {"block_size_k", &config.block_size_k},
        {"group_size_m", &config.group_size_m},
        {"num_sms", &config.num_sms},
        {"num_xcds", &config.num_xcds},
        {"num_fetch_sms", &config.num_fetch_sms},
        {"k_per_flag", &config.k_per_flag},
    };
    const int count = sizeof fields / sizeof fields[0];

    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != count + 6) {
        PyErr_Format(PyExc_TypeError, "config: expected %d fields", count + 6);
        return -1;
    }
    for (int i = 0; i < count; i++) /* items are borrowed from the tuple */
        if (config_field(fields[i].name, PyTuple_GetItem(tuple, i), fields[i].target) < 0)
            return -1;
    if (config_variant(PyTuple_GetItem(tuple, count), &config.variant) < 0 ||
        config_layout(PyTuple_GetItem(tuple, count + 1), &config.m_contiguous) < 0 ||
        config_choice("overlap", PyTuple_GetItem(tuple, count + 2), &config.overlap) < 0 ||
        config_form(PyTuple_GetItem(tuple, count + 3), &config.form) < 0 ||
        config_choice("batch_invariant", PyTuple_GetItem(tuple, count + 4),
                      &config.batch_invariant) < 0 ||
        config_choice("prefetch_b", PyTuple_GetItem(tuple, count + 5), &config.prefetch_b) < 0)
        return -1;
    *out = config;
    return 0;
}

PyObject *iris_py_config_to_tuple(const struct iris_config *config)
{
    return Py_BuildValue(
        "(iiiiiiiizsOzOO)", config->block_size_m, config->block_size_n, config->block_size_k,
        config->group_size_m, config->num_sms, config->num_xcds, config->num_fetch_sms,
        config->k_per_flag,
        config->variant == IRIS_VARIANT_NONE ? NULL : iris_variant_name(config->variant),
        config->m_contiguous ? "m_contiguous" : "k_contiguous", choice_object(config->overlap),
        config->form == IRIS_FORM_NONE ? NULL : iris_form_name(config->form),
        choice_object(config->batch_invariant), choice_object(config->prefetch_b));
}

/* Whether an object of this type stays as it is: a FusedConfig or ccl.Config itself. One of a
 * subclass may answer differently each time. */
static bool is_frozen(PyTypeObject *type)
{
    PyObject *module = PyObject_GetAttrString((PyObject *)type, "__module__");
    const bool ours = module && PyUnicode_Check(module) &&
                      PyUnicode_CompareWithASCIIString(module, "iris_c.config") == 0;

    PyErr_Clear();
    Py_XDECREF(module);
    return ours;
}

int iris_py_config(struct iris_py_state *state, PyObject *value, struct iris_config *out)
{
    static const char kinds[] = "iris_c.FusedConfig, iris_c.ccl.Config or None";
    struct iris_py_config_entry *entry;
    PyObject *replaced;
    PyObject *tuple;
    int failed;

    for (int i = 0; i < IRIS_PY_CACHE_SIZE; i++) {
        if (state->configs[i].object == value) {
            *out = state->configs[i].config;
            return 0;
        }
    }
    if (PyType_Check(value)) /* the class itself, without its parentheses */
        return iris_py_type_error("config", kinds, value);
    tuple = PyObject_CallMethodObjArgs(value, state->names[IRIS_PY_NAME__as_tuple], NULL);
    if (!tuple) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return iris_py_type_error("config", kinds, value);
    }
    failed = iris_py_config_from_tuple(tuple, out);
    Py_DECREF(tuple);
    if (failed)
        return -1;
    if (!is_frozen(Py_TYPE(value)))
        return 0;
    entry = &state->configs[state->next_config++ % IRIS_PY_CACHE_SIZE];
    replaced = entry->object;
    Py_INCREF(value);
    entry->object = value;
    entry->config = *out;
    Py_XDECREF(replaced); /* last: it may run Python code */
    return 0;
}
