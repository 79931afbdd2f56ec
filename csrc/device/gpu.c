/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A GPU as a device, over the table of gpu_driver.h: the backends "hip" and "cuda" are this file
 * twice. Heap memory is an allocation of the driver's, shared by inter-process handles; streams are
 * the caller's; kernels come from the package's code objects.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_blas.h"
#include "gpu_capture.h"
#include "gpu_device.h"
#include "gpu_facts.h"
#include "gpu_lifetime.h"
#include "gpu_memory.h"
#include "gpu_objects.h"
#include "gpu_report.h"
#include "gpu_tensor_map.h"
#include "gpu_wait.h"

enum { EVENT_DISABLE_TIMING = 2 }; /* HIP and CUDA alike */

/* ---- opening ---- */

static bool is_present(enum gpu_platform platform)
{
    const struct gpu_driver *driver;
    int count = 0;

    if (gpu_driver_load(platform, &driver) != IRIS_OK)
        return false;
    if (gpu_driver_init(driver, &count) != IRIS_OK)
        return gpu_driver_is_inherited(driver); /* better said than passed over */
    return count > 0;
}

static bool hip_is_present(void)
{
    return is_present(GPU_HIP);
}

static bool cuda_is_present(void)
{
    return is_present(GPU_CUDA);
}

static enum iris_status open_device(struct gpu_device *gpu, int local_rank)
{
    const struct gpu_driver *driver = gpu->driver;
    int count = 0;

    IRIS_TRY(gpu_driver_init(driver, &count));
    if (count == 0)
        return IRIS_FAIL(IRIS_EDRIVER, "backend '%s': the driver sees no device",
                         gpu->base.ops->name);
    /* With one visible device per process, every rank's is number 0. */
    if (local_rank >= count && count != 1)
        return IRIS_FAIL(IRIS_EDRIVER,
                         "backend '%s': local rank %d has no device, the driver sees %d",
                         gpu->base.ops->name, local_rank, count);
    IRIS_TRY(GPU_CALL(driver, device_get, &gpu->ordinal, local_rank % count));
    IRIS_TRY(gpu_compute_units_of(driver, gpu->ordinal, &gpu->compute_units));
    IRIS_TRY(gpu_arch_of(driver, gpu->ordinal, gpu->arch));
    if (driver->platform == GPU_HIP)
        return IRIS_OK;
    return GPU_CALL(driver, primary_retain, &gpu->context, gpu->ordinal);
}

static struct iris_device_traits traits_of(const struct gpu_device *gpu)
{
    const bool cuda = gpu->driver->platform == GPU_CUDA;
    struct iris_device_traits traits = {
        .arch = gpu->arch,
        .is_gpu = true,
        .sm90 = cuda,
        .xcds = 1,
        .ticks_per_second = UINT64_C(1000000000),
    };

    if (!cuda) {
        const struct gpu_division division =
            gpu_division_of(gpu->driver, gpu->ordinal, gpu->arch, gpu->compute_units);
        traits.ticks_per_second = division.ticks_per_second;
        traits.xcds = division.xcds;
    }
    return traits;
}

static enum iris_status gpu_open(const struct iris_device_options *options,
                                 enum gpu_platform platform, const struct iris_device_ops *ops,
                                 struct iris_device **out)
{
    struct gpu_device *gpu;
    enum iris_status status;

    IRIS_TRY(iris_alloc_zeroed(sizeof *gpu, (void **)&gpu));
    gpu->base.ops = ops;
    atomic_init(&gpu->references, 1);
    pthread_mutex_init(&gpu->kernels_lock, NULL);
    pthread_mutex_init(&gpu->maps_lock, NULL);
    gpu_waiter_init(&gpu->waiter);
    IRIS_TRY_GOTO(status, gpu_driver_load(platform, &gpu->driver), fail);
    IRIS_TRY_GOTO(status, open_device(gpu, options->local_rank), fail_open);
    gpu->base.traits = traits_of(gpu);
    (void)snprintf(gpu->kernel_directory, sizeof gpu->kernel_directory, "%s",
                   options->kernel_directory);
    GPU_IN_SCOPE(
        gpu, status,
        gpu_objects_load(gpu->driver, options->kernel_directory, gpu->arch, &gpu->objects));
    if (status != IRIS_OK)
        goto fail_open;
    *out = (struct iris_device *)gpu;
    return IRIS_OK;
fail_open:
    if (gpu->context != NULL)
        (void)GPU_SUCCEEDS(gpu->driver, primary_release, gpu->ordinal);
fail:
    gpu_waiter_destroy(&gpu->waiter);
    pthread_mutex_destroy(&gpu->maps_lock);
    pthread_mutex_destroy(&gpu->kernels_lock);
    free(gpu);
    return status;
}

static enum iris_status hip_report(struct iris_device_report *out)
{
    return gpu_report(GPU_HIP, out);
}

static enum iris_status cuda_report(struct iris_device_report *out)
{
    return gpu_report(GPU_CUDA, out);
}

static enum iris_status hip_open(const struct iris_device_options *options,
                                 struct iris_device **out)
{
    return gpu_open(options, GPU_HIP, &iris_device_hip, out);
}

