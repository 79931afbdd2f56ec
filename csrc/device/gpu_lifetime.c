/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Taking a device apart.
 */
#include "gpu_lifetime.h"

#include <stdlib.h>

#include "gpu_blas.h"
#include "gpu_objects.h"
#include "gpu_wait.h"

void gpu_unreference(struct gpu_device *gpu)
{
    struct gpu_scope scope;

    if (atomic_fetch_sub(&gpu->references, 1) > 1)
        return;
    gpu_waiter_destroy(&gpu->waiter);
    if (gpu_enter(gpu, &scope) == IRIS_OK) {
        gpu_blas_destroy(gpu->blas);
        gpu_objects_unload(&gpu->objects);
        gpu_objects_unload(&gpu->traced);
        gpu_leave(gpu, &scope);
    }
    if (gpu->context != NULL)
        (void)GPU_SUCCEEDS(gpu->driver, primary_release, gpu->ordinal);
    pthread_mutex_destroy(&gpu->maps_lock);
    pthread_mutex_destroy(&gpu->kernels_lock);
    free(gpu);
}
