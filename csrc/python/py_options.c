/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The arguments of Context().
 */
#include "py_options.h"

#include "py_values.h"

void iris_py_options_release(struct iris_py_options *given)
{
    Py_CLEAR(given->run_key_bytes);
    Py_CLEAR(given->kernel_directory_bytes);
}

/* A text that came from bytes; `value` NULL: *out keeps what it holds. */
static int read_bytes(const char *argument, PyObject *value, PyObject **bytes, const char **out)
{
    if (!value)
        return 0;
    *bytes = iris_py_bytes_of_text(argument, value);
    if (!*bytes)
        return -1;
    *out = PyBytes_AsString(*bytes);
    return 0;
}

int iris_py_options_read(struct iris_py_options *given, struct iris_context_options *out,
                         int64_t ranks[IRIS_MAX_RANKS])
{
    int64_t heap_size = (int64_t)out->heap_size, local_size = (int64_t)out->local_size;

    if (iris_py_int64("heap_size", given->heap_size, &heap_size) < 0 ||
        iris_py_int64("local_size", given->local_size, &local_size) < 0 ||
        iris_py_int("rank", given->rank, &out->rank) < 0 ||
        iris_py_int("world_size", given->world_size, &out->world_size) < 0 ||
        iris_py_int("local_rank", given->local_rank, &out->local_rank) < 0 ||
        iris_py_double("timeout", given->timeout, &out->timeout) < 0 ||
        iris_py_int("num_threads", given->num_threads, &out->num_threads) < 0 ||
        iris_py_bool("debug", given->debug, &out->debug) < 0 ||
        read_bytes("run_key", given->run_key, &given->run_key_bytes, &out->run_key) < 0 ||
        read_bytes("kernel_directory", given->kernel_directory, &given->kernel_directory_bytes,
                   &out->kernel_directory) < 0)
        return -1;
    if (given->backend && given->backend != Py_None) {
        out->backend = iris_py_text("backend", given->backend);
        if (!out->backend)
            return -1;
    }
    if (heap_size <= 0) {
        PyErr_Format(PyExc_ValueError, "heap_size: expected > 0 bytes, got %lld",
                     (long long)heap_size);
        return -1;
    }
    if (local_size < 0) {
        PyErr_Format(PyExc_ValueError, "local_size: expected >= 0 bytes, got %lld",
                     (long long)local_size);
        return -1;
    }
    out->heap_size = (size_t)heap_size;
    out->local_size = (size_t)local_size;
    /* Numbers of ranks that are impossible are refused by the core. */
    if (given->ranks && given->ranks != Py_None && out->world_size >= 1 &&
        out->world_size <= IRIS_MAX_RANKS)
        return iris_py_int64s("ranks", given->ranks, out->world_size, ranks);
    return 0;
}
