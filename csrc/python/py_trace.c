/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The rank's trace as bytes; what they mean is told in Python (iris_c/tracing.py).
 */
#include "py_trace.h"

#include "py_common.h"
#include "py_context_object.h"
#include "py_wait.h"

const char iris_py_trace_doc[] =
    "_trace($self, /)\n--\n\n"
    "(records, dropped, clock_offset, round_trip, ticks_per_second). Collective.\n\n"
    "Waits for the device. `records`: struct iris_trace_record, one after the other.";

PyObject *iris_py_context_trace(PyObject *object, PyObject *IRIS_UNUSED(unused))
{
    struct iris_context *ctx = ((struct iris_py_context *)object)->ctx;
    const struct iris_py_state *state = iris_py_state_of_type(Py_TYPE(object));
    struct iris_trace_info info = {0};
    enum iris_status status;
    PyObject *records;
    void *data;

    IRIS_PY_BEGIN_WAIT
    status = iris_trace_settle(ctx, &info);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise(state, status);
    records = PyBytes_FromStringAndSize(
        NULL, (Py_ssize_t)(info.count * sizeof(struct iris_trace_record)));
    if (!records)
        return NULL;
    data = PyBytes_AsString(records);
    IRIS_PY_BEGIN_WAIT
    status = iris_trace_read(ctx, data, info.count);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK) {
        Py_DECREF(records);
        return iris_py_raise(state, status);
    }
    return Py_BuildValue("(NnLKK)", records, (Py_ssize_t)info.dropped, (long long)info.clock_offset,
                         (unsigned long long)info.round_trip,
                         (unsigned long long)info.ticks_per_second);
}

const char iris_py_trace_clear_doc[] = "_trace_clear($self, /)\n--\n\n"
                                       "Forget all records. Waits for the device.";

PyObject *iris_py_context_trace_clear(PyObject *object, PyObject *IRIS_UNUSED(unused))
{
    struct iris_context *ctx = ((struct iris_py_context *)object)->ctx;
    enum iris_status status;

    IRIS_PY_BEGIN_WAIT
    status = iris_trace_clear(ctx);
    IRIS_PY_END_WAIT(status)
    if (status != IRIS_OK)
        return iris_py_raise_for(object, status);
    Py_RETURN_NONE;
}
