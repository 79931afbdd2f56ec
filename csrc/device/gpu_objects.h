/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The code objects that the package carries: one file per target, found by the device's
 * architecture, loaded as a module; kernels found in it by number.
 */
#ifndef IRIS_GPU_OBJECTS_H
#define IRIS_GPU_OBJECTS_H

#include "gpu_driver.h"
#include "kernels/abi/instances.h"

enum { GPU_CLUSTER_SIZES = 4 };

struct gpu_kernel {
    void *function; /* NULL until first used */
    uint32_t threads;
    uint32_t shared_nbytes;          /* dynamic shared memory */
    int clusters[GPU_CLUSTER_SIZES]; /* resident at once, of 2 to the power of the index; 0: has not
                                        been asked yet */
    bool begins_early;               /* see IRIS_BEGINS_EARLY */
};

struct gpu_objects {
    const struct gpu_driver *driver;
    bool sm90;
    void *module; /* NULL: not loaded */
    struct gpu_kernel kernels[IRIS_KERNEL_COUNT];
};

/* Loads `directory`/iris_<name>.{cubin,hsaco}; `name` is an architecture, or one with ".traced".
 * IRIS_EDRIVER, listing the objects that are there, if that one is not, or is damaged. */
enum iris_status gpu_objects_load(const struct gpu_driver *driver, const char *directory,
                                  const char *name, struct gpu_objects *out);
void gpu_objects_unload(struct gpu_objects *objects);

/* IRIS_EDRIVER: the object has no such kernel. */
enum iris_status gpu_objects_kernel(struct gpu_objects *objects, uint32_t kernel_id,
                                    const struct gpu_kernel **out);

#endif
