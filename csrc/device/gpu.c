/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A GPU as a device, over the table of gpu_driver.h: the backends "hip" and "cuda" are this file
 * twice. Heap memory is an allocation of the driver's, shared by inter-process handles; streams are
 * the caller's; kernels come from the package's code objects.
 *
 * A device is counted by reference: the context's tensors may outlive its closing, and their memory
 * goes through the driver.
 */
#include "device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_driver.h"
#include "gpu_objects.h"

/* Numbers of the platforms' attributes. */
enum { CUDA_MULTIPROCESSOR_COUNT = 16, CUDA_CAPABILITY_MAJOR = 75, CUDA_CAPABILITY_MINOR = 76 };
enum { HIP_MULTIPROCESSOR_COUNT = 63 };
/* HIP and CUDA alike. */
enum { HOST_REGISTER_PORTABLE = 1, HOST_REGISTER_MAPPED = 2 };
enum { IPC_LAZY_ENABLE_PEER_ACCESS = 1, EVENT_DISABLE_TIMING = 2 };
/* Memory that peers write while a kernel reads it must bypass or snoop this GPU's caches. Uncached
 * memory came with ROCm 5.7 or so, fine-grained memory does everywhere. */
enum { HIP_FINE_GRAINED = 1, HIP_UNCACHED = 3 };
/* Drivers place smaller allocations inside a block of this size, and share the block. */
enum { SHARE_GRANULARITY = 2 << 20 };

struct gpu_device {
    struct iris_device_base base;
    atomic_int references;
    const struct gpu_driver *driver;
    int ordinal;
    void *context; /* CUDA: the device's primary context, which torch uses too */
    int compute_units;
    char arch[32];
    pthread_mutex_t kernels_lock;
    struct gpu_objects objects;
    /* Under maps_lock: the tensor maps last made, by address. A map only restates its request. */
    pthread_mutex_t maps_lock;
    struct {
        struct iris_tensor_map_request request;
        struct iris_tensor_map map;
    } maps[64];
};

static struct gpu_device *as_gpu(struct iris_device *device)
{
    return (struct gpu_device *)device;
}

/* ---- the device as the thread's current one, for the time of a call ---- */

struct scope {
    bool entered;
    int previous; /* HIP */
};

static enum iris_status enter(const struct gpu_device *gpu, struct scope *scope)
{
    scope->entered = false;
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

static void leave(const struct gpu_device *gpu, const struct scope *scope)
{
    void *popped;

    if (!scope->entered)
        return;
    if (gpu->driver->platform == GPU_CUDA)
        (void)gpu->driver->context_pop(&popped);
    else
        (void)gpu->driver->set_device(scope->previous);
}

/* `call`, with the device current. */
#define IN_SCOPE(gpu, status, call)                                                                \
    do {                                                                                           \
        struct scope scope;                                                                        \
        (status) = enter(gpu, &scope);                                                             \
        if ((status) == IRIS_OK) {                                                                 \
            (status) = (call);                                                                     \
            leave(gpu, &scope);                                                                    \
        }                                                                                          \
    } while (0)

/* ---- opening ---- */

static bool is_present(enum gpu_platform platform)
{
    const struct gpu_driver *driver;
    int count = 0;

    return gpu_driver_load(platform, &driver) == IRIS_OK && driver->init(0) == 0 &&
           driver->device_count(&count) == 0 && count > 0;
}

static bool hip_is_present(void)
{
    return is_present(GPU_HIP);
}

static bool cuda_is_present(void)
{
    return is_present(GPU_CUDA);
}

static enum iris_status find_cuda_arch(struct gpu_device *gpu)
{
    int major = 0, minor = 0;

    IRIS_TRY(GPU_CALL(gpu->driver, device_attribute, &major, CUDA_CAPABILITY_MAJOR, gpu->ordinal));
    IRIS_TRY(GPU_CALL(gpu->driver, device_attribute, &minor, CUDA_CAPABILITY_MINOR, gpu->ordinal));
    /* The kernels use instructions that only this very architecture has. */
    (void)snprintf(gpu->arch, sizeof gpu->arch, "sm_%d%d%s", major, minor, major == 9 ? "a" : "");
    return IRIS_OK;
}

/* The architecture stands in a struct whose layout and size changed between ROCm 5 and 6, and
 * nowhere else. It is the one string in it that begins with "gfx". */
static enum iris_status find_hip_arch(struct gpu_device *gpu)
{
    enum { PROPERTIES_NBYTES = 8192 };
    char *properties = calloc(1, PROPERTIES_NBYTES);
    enum iris_status status;
    int length = 0;