static enum iris_status cuda_open(const struct iris_device_options *options,
                                  struct iris_device **out)
{
    return gpu_open(options, GPU_CUDA, &iris_device_cuda, out);
}

static void gpu_close(struct iris_device *device)
{
    if (device != NULL)
        gpu_unreference(as_gpu(device));
}

static int gpu_device_id(const struct iris_device *device)
{
    return ((const struct gpu_device *)device)->ordinal;
}

static int gpu_compute_units(const struct iris_device *device)
{
    return ((const struct gpu_device *)device)->compute_units;
}

static void gpu_identify(struct iris_device *device, char name[32])
{
    const struct gpu_device *gpu = as_gpu(device);

    memset(name, 0, 32);
    if (!GPU_SUCCEEDS(gpu->driver, device_pci_id, name, 31, gpu->ordinal))
        name[0] = '\0';
}

static bool gpu_can_reach(struct iris_device *device, const char *name)
{
    const struct gpu_device *gpu = as_gpu(device);
    int peer, can = 0;

    if (!GPU_SUCCEEDS(gpu->driver, device_by_pci_id, &peer, name) || peer == gpu->ordinal)
        return true;
    return GPU_SUCCEEDS(gpu->driver, can_access_peer, &can, gpu->ordinal, peer) && can != 0;
}

/* ---- launches, streams, events ---- */

/* Under kernels_lock. */
static enum iris_status find_kernel(struct gpu_device *gpu, const struct iris_launch *launch,
                                    const struct gpu_kernel **out)
{
    char name[sizeof gpu->arch + 8];

    if (!launch->traced)
        return gpu_objects_kernel(&gpu->objects, launch->kernel, out);
    (void)snprintf(name, sizeof name, "%s.traced", gpu->arch);
    if (gpu->traced.module == NULL)
        IRIS_TRY(gpu_objects_load(gpu->driver, gpu->kernel_directory, name, &gpu->traced));
    return gpu_objects_kernel(&gpu->traced, launch->kernel, out);
}

/* Numbers of CUDA's launch attributes. */
enum { CLUSTER_DIMENSION = 4, PROGRAMMATIC_STREAM_SERIALIZATION = 6 };

/* CUDA only: see IRIS_BEGINS_EARLY. */
static enum iris_status launch_early(const struct gpu_device *gpu, const struct iris_launch *launch,
                                     const struct gpu_kernel *kernel, void **parameters)
{
    const struct gpu_launch_attribute attributes[] = {
        {.id = PROGRAMMATIC_STREAM_SERIALIZATION, .value.integer = 1},
        {.id = CLUSTER_DIMENSION, .value.dimensions = {launch->cluster, 1, 1}},
    };
    const struct gpu_launch_config config = {
        .grid = {launch->work_groups, 1, 1},
        .block = {kernel->threads, 1, 1},
        .shared_nbytes = kernel->shared_nbytes,
        .stream = launch->stream,
        .attributes = attributes,
        .attribute_count = launch->cluster > 1 ? 2 : 1,
    };

    return GPU_CALL(gpu->driver, launch_with, &config, kernel->function, parameters, NULL);
}

static enum iris_status launch_in_scope(struct gpu_device *gpu, const struct iris_launch *launch)
{
    void *parameters[] = {(void *)launch->args};
    const struct gpu_kernel *kernel;
    enum iris_status status;

    pthread_mutex_lock(&gpu->kernels_lock);
    status = find_kernel(gpu, launch, &kernel);
    pthread_mutex_unlock(&gpu->kernels_lock);
    IRIS_TRY(status);
    if (kernel->begins_early)
        return launch_early(gpu, launch, kernel, parameters);
    return GPU_CALL(gpu->driver, launch, kernel->function, launch->work_groups, 1, 1,
                    kernel->threads, 1, 1, kernel->shared_nbytes, launch->stream, parameters, NULL);
}

static enum iris_status gpu_launch(struct iris_device *device, const struct iris_launch *launch)
{
    enum iris_status status;

    GPU_IN_SCOPE(as_gpu(device), status, launch_in_scope(as_gpu(device), launch));
    return status;
}

/* CUDA only. */
static enum iris_status count_clusters(struct gpu_device *gpu, const struct gpu_kernel *kernel,
                                       uint32_t size, int *out)
{
    const struct gpu_launch_attribute attribute = {.id = CLUSTER_DIMENSION,
                                                   .value.dimensions = {size, 1, 1}};
    const struct gpu_launch_config config = {
        .grid = {size * (uint32_t)gpu->compute_units, 1, 1},
        .block = {kernel->threads, 1, 1},
        .shared_nbytes = kernel->shared_nbytes,
        .attributes = &attribute,
        .attribute_count = 1,
    };

    return GPU_CALL(gpu->driver, max_active_clusters, out, kernel->function, &config);
}

