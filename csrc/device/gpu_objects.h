/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The code objects that the package carries: one file per target, found by the device's
 * architecture, loaded as a module; kernels found in it by number.
 */
#ifndef IRIS_GPU_OBJECTS_H
#define IRIS_GPU_OBJECTS_H

#include "../kernels/instances.h"
#include "gpu_driver.h"

struct gpu_kernel {
    void *function; /* NULL until first used */
    uint32_t threads;
    uint32_t shared_nbytes; /* dynamic shared memory */
};

struct gpu_objects {
    const struct gpu_driver *driver;
    bool sm90;
    void *module;
    struct gpu_kernel kernels[IRIS_KERNEL_COUNT];
};

/* Loads `directory`/iris_<arch>.{cubin,hsaco}. IRIS_EDRIVER, listing the objects that are there, if
 * the one for `arch` is not, or is damaged. */
enum iris_status gpu_objects_load(const struct gpu_driver *driver, const char *directory,
                                  const char *arch, struct gpu_objects *out);
void gpu_objects_unload(struct gpu_objects *objects);

/* IRIS_EDRIVER: the object has no such kernel. */
enum iris_status gpu_objects_kernel(struct gpu_objects *objects, uint32_t kernel_id,
                                    const struct gpu_kernel **out);

#endif
