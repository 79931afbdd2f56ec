/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Memory of GPUs: members of struct iris_device_ops.
 */
#ifndef IRIS_GPU_MEMORY_H
#define IRIS_GPU_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "device.h"

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

#endif
