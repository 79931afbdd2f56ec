/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The question of the calling thread's innermost call.
 */
#include "wait.h"

#include <stddef.h>

static _Thread_local struct iris_interruptible *current;

void iris_interruptible_begin(struct iris_interruptible *call)
{
    call->interrupted = false;
    call->on_interrupt = NULL;
    call->outer = current;
    current = call;
}

void iris_interruptible_end(struct iris_interruptible *call)
{
    current = call->outer;
}

struct iris_on_interrupt iris_wait_on_interrupt(struct iris_on_interrupt on_interrupt)
{
    struct iris_on_interrupt before = {NULL, NULL};

    if (current != NULL) {
        before = (struct iris_on_interrupt){current->on_interrupt, current->on_interrupt_arg};
        current->on_interrupt = on_interrupt.function;
        current->on_interrupt_arg = on_interrupt.arg;
    }
    return before;
}

bool iris_wait_can_be_interrupted(void)
{
    return current != NULL;
}

struct iris_interruptible *iris_wait_suspend(void)
{
    struct iris_interruptible *suspended = current;

    current = NULL;
    return suspended;
}

void iris_wait_resume(struct iris_interruptible *suspended)
{
    current = suspended;
}

bool iris_wait_is_interrupted(void)
{
    struct iris_interruptible *call = current;

    if (call == NULL)
        return false;
    if (!call->interrupted && !call->may_wait(call)) {
        call->interrupted = true;
        if (call->on_interrupt != NULL)
            call->on_interrupt(call->on_interrupt_arg);
    }
    return call->interrupted;
}
