/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The device as a thread's current one.
 */
#include "gpu_device.h"

enum iris_status gpu_enter(const struct gpu_device *gpu, struct gpu_scope *scope)
{
    *scope = (struct gpu_scope){0};
    if (gpu->driver->platform == GPU_CUDA) {
        void *current = NULL;
        IRIS_TRY(GPU_CALL(gpu->driver, context_get, &current));
        if (current == gpu->context)
            return IRIS_OK;
        IRIS_TRY(GPU_CALL(gpu->driver, context_push, gpu->context));
    } else {
        IRIS_TRY(GPU_CALL(gpu->driver, get_device, &scope->previous));
        if (scope->previous == gpu->ordinal)
            return IRIS_OK;
        IRIS_TRY(GPU_CALL(gpu->driver, set_device, gpu->ordinal));
    }
    scope->entered = true;
    return IRIS_OK;
}

void gpu_leave(const struct gpu_device *gpu, const struct gpu_scope *scope)
{
    void *popped;

    if (!scope->entered)
        return;
    if (gpu->driver->platform == GPU_CUDA)
        (void)GPU_SUCCEEDS(gpu->driver, context_pop, &popped);
    else
        (void)GPU_SUCCEEDS(gpu->driver, set_device, scope->previous);
}
