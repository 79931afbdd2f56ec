/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the runtime asks of a device: memory that can be shared with other processes, a stream on
 * which kernels run in order, and a few facts. One table of functions per backend (cpu.c; a GPU
 * backend binds the HIP or CUDA driver to the same table).
 *
 * A kernel is launched as `work_groups` work-groups that are all resident at once: a work-group
 * may wait for another one of the same launch. The table's launch refuses more than it can keep
 * resident. Work on one stream runs in order; on the cpu a launch returns when it is complete.
 */
#ifndef IRIS_DEVICE_H
#define IRIS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../runtime/status.h"

struct iris_device; /* each backend's own; starts with `const struct iris_device_ops *ops` */

struct iris_device_options {
    int local_rank;
    int local_world_size;
    int num_threads; /* cpu; 0: choose */
};

/* A range of device memory that peers can map through `fd`. */
struct iris_memory {
    void *data;
    size_t nbytes;
    int fd; /* owned; -1 for memory imported from a peer */
};

struct iris_launch {
    uint32_t kernel; /* enum iris_kernel of instances.h */
    uint32_t work_groups;
    const void *args; /* copied at launch */
    size_t args_nbytes;
    size_t scratch_nbytes; /* private memory of each work-group; cpu only */
    void *stream;
};

struct iris_device_ops {
    const char *name;
    /* Opens the rank's device. IRIS_EDRIVER: there is none. */
    enum iris_status (*open)(const struct iris_device_options *options, struct iris_device **out);
    void (*close)(struct iris_device *device); /* NULL is fine */
    /* Drops the state inherited by a forked child without touching what the parent still uses. */
    void (*abandon)(struct iris_device *device);

    int (*device_id)(const struct iris_device *device);
    int (*compute_units)(const struct iris_device *device);
    int (*max_work_groups)(const struct iris_device *device); /* resident at once */

    /* Zeroed, shareable memory. */
    enum iris_status (*memory_create)(struct iris_device *device, size_t nbytes,
                                      struct iris_memory *out);
    /* Maps a peer's memory; takes ownership of `fd` and closes it, also on failure. */
    enum iris_status (*memory_import)(struct iris_device *device, int fd, size_t nbytes,
                                      struct iris_memory *out);
    void (*memory_release)(struct iris_memory *memory); /* after close of the device too */

    enum iris_status (*memory_set)(struct iris_device *device, void *stream, void *data, int byte,
                                   size_t nbytes);
    /* Between host memory and device memory, complete on return. */
    enum iris_status (*memory_copy)(struct iris_device *device, void *target, const void *source,
                                    size_t nbytes);

    enum iris_status (*launch)(struct iris_device *device, const struct iris_launch *launch);
    /* Waits for all that was launched, on whatever stream. */
    enum iris_status (*synchronize)(struct iris_device *device);
    enum iris_status (*stream_synchronize)(struct iris_device *device, void *stream);
    /* optional: NULL where nothing can be captured */
    bool (*stream_is_capturing)(struct iris_device *device, void *stream);
};

/* Finds a backend by name, or the best one present for name == NULL. IRIS_EINVAL: no such name,
 * listing those that the build has. */
enum iris_status iris_device_find(const char *name, const struct iris_device_ops **out);

extern const struct iris_device_ops iris_device_cpu;

/* The start of every struct iris_device. */
struct iris_device_base {
    const struct iris_device_ops *ops;
};

#endif