static enum iris_status max_clusters_in_scope(struct gpu_device *gpu, uint32_t kernel_id,
                                              uint32_t size, int *out)
{
    const struct gpu_kernel *found;
    struct gpu_kernel *kernel;
    enum iris_status status;
    int index = 0;

    while (index + 1 < GPU_CLUSTER_SIZES && 1u << index < size)
        ++index;
    pthread_mutex_lock(&gpu->kernels_lock);
    status = gpu_objects_kernel(&gpu->objects, kernel_id, &found);
    kernel = &gpu->objects.kernels[kernel_id];
    if (status == IRIS_OK && kernel->clusters[index] == 0)
        status = count_clusters(gpu, kernel, size, &kernel->clusters[index]);
    if (status == IRIS_OK)
        *out = kernel->clusters[index];
    pthread_mutex_unlock(&gpu->kernels_lock);
    return status;
}

static enum iris_status gpu_max_clusters(struct iris_device *device, uint32_t kernel_id,
                                         uint32_t size, int *out)
{
    enum iris_status status;

    GPU_IN_SCOPE(as_gpu(device), status,
                 max_clusters_in_scope(as_gpu(device), kernel_id, size, out));
    return status;
}

static enum iris_status gpu_synchronize(struct iris_device *device)
{
    return gpu_wait_for_device(as_gpu(device));
}

static enum iris_status gpu_stream_synchronize(struct iris_device *device, void *stream)
{
    return gpu_wait_for_stream(as_gpu(device), stream);
}

static bool gpu_stream_is_capturing(struct iris_device *device, void *stream)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;
    int capturing = 0;

    GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_capturing, stream, &capturing));
    /* An error is that of the default stream while another stream is being captured. */
    return status != IRIS_OK || capturing != 0;
}

static enum iris_status record_in_scope(const struct gpu_device *gpu, void *stream, void **event)
{
    if (*event == NULL)
        IRIS_TRY(GPU_CALL(gpu->driver, event_create, event, EVENT_DISABLE_TIMING));
    return GPU_CALL(gpu->driver, event_record, *event, stream);
}

static enum iris_status gpu_event_record(struct iris_device *device, void *stream, void **event)
{
    enum iris_status status;

    GPU_IN_SCOPE(as_gpu(device), status, record_in_scope(as_gpu(device), stream, event));
    return status;
}

static enum iris_status gpu_event_wait(struct iris_device *device, void *stream, void *event)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_wait_event, stream, event, 0));
    return status;
}

static void gpu_event_destroy(struct iris_device *device, void *event)
{
    struct gpu_scope scope;

    if (event == NULL || gpu_enter(as_gpu(device), &scope) != IRIS_OK)
        return;
    (void)GPU_SUCCEEDS(as_gpu(device)->driver, event_destroy, event);
    gpu_leave(as_gpu(device), &scope);
}

static enum iris_status gpu_stream_create(struct iris_device *device, void **stream)
{
    enum { NON_BLOCKING = 1 };
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_create, stream, NON_BLOCKING));
    return status;
}

static void gpu_stream_destroy(struct iris_device *device, void *stream)
{
    struct gpu_scope scope;

    if (stream == NULL || gpu_enter(as_gpu(device), &scope) != IRIS_OK)
        return;
    (void)GPU_SUCCEEDS(as_gpu(device)->driver, stream_destroy, stream);
    gpu_leave(as_gpu(device), &scope);
}

static enum iris_status gpu_copy(struct iris_device *device, void *stream, void *target,
                                 const void *source, size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status,
                 GPU_CALL(gpu->driver, copy_on_device, target, (void *)source, nbytes, stream));
    return status;
}

#define GPU_DEVICE_OPS(platform)                                                                   \
    .name = #platform, .is_present = platform##_is_present, .report = platform##_report,           \
    .open = platform##_open, .close = gpu_close, .device_id = gpu_device_id,                       \
    .compute_units = gpu_compute_units, .max_work_groups = gpu_compute_units,                      \
    .memory_create = gpu_memory_create, .memory_import = gpu_memory_import,                        \
    .memory_release = gpu_memory_release, .host_register = gpu_host_register,                      \
    .host_unregister = gpu_host_unregister, .identify = gpu_identify, .can_reach = gpu_can_reach,  \
    .memory_set = gpu_memory_set, .memory_read = gpu_memory_read,                                  \
    .memory_write = gpu_memory_write, .launch = gpu_launch, .synchronize = gpu_synchronize,        \
    .stream_synchronize = gpu_stream_synchronize, .stream_is_capturing = gpu_stream_is_capturing,  \
    .stream_capture = gpu_stream_capture, .stream_capture_watch = gpu_stream_capture_watch,        \
    .event_record = gpu_event_record, .event_wait = gpu_event_wait,                                \
    .event_destroy = gpu_event_destroy, .stream_create = gpu_stream_create,                        \
    .stream_destroy = gpu_stream_destroy, .copy = gpu_copy, .has_blas = gpu_has_blas,              \
    .blas_workspace = gpu_blas_workspace, .multiply = gpu_multiply

const struct iris_device_ops iris_device_hip = {GPU_DEVICE_OPS(hip)};
const struct iris_device_ops iris_device_cuda = {GPU_DEVICE_OPS(cuda), .tensor_map = gpu_tensor_map,
                                                 .max_clusters = gpu_max_clusters};