    if (properties == NULL)
        return IRIS_FAIL(IRIS_ENOMEM, "out of host memory");
    if (gpu->driver->properties != NULL)
        status = GPU_CALL(gpu->driver, properties, properties, gpu->ordinal);
    else if (gpu->driver->old_properties != NULL)
        status = GPU_CALL(gpu->driver, old_properties, properties, gpu->ordinal);
    else
        status = IRIS_FAIL(IRIS_EDRIVER, "the driver has no hipGetDeviceProperties");
    for (int i = 256; status == IRIS_OK && length == 0 && i < PROPERTIES_NBYTES - 32; ++i)
        if (memcmp(properties + i, "gfx", 3) == 0) /* "gfx942:sramecc+:xnack-" */
            length = snprintf(gpu->arch, sizeof gpu->arch, "%.*s",
                              (int)strcspn(properties + i, ":"), properties + i);
    free(properties);
    if (status == IRIS_OK && length == 0)
        status = IRIS_FAIL(IRIS_EDRIVER, "the driver does not tell the device's architecture");
    return status;
}

static enum iris_status open_device(struct gpu_device *gpu, int local_rank)
{
    const struct gpu_driver *driver = gpu->driver;
    const bool cuda = driver->platform == GPU_CUDA;
    int count = 0;

    IRIS_TRY(GPU_CALL(driver, init, 0));
    IRIS_TRY(GPU_CALL(driver, device_count, &count));
    if (count == 0)
        return IRIS_FAIL(IRIS_EDRIVER, "backend '%s': the driver sees no device",
                         gpu->base.ops->name);
    /* With one visible device per process, every rank's is number 0. */
    if (local_rank >= count && count != 1)
        return IRIS_FAIL(IRIS_EDRIVER,
                         "backend '%s': local rank %d has no device, the driver sees %d",
                         gpu->base.ops->name, local_rank, count);
    IRIS_TRY(GPU_CALL(driver, device_get, &gpu->ordinal, local_rank % count));
    IRIS_TRY(GPU_CALL(driver, device_attribute, &gpu->compute_units,
                      cuda ? CUDA_MULTIPROCESSOR_COUNT : HIP_MULTIPROCESSOR_COUNT, gpu->ordinal));
    if (!cuda)
        return find_hip_arch(gpu);
    IRIS_TRY(find_cuda_arch(gpu));
    return GPU_CALL(driver, primary_retain, &gpu->context, gpu->ordinal);
}

static struct iris_device_traits traits_of(const struct gpu_device *gpu)
{
    const bool cuda = gpu->driver->platform == GPU_CUDA;
    struct iris_device_traits traits = {
        .asynchronous = true,
        .sm90 = cuda,
        .dies = 1,
        .ticks_per_second = UINT64_C(1000000000),
    };

