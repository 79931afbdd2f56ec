/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The graph that a stream is being captured into: members of struct iris_device_ops.
 */
#ifndef IRIS_GPU_CAPTURE_H
#define IRIS_GPU_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "device.h"

enum iris_status gpu_stream_capture(struct iris_device *device, void *stream, uint64_t *id);
bool gpu_stream_capture_watch(struct iris_device *device, void *stream, void (*ended)(void *arg),
                              void *arg);

#endif
