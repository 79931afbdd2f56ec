/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The cpu as a device: heap memory is shared host memory, a stream is the calling thread, a launch
 * runs the host build of a kernel on a pool of threads and returns when it is complete.
 */
#include "device.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/abi/instances.h"
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

/* That this process may use, 1 to IRIS_MAX_WORKERS. */
static int count_cores(void)
{
    cpu_set_t allowed;
    const long cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0
                           ? CPU_COUNT(&allowed)
                           : sysconf(_SC_NPROCESSORS_ONLN); /* more than a cpu_set_t has */

    if (cores < 1)
        return 1;
    return cores < IRIS_MAX_WORKERS ? (int)cores : IRIS_MAX_WORKERS;
}

static int default_threads(int cores, int local_world_size)
{
    const int share = cores / (local_world_size > 0 ? local_world_size : 1);

    return share > 1 ? share : 1;
}

static bool cpu_is_present(void)
{
    return true;
}

static enum iris_status cpu_open(const struct iris_device_options *options,
                                 struct iris_device **out)
{
    const int cores = count_cores();
    struct cpu_device *cpu;
    enum iris_status status;

    if (options->num_threads < 0 || options->num_threads > IRIS_MAX_WORKERS)
        return IRIS_FAIL(IRIS_EINVAL, "num_threads: expected 0 to %d, got %d", IRIS_MAX_WORKERS,
                         options->num_threads);
    IRIS_TRY(iris_alloc_zeroed(sizeof *cpu, (void **)&cpu));
    cpu->base.ops = &iris_device_cpu;
    cpu->base.traits = (struct iris_device_traits){.arch = "cpu",
                                                   .shares_by_fd = true,
                                                   .cores = cores,
                                                   .xcds = 1,
                                                   .ticks_per_second = UINT64_C(1000000000)};
    cpu->num_threads = options->num_threads > 0 ? options->num_threads
                                                : default_threads(cores, options->local_world_size);
    /* Work-groups wait for each other and for those of peers. With more of them than cores most
     * waits are for somebody who is not running. */
    if (cpu->num_threads > cores)
        cpu->num_threads = cores;
    IRIS_TRY_GOTO(status, iris_worker_pool_create(&cpu->pool), fail);
    *out = (struct iris_device *)cpu;
    return IRIS_OK;
fail:
    free(cpu);
    return status;
}

static void cpu_stop(struct iris_device *device)
{
    iris_worker_pool_destroy(as_cpu(device)->pool);
    as_cpu(device)->pool = NULL;
}

static void cpu_close(struct iris_device *device)
{
    if (device == NULL)
        return;
    cpu_stop(device);
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

/* The mapping outlives the device: memory does not refer to it. */
static enum iris_status cpu_memory_create(struct iris_device *device, size_t nbytes,
                                          struct iris_memory *out,
                                          struct iris_memory_handle *handle)
{
    struct iris_memory memory = {.nbytes = nbytes};

    (void)device;
    IRIS_TRY(iris_shared_memory_create("iris_c-heap", nbytes, &handle->fd, &memory.data));
    *out = memory;
    return IRIS_OK;
}

static enum iris_status cpu_memory_import(struct iris_device *device,
                                          const struct iris_memory_handle *handle, size_t nbytes,
                                          struct iris_memory *out)
{
    struct iris_memory memory = {.nbytes = nbytes, .imported = true};
    enum iris_status status;

    (void)device;
    status = iris_shared_memory_map(handle->fd, nbytes, &memory.data);
    close(handle->fd);
    if (status == IRIS_OK)
        *out = memory;
    return status;
}

static void cpu_memory_release(struct iris_memory *memory)
{
    if (memory->data == NULL)
        return;
    iris_shared_memory_unmap(memory->data);
    memory->data = NULL;
}

static enum iris_status cpu_host_register(struct iris_device *device, void *data, size_t nbytes,
                                          uint64_t *address)
{
    (void)device;
    (void)nbytes;
    *address = (uint64_t)(uintptr_t)data;
    return IRIS_OK;
}

static void cpu_host_unregister(struct iris_device *device, void *data)
{
    (void)device;
    (void)data;
}

static void cpu_identify(struct iris_device *device, char name[32])
{
    (void)device;
    memcpy(name, "cpu", sizeof "cpu");
}

static bool cpu_can_reach(struct iris_device *device, const char *name)
{
    (void)device;
    (void)name;
    return true;
}

static enum iris_status cpu_memory_set(struct iris_device *device, void *stream, void *data,
                                       int byte, size_t nbytes)
{
    (void)device;
    (void)stream;
    if (nbytes > 0)
        memset(data, byte, nbytes);
    return IRIS_OK;
}

static enum iris_status cpu_memory_read(struct iris_device *device, void *host, const void *source,
                                        size_t nbytes)
{
    (void)device;
    if (nbytes > 0) /* else `host` may be NULL */
        memcpy(host, source, nbytes);
    return IRIS_OK;
}

static enum iris_status cpu_memory_write(struct iris_device *device, void *target, const void *host,
                                         size_t nbytes)
{
    (void)device;
    if (nbytes > 0)
        memcpy(target, host, nbytes);
    return IRIS_OK;
}

static enum iris_status cpu_launch(struct iris_device *device, const struct iris_launch *launch)
{
    const iris_host_kernel kernel = launch->traced ? iris_host_traced_kernel_find(launch->kernel)
                                                   : iris_host_kernel_find(launch->kernel);

    if (kernel == NULL)
        return IRIS_FAIL(IRIS_EDRIVER, "cpu: the build has no %skernel %u",
                         launch->traced ? "traced " : "", launch->kernel);
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
    .is_present = cpu_is_present,
    .open = cpu_open,
    .stop = cpu_stop,
    .close = cpu_close,
    .device_id = cpu_device_id,
    .compute_units = cpu_compute_units,
    .max_work_groups = cpu_max_work_groups,
    .memory_create = cpu_memory_create,
    .memory_import = cpu_memory_import,
    .memory_release = cpu_memory_release,
    .host_register = cpu_host_register,
    .host_unregister = cpu_host_unregister,
    .identify = cpu_identify,
    .can_reach = cpu_can_reach,
    .memory_set = cpu_memory_set,
    .memory_read = cpu_memory_read,
    .memory_write = cpu_memory_write,
    .launch = cpu_launch,
    .synchronize = cpu_synchronize,
    .stream_synchronize = cpu_stream_synchronize,
};
