/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The question that waits of the core ask on Python's main thread.
 */
#include "py_wait.h"

#include <unistd.h>

#include "base/process.h"

/* Python runs handlers on the thread that has initialised it, which is the process's first; in a
 * forked child the thread that forked. A system call, so its answer is kept for each thread. */
static bool is_main_thread(void)
{
    static _Thread_local uint64_t known; /* 1 + the generation of the process it is known in */
    static _Thread_local bool is_main;
    const uint64_t generation = iris_process_generation();

    if (known != generation + 1) {
        is_main = gettid() == getpid();
        known = generation + 1;
    }
    return is_main;
}

static bool may_wait(struct iris_interruptible *call)
{
    struct iris_py_wait *wait = (struct iris_py_wait *)call;
    bool goes_on;

    PyEval_RestoreThread(wait->thread);
    goes_on = PyErr_CheckSignals() == 0;
    wait->thread = PyEval_SaveThread(); /* an exception stays with the thread */
    return goes_on;
}

void iris_py_wait_begin(struct iris_py_wait *wait)
{
    wait->call.may_wait = may_wait;
    wait->answers = is_main_thread();
    wait->thread = PyEval_SaveThread();
    if (wait->answers)
        iris_interruptible_begin(&wait->call);
}

enum iris_status iris_py_wait_end(struct iris_py_wait *wait, enum iris_status status)
{
    if (wait->answers) {
        iris_interruptible_end(&wait->call);
        if (wait->call.interrupted)
            status = IRIS_EINTERRUPTED;
    }
    PyEval_RestoreThread(wait->thread);
    return status;
}