    if (!cuda) {
        traits.ticks_per_second = strcmp(gpu->arch, "gfx90a") == 0 ? 25000000 : 100000000;
        traits.dies = strcmp(gpu->arch, "gfx90a") == 0 ? 1 : 8;
    }
    return traits;
}

static void unreference(struct gpu_device *gpu)
{
    struct scope scope;

    if (atomic_fetch_sub(&gpu->references, 1) > 1)
        return;
    if (enter(gpu, &scope) == IRIS_OK) {
        gpu_objects_unload(&gpu->objects);
        leave(gpu, &scope);
    }
    if (gpu->context != NULL)
        (void)gpu->driver->primary_release(gpu->ordinal);
    pthread_mutex_destroy(&gpu->maps_lock);
    pthread_mutex_destroy(&gpu->kernels_lock);
    free(gpu);
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
    IRIS_TRY_GOTO(status, gpu_driver_load(platform, &gpu->driver), fail);
    IRIS_TRY_GOTO(status, open_device(gpu, options->local_rank), fail_open);
    gpu->base.traits = traits_of(gpu);
    IN_SCOPE(gpu, status,
             gpu_objects_load(gpu->driver, options->kernel_directory, gpu->arch, &gpu->objects));
    if (status != IRIS_OK)
        goto fail_open;
    *out = (struct iris_device *)gpu;
    return IRIS_OK;
fail_open:
    if (gpu->context != NULL)
        (void)gpu->driver->primary_release(gpu->ordinal);
fail:
    pthread_mutex_destroy(&gpu->maps_lock);
    pthread_mutex_destroy(&gpu->kernels_lock);
    free(gpu);
    return status;
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
        unreference(as_gpu(device));
}

/* A forked child cannot use the driver, not even to let go. */
static void gpu_abandon(struct iris_device *device)
{
    (void)device;
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
    if (gpu->driver->device_pci_id(name, 31, gpu->ordinal) != 0)
        name[0] = '\0';
}

static bool gpu_can_reach(struct iris_device *device, const char *name)
{
    const struct gpu_device *gpu = as_gpu(device);
    int peer, can = 0;

    if (gpu->driver->device_by_pci_id(&peer, name) != 0 || peer == gpu->ordinal)
        return true;
    return gpu->driver->can_access_peer(&can, gpu->ordinal, peer) == 0 && can != 0;
}

/* ---- memory ---- */

static enum iris_status allocate(const struct gpu_device *gpu, size_t nbytes, void **data)
{
    if (gpu->driver->platform == GPU_CUDA)
        return GPU_CALL(gpu->driver, memory_allocate, data, nbytes);
    if (gpu->driver->memory_allocate_flags(data, nbytes, HIP_UNCACHED) == 0)
        return IRIS_OK;
    return GPU_CALL(gpu->driver, memory_allocate_flags, data, nbytes, HIP_FINE_GRAINED);
}

static enum iris_status create_in_scope(const struct gpu_device *gpu, size_t nbytes,
                                        struct iris_memory *memory,
                                        struct iris_memory_handle *handle)
{
    const size_t rounded =
        (nbytes + SHARE_GRANULARITY - 1) / SHARE_GRANULARITY * SHARE_GRANULARITY;
    struct gpu_ipc_handle ipc;

    IRIS_TRY(allocate(gpu, rounded, &memory->data));
    IRIS_TRY(GPU_CALL(gpu->driver, memory_set, memory->data, 0, nbytes, NULL));
    IRIS_TRY(GPU_CALL(gpu->driver, synchronize));
    IRIS_TRY(GPU_CALL(gpu->driver, ipc_get, &ipc, memory->data));
    memcpy(handle->bytes, ipc.bytes, sizeof handle->bytes);
    handle->fd = -1;
    return IRIS_OK;
}

static void gpu_memory_release(struct iris_memory *memory)
{
    struct gpu_device *gpu = as_gpu(memory->device);
    struct scope scope;

    if (memory->data == NULL)
        return;
    /* Both calls fail harmlessly when the driver is shutting down with the process. */
    if (enter(gpu, &scope) == IRIS_OK) {
        if (memory->imported)
            (void)gpu->driver->ipc_close(memory->data);
        else
            (void)gpu->driver->memory_free(memory->data);
        leave(gpu, &scope);
    }
    memory->data = NULL;
    unreference(gpu);
}

static enum iris_status gpu_memory_create(struct iris_device *device, size_t nbytes,
                                          struct iris_memory *out,
                                          struct iris_memory_handle *handle)
{
    struct gpu_device *gpu = as_gpu(device);
    struct iris_memory memory = {.device = device, .nbytes = nbytes};
    enum iris_status status;

    atomic_fetch_add(&gpu->references, 1);
    IN_SCOPE(gpu, status, create_in_scope(gpu, nbytes, &memory, handle));
    if (status == IRIS_OK) {
        *out = memory;
    } else if (memory.data != NULL) {
        gpu_memory_release(&memory);
    } else {
        unreference(gpu);
    }
    return status;
}

static enum iris_status gpu_memory_import(struct iris_device *device,
                                          const struct iris_memory_handle *handle, size_t nbytes,
                                          struct iris_memory *out)
{
    struct gpu_device *gpu = as_gpu(device);
    struct iris_memory memory = {.device = device, .nbytes = nbytes, .imported = true};
    struct gpu_ipc_handle ipc;
    enum iris_status status;

