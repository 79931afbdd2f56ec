/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A GPU device as the gpu_*.c share it.
 *
 * It is counted by reference: the context's tensors may outlive its closing, and their memory goes
 * through the driver.
 */
#ifndef IRIS_GPU_DEVICE_H
#define IRIS_GPU_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "device.h"
#include "gpu_driver.h"
#include "gpu_objects.h"

/* The thread that waits for the device; see gpu_wait.h. */
struct gpu_waiter {
    pthread_t thread;
    pthread_mutex_t lock;   /* guards what follows */
    pthread_cond_t changed; /* something has been asked for, or answered */
    bool runs, stopping;
    uint64_t asked, answered;
    struct iris_error error; /* of the last answer; its status */
};

struct gpu_blas; /* see gpu_blas.h */

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
    struct gpu_blas *blas; /* NULL: nobody has asked for it, or there is none */
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

#endif
