/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Calls of the core that may wait: without the GIL, and answering signals.
 *
 *     IRIS_PY_BEGIN_WAIT
 *     status = iris_context_barrier(ctx, stream);
 *     IRIS_PY_END_WAIT(status)
 *
 * On Python's main thread the handlers of signals that have come are run while the core waits
 * (base/wait.h). If one raises, the core ends the call, `status` becomes IRIS_EINTERRUPTED, and the
 * handler's exception is set; what the call made has been undone. A handler that does not raise
 * lets the wait go on.
 */
#ifndef IRIS_PY_WAIT_H
#define IRIS_PY_WAIT_H

#include "base/wait.h"
#include "py_common.h"

struct iris_py_wait {
    struct iris_interruptible call;
    PyThreadState *thread;
    bool answers; /* on the main thread */
};

void iris_py_wait_begin(struct iris_py_wait *wait);
enum iris_status iris_py_wait_end(struct iris_py_wait *wait, enum iris_status status);

#define IRIS_PY_BEGIN_WAIT                                                                         \
    {                                                                                              \
        struct iris_py_wait iris_py_wait;                                                          \
        iris_py_wait_begin(&iris_py_wait);
#define IRIS_PY_END_WAIT(status)                                                                   \
    (status) = iris_py_wait_end(&iris_py_wait, (status));                                          \
    }

#endif
