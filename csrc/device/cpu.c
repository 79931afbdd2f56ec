/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The cpu as a device: heap memory is shared host memory, a stream is the calling thread, a launch
 * runs the host build of a kernel on a pool of threads and returns when it is complete.
 */
#include "device.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../kernels/instances.h"
#include "shared_memory.h"
#include "worker_pool.h"

struct cpu_device {
    struct iris_device_base base;
    int num_threads;
    struct iris_worker_pool *pool;
};

static struct cpu_device *as_cpu(struct iris_device *device)
{
    return (struct cpu_device *)device;
}

static int default_threads(int local_world_size)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const long share = cores / (local_world_size > 0 ? local_world_size : 1);

    if (share < 1)
        return 1;
    return share < IRIS_MAX_WORKERS ? (int)share : IRIS_MAX_WORKERS;
}

static enum iris_status cpu_open(const struct iris_device_options *options,
                                 struct iris_device **out)
{
    struct cpu_device *cpu;
    enum iris_status status;

    if (options->num_threads < 0 || options->num_threads > IRIS_MAX_WORKERS)
        return IRIS_FAIL(IRIS_EINVAL, "num_threads: expected 0 to %d, got %d", IRIS_MAX_WORKERS,
                         options->num_threads);
    IRIS_TRY(iris_alloc_zeroed(sizeof *cpu, (void **)&cpu));
    cpu->base.ops = &iris_device_cpu;
    cpu->num_threads = options->num_threads > 0 ? options->num_threads
                                                : default_threads(options->local_world_size);
    IRIS_TRY_GOTO(status, iris_worker_pool_create(&cpu->pool), fail);
    *out = (struct iris_device *)cpu;
    return IRIS_OK;
fail:
    free(cpu);
    return status;
}

static void cpu_close(struct iris_device *device)
{
    if (device == NULL)
        return;
    iris_worker_pool_destroy(as_cpu(device)->pool);
    free(device);
}

static void cpu_abandon(struct iris_device *device)
{
    if (device == NULL)
        return;
    iris_worker_pool_abandon(as_cpu(device)->pool);
    free(device);
}

static int cpu_device_id(const struct iris_device *device)
{
    (void)device;
    return 0;
}

static int cpu_compute_units(const struct iris_device *device)
{
    return ((const struct cpu_device *)device)->num_threads;
}

static int cpu_max_work_groups(const struct iris_device *device)
{
    (void)device;
    return IRIS_MAX_WORKERS;
}

static enum iris_status cpu_memory_create(struct iris_device *device, size_t nbytes,
                                          struct iris_memory *out)
{
    struct iris_memory memory = {.nbytes = nbytes, .fd = -1};

    (void)device;
    IRIS_TRY(iris_shared_memory_create("iris_c-heap", nbytes, &memory.fd, &memory.data));
    *out = memory;
    return IRIS_OK;
}

static enum iris_status cpu_memory_import(struct iris_device *device, int fd, size_t nbytes,
                                          struct iris_memory *out)
{
    struct iris_memory memory = {.nbytes = nbytes, .fd = -1};
    enum iris_status status;

    (void)device;
    status = iris_shared_memory_map(fd, nbytes, &memory.data);
    close(fd);
    if (status == IRIS_OK)
        *out = memory;
    return status;
}

static void cpu_memory_release(struct iris_memory *memory)
{
    if (memory->data == NULL)
        return;
    iris_shared_memory_unmap(memory->data);
    if (memory->fd >= 0)
        close(memory->fd);
    memory->data = NULL;
    memory->fd = -1;
}

static enum iris_status cpu_memory_set(struct iris_device *device, void *stream, void *data,
                                       int byte, size_t nbytes)
{
    (void)device;
    (void)stream;
    memset(data, byte, nbytes);
    return IRIS_OK;
}

static enum iris_status cpu_memory_copy(struct iris_device *device, void *target,
                                        const void *source, size_t nbytes)
{
    (void)device;
    memcpy(target, source, nbytes);
    return IRIS_OK;
}

static enum iris_status cpu_launch(struct iris_device *device, const struct iris_launch *launch)
{
    const iris_host_kernel kernel = iris_host_kernel_find(launch->kernel);

    if (kernel == NULL)
        return IRIS_FAIL(IRIS_EDRIVER, "cpu: the build has no kernel %u", launch->kernel);
    return iris_worker_pool_run(as_cpu(device)->pool, kernel, launch->args,
                                (int32_t)launch->work_groups, launch->scratch_nbytes);
}

static enum iris_status cpu_synchronize(struct iris_device *device)
{
    (void)device;
    return IRIS_OK;
}

static enum iris_status cpu_stream_synchronize(struct iris_device *device, void *stream)
{
    (void)device;
    (void)stream;
    return IRIS_OK;
}

const struct iris_device_ops iris_device_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .abandon = cpu_abandon,
    .device_id = cpu_device_id,
    .compute_units = cpu_compute_units,
    .max_work_groups = cpu_max_work_groups,
    .memory_create = cpu_memory_create,
    .memory_import = cpu_memory_import,
    .memory_release = cpu_memory_release,
    .memory_set = cpu_memory_set,
    .memory_copy = cpu_memory_copy,
    .launch = cpu_launch,
    .synchronize = cpu_synchronize,
    .stream_synchronize = cpu_stream_synchronize,
};