    memcpy(ipc.bytes, handle->bytes, sizeof ipc.bytes);
    IN_SCOPE(gpu, status,
             GPU_CALL(gpu->driver, ipc_open, &memory.data, ipc, IPC_LAZY_ENABLE_PEER_ACCESS));
    if (status != IRIS_OK)
        return status;
    atomic_fetch_add(&gpu->references, 1);
    *out = memory;
    return IRIS_OK;
}

static enum iris_status register_in_scope(const struct gpu_device *gpu, void *data, size_t nbytes,
                                          uint64_t *address)
{
    void *pointer = NULL;

    IRIS_TRY(GPU_CALL(gpu->driver, host_register, data, nbytes,
                      HOST_REGISTER_PORTABLE | HOST_REGISTER_MAPPED));
    IRIS_TRY(GPU_CALL(gpu->driver, host_device_pointer, &pointer, data, 0));
    *address = (uint64_t)(uintptr_t)pointer;
    return IRIS_OK;
}

static enum iris_status gpu_host_register(struct iris_device *device, void *data, size_t nbytes,
                                          uint64_t *address)
{
    enum iris_status status;

    IN_SCOPE(as_gpu(device), status, register_in_scope(as_gpu(device), data, nbytes, address));
    return status;
}

static void gpu_host_unregister(struct iris_device *device, void *data)
{
    struct scope scope;

    if (enter(as_gpu(device), &scope) != IRIS_OK)
        return;
    (void)as_gpu(device)->driver->host_unregister(data);
    leave(as_gpu(device), &scope);
}

static enum iris_status gpu_memory_set(struct iris_device *device, void *stream, void *data,
                                       int byte, size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    IN_SCOPE(gpu, status,
             GPU_CALL(gpu->driver, memory_set, data, (unsigned char)byte, nbytes, stream));
    return status;
}

static enum iris_status gpu_memory_read(struct iris_device *device, void *host, const void *source,
                                        size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, copy_to_host, host, (void *)source, nbytes));
    return status;
}

static enum iris_status gpu_memory_write(struct iris_device *device, void *target, const void *host,
                                         size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, copy_to_device, target, host, nbytes));
    return status;
}

/* ---- launches, streams, events ---- */

static enum iris_status launch_in_scope(struct gpu_device *gpu, const struct iris_launch *launch)
{
    void *parameters[] = {(void *)launch->args};
    const struct gpu_kernel *kernel;
    enum iris_status status;

    pthread_mutex_lock(&gpu->kernels_lock);
    status = gpu_objects_kernel(&gpu->objects, launch->kernel, &kernel);
    pthread_mutex_unlock(&gpu->kernels_lock);
    IRIS_TRY(status);
    return GPU_CALL(gpu->driver, launch, kernel->function, launch->work_groups, 1, 1,
                    kernel->threads, 1, 1, kernel->shared_nbytes, launch->stream, parameters, NULL);
}

static enum iris_status gpu_launch(struct iris_device *device, const struct iris_launch *launch)
{
    enum iris_status status;

    IN_SCOPE(as_gpu(device), status, launch_in_scope(as_gpu(device), launch));
    return status;
}

static enum iris_status gpu_synchronize(struct iris_device *device)
{
    enum iris_status status;

    IN_SCOPE(as_gpu(device), status, GPU_CALL(as_gpu(device)->driver, synchronize));
    return status;
}

static enum iris_status gpu_stream_synchronize(struct iris_device *device, void *stream)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_synchronize, stream));
    return status;
}

static bool gpu_stream_is_capturing(struct iris_device *device, void *stream)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;
    int capturing = 0;

    IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_capturing, stream, &capturing));
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

    IN_SCOPE(as_gpu(device), status, record_in_scope(as_gpu(device), stream, event));
    return status;
}

