/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * GPU memory: allocation, sharing by inter-process handles, host memory that kernels can reach.
 */
#include "gpu_memory.h"

#include <string.h>

#include "gpu_device.h"
#include "gpu_lifetime.h"
#include "gpu_memory_kind.h"

/* HIP and CUDA alike. */
enum { HOST_REGISTER_PORTABLE = 1, HOST_REGISTER_MAPPED = 2 };
enum { IPC_LAZY_ENABLE_PEER_ACCESS = 1 };
/* Memory that peers write while a kernel reads it must not stay in this GPU's caches. Uncached
 * memory never does; it came with ROCm 5.7 or so. Fine-grained memory, which there is everywhere,
 * does until a fence: see iris_memory_kind. */
enum { HIP_FINE_GRAINED = 1, HIP_UNCACHED = 3 };
/* Drivers place smaller allocations inside a block of this size, and share the block. */
enum { SHARE_GRANULARITY = 2 << 20 };

static enum iris_status allocate(const struct gpu_device *gpu, size_t nbytes, void **data)
{
    if (gpu->driver->platform == GPU_CUDA)
        return GPU_CALL(gpu->driver, memory_allocate, data, nbytes);
    if (GPU_SUCCEEDS(gpu->driver, memory_allocate_flags, data, nbytes, HIP_UNCACHED))
        return IRIS_OK;
    return GPU_CALL(gpu->driver, memory_allocate_flags, data, nbytes, HIP_FINE_GRAINED);
}

static enum iris_status create_in_scope(const struct gpu_device *gpu, size_t nbytes,
                                        struct iris_memory *memory,
                                        struct iris_memory_handle *handle)
{
    const size_t rounded = (nbytes + SHARE_GRANULARITY - 1) / SHARE_GRANULARITY * SHARE_GRANULARITY;
    struct gpu_ipc_handle ipc;

    IRIS_TRY(allocate(gpu, rounded, &memory->data));
    memory->kind = gpu_memory_kind_of(gpu->driver, memory->data);
    if (memory->kind == IRIS_MEMORY_COARSE_GRAINED)
        return IRIS_FAIL(IRIS_EDRIVER,
                         "the driver has no memory that peers may write while a kernel "
                         "reads it");
    IRIS_TRY(GPU_CALL(gpu->driver, memory_set, memory->data, 0, nbytes, NULL));
    IRIS_TRY(GPU_CALL(gpu->driver, synchronize));
    IRIS_TRY(GPU_CALL(gpu->driver, ipc_get, &ipc, memory->data));
    memcpy(handle->bytes, ipc.bytes, sizeof handle->bytes);
    handle->fd = -1;
    return IRIS_OK;
}

void gpu_memory_release(struct iris_memory *memory)
{
    struct gpu_device *gpu = as_gpu(memory->device);
    struct gpu_scope scope;

    if (memory->data == NULL)
        return;
    /* Both calls fail harmlessly when the driver is shutting down with the process. */
    if (gpu_enter(gpu, &scope) == IRIS_OK) {
        if (memory->imported)
            (void)GPU_SUCCEEDS(gpu->driver, ipc_close, memory->data);
        else
            (void)GPU_SUCCEEDS(gpu->driver, memory_free, memory->data);
        gpu_leave(gpu, &scope);
    }
    memory->data = NULL;
    gpu_unreference(gpu);
}

enum iris_status gpu_memory_create(struct iris_device *device, size_t nbytes,
                                   struct iris_memory *out, struct iris_memory_handle *handle)
{
    struct gpu_device *gpu = as_gpu(device);
    struct iris_memory memory = {.device = device, .nbytes = nbytes};
    enum iris_status status;

    atomic_fetch_add(&gpu->references, 1);
    GPU_IN_SCOPE(gpu, status, create_in_scope(gpu, nbytes, &memory, handle));
    if (status == IRIS_OK) {
        *out = memory;
    } else if (memory.data != NULL) {
        gpu_memory_release(&memory);
    } else {
        gpu_unreference(gpu);
    }
    return status;
}

enum iris_status gpu_memory_import(struct iris_device *device,
                                   const struct iris_memory_handle *handle, size_t nbytes,
                                   struct iris_memory *out)
{
    struct gpu_device *gpu = as_gpu(device);
    struct iris_memory memory = {.device = device, .nbytes = nbytes, .imported = true};
    struct gpu_ipc_handle ipc;
    enum iris_status status;

    memcpy(ipc.bytes, handle->bytes, sizeof ipc.bytes);
    GPU_IN_SCOPE(gpu, status,
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

enum iris_status gpu_host_register(struct iris_device *device, void *data, size_t nbytes,
                                   uint64_t *address)
{
    enum iris_status status;

    GPU_IN_SCOPE(as_gpu(device), status, register_in_scope(as_gpu(device), data, nbytes, address));
    return status;
}

void gpu_host_unregister(struct iris_device *device, void *data)
{
    struct gpu_scope scope;

    if (gpu_enter(as_gpu(device), &scope) != IRIS_OK)
        return;
    (void)GPU_SUCCEEDS(as_gpu(device)->driver, host_unregister, data);
    gpu_leave(as_gpu(device), &scope);
}

enum iris_status gpu_memory_set(struct iris_device *device, void *stream, void *data, int byte,
                                size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status,
                 GPU_CALL(gpu->driver, memory_set, data, (unsigned char)byte, nbytes, stream));
    return status;
}

enum iris_status gpu_memory_read(struct iris_device *device, void *host, const void *source,
                                 size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, copy_to_host, host, (void *)source, nbytes));
    return status;
}

enum iris_status gpu_memory_write(struct iris_device *device, void *target, const void *host,
                                  size_t nbytes)
{
    const struct gpu_device *gpu = as_gpu(device);
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, copy_to_device, target, host, nbytes));
    return status;
}
