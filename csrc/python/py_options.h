/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The arguments of Context(): struct iris_context_options of what Python gives.
 */
#ifndef IRIS_PY_OPTIONS_H
#define IRIS_PY_OPTIONS_H

#include "py_common.h"

/* As given by the caller, who holds them. */
struct iris_py_options {
    PyObject *heap_size, *local_size, *backend, *rank, *world_size, *local_rank, *timeout, *run_key,
        *num_threads, *debug, *kernel_directory, *ranks, *parent; /* borrowed, or NULL */
    PyObject *run_key_bytes, *kernel_directory_bytes;             /* owned */
};

/* Fills in what is given; the rest of *out stays. ranks[] gets what a group's members are called.
 * *out refers to texts that iris_py_options_release lets go, also after a failure. */
int iris_py_options_read(struct iris_py_options *given, struct iris_context_options *out,
                         int64_t ranks[IRIS_MAX_RANKS]);
void iris_py_options_release(struct iris_py_options *given);

#endif