static enum iris_status gpu_event_wait(struct iris_device *device, void *stream, void *event)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_wait_event, stream, event, 0));
    return status;
}

static void gpu_event_destroy(struct iris_device *device, void *event)
{
    struct scope scope;

    if (event == NULL || enter(as_gpu(device), &scope) != IRIS_OK)
        return;
    (void)as_gpu(device)->driver->event_destroy(event);
    leave(as_gpu(device), &scope);
}

/* ---- the tensor copy engine of sm_90a ---- */

static bool encode_tensor_map(const struct gpu_device *gpu,
                              const struct iris_tensor_map_request *request,
                              struct iris_tensor_map *out)
{
    enum { FLOAT16 = 6, BFLOAT16 = 9, SWIZZLE_128B = 3, PROMOTE_L2_256B = 3 };
    const uint64_t sizes[2] = {request->inner, request->outer};
    const uint64_t strides[1] = {request->pitch_nbytes};
    const uint32_t box[2] = {request->box_inner, request->box_outer};
    const uint32_t steps[2] = {1, 1};

    if ((uintptr_t)request->data % 16 != 0 || request->pitch_nbytes % 16 != 0 ||
        request->pitch_nbytes >= UINT64_C(1) << 40 || request->inner > UINT32_MAX ||
        request->outer > INT32_MAX)
        return false;
    return gpu->driver->tensor_map_encode(
               out, request->dtype == IRIS_DTYPE_F16 ? FLOAT16 : BFLOAT16, 2, request->data, sizes,
               strides, box, steps, 0, SWIZZLE_128B, PROMOTE_L2_256B, 0) == 0;
}

static bool is_same_request(const struct iris_tensor_map_request *a,
                            const struct iris_tensor_map_request *b)
{
    return a->data == b->data && a->dtype == b->dtype && a->inner == b->inner &&
           a->outer == b->outer && a->pitch_nbytes == b->pitch_nbytes &&
           a->box_inner == b->box_inner && a->box_outer == b->box_outer;
}

static bool cuda_tensor_map(struct iris_device *device,
                            const struct iris_tensor_map_request *request,
                            struct iris_tensor_map *out)
{
    struct gpu_device *gpu = as_gpu(device);
    const size_t slot = (uintptr_t)request->data / 512 % (sizeof gpu->maps / sizeof gpu->maps[0]);
    bool encoded;

    pthread_mutex_lock(&gpu->maps_lock);
    encoded = is_same_request(&gpu->maps[slot].request, request);
    if (encoded) {
        *out = gpu->maps[slot].map;
    } else if (encode_tensor_map(gpu, request, out)) {
        gpu->maps[slot].request = *request;
        gpu->maps[slot].map = *out;
        encoded = true;
    }
    pthread_mutex_unlock(&gpu->maps_lock);
    return encoded;
}

#define GPU_DEVICE_OPS(platform)                                                                   \
    .name = #platform, .is_present = platform##_is_present, .open = platform##_open,               \
    .close = gpu_close, .abandon = gpu_abandon, .device_id = gpu_device_id,                        \
    .compute_units = gpu_compute_units, .max_work_groups = gpu_compute_units,                      \
    .memory_create = gpu_memory_create, .memory_import = gpu_memory_import,                        \
    .memory_release = gpu_memory_release, .host_register = gpu_host_register,                      \
    .host_unregister = gpu_host_unregister, .identify = gpu_identify, .can_reach = gpu_can_reach,  \
    .memory_set = gpu_memory_set, .memory_read = gpu_memory_read,                                  \
    .memory_write = gpu_memory_write, .launch = gpu_launch, .synchronize = gpu_synchronize,        \
    .stream_synchronize = gpu_stream_synchronize,                                                  \
    .stream_is_capturing = gpu_stream_is_capturing, .event_record = gpu_event_record,              \
    .event_wait = gpu_event_wait, .event_destroy = gpu_event_destroy

const struct iris_device_ops iris_device_hip = {GPU_DEVICE_OPS(hip)};
const struct iris_device_ops iris_device_cuda = {GPU_DEVICE_OPS(cuda),
                                                 .tensor_map = cuda_tensor_map};
