/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A GPU device as gpu.c, gpu_memory.c and gpu_tensor_map.c share it.
 *
 * It is counted by reference: the context's tensors may outlive its closing, and their memory goes
 * through the driver.
 */
#ifndef IRIS_GPU_DEVICE_H
#define IRIS_GPU_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "device.h"
#include "gpu_driver.h"
#include "gpu_objects.h"
#include "gpu_wait.h"

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
    struct gpu_objects traced; /* loaded by the first traced launch, under kernels_lock */
    char kernel_directory[4000];
    struct gpu_waiter waiter;
    /* Under maps_lock: the tensor maps last made, by address. A map only restates its request. */
    pthread_mutex_t maps_lock;
    struct {
        struct iris_tensor_map_request request;
        struct iris_tensor_map map;
    } maps[64];
};

static inline struct gpu_device *as_gpu(struct iris_device *device)
{
    return (struct gpu_device *)device;
}

/* Drops a reference; with the last one the device goes. */
void gpu_unreference(struct gpu_device *gpu);

/* "sm_90a", "gfx942". */
enum iris_status gpu_arch_of(const struct gpu_driver *driver, int device, char arch[32]);
enum iris_status gpu_compute_units_of(const struct gpu_driver *driver, int device, int *out);

/* The device as the thread's current one, for the time of a call. */
struct gpu_scope {
    bool entered;
    int previous; /* HIP */
};

enum iris_status gpu_enter(const struct gpu_device *gpu, struct gpu_scope *scope);
void gpu_leave(const struct gpu_device *gpu, const struct gpu_scope *scope);

/* `call`, with the device current. */
#define GPU_IN_SCOPE(gpu, status, call)                                                            \
    do {                                                                                           \
        struct gpu_scope scope;                                                                    \
        (status) = gpu_enter(gpu, &scope);                                                         \
        if ((status) == IRIS_OK) {                                                                 \
            (status) = (call);                                                                     \
            gpu_leave(gpu, &scope);                                                                \
        }                                                                                          \
    } while (0)

/* ---- members of struct iris_device_ops ---- */

enum iris_status gpu_report(enum gpu_platform platform, struct iris_device_report *out);

enum iris_status gpu_memory_create(struct iris_device *device, size_t nbytes,
                                   struct iris_memory *out, struct iris_memory_handle *handle);
enum iris_status gpu_memory_import(struct iris_device *device,
                                   const struct iris_memory_handle *handle, size_t nbytes,
                                   struct iris_memory *out);
void gpu_memory_release(struct iris_memory *memory);
enum iris_status gpu_host_register(struct iris_device *device, void *data, size_t nbytes,
                                   uint64_t *address);
void gpu_host_unregister(struct iris_device *device, void *data);
enum iris_status gpu_memory_set(struct iris_device *device, void *stream, void *data, int byte,
                                size_t nbytes);
enum iris_status gpu_memory_read(struct iris_device *device, void *host, const void *source,
                                 size_t nbytes);
enum iris_status gpu_memory_write(struct iris_device *device, void *target, const void *host,
                                  size_t nbytes);
bool gpu_tensor_map(struct iris_device *device, const struct iris_tensor_map_request *request,
                    struct iris_tensor_map *out);

#endif
