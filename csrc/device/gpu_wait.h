/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Waits for a GPU that the caller can cut short (base/wait.h).
 *
 * A stream is asked now and then whether it is done. Nothing can be asked of a whole device, so a
 * thread waits for it, one for each device, started by the first such wait; the caller waits for
 * the thread, and may give up. Where nobody could cut it short, the driver's own wait is used.
 */
#ifndef IRIS_GPU_WAIT_H
#define IRIS_GPU_WAIT_H

#include "base/status.h"
#include "gpu_device.h"

void gpu_waiter_init(struct gpu_waiter *waiter);
/* Waits until the thread has ended, and so until the device has done what it was waited for. */
void gpu_waiter_destroy(struct gpu_waiter *waiter);

/* For all that the device, or `stream`, has been given. IRIS_EDRIVER; IRIS_EINTERRUPTED. */
enum iris_status gpu_wait_for_device(struct gpu_device *gpu);
enum iris_status gpu_wait_for_stream(struct gpu_device *gpu, void *stream);

#endif
