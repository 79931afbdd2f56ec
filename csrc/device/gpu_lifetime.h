/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The end of a GPU device: see gpu_device.h for who keeps it.
 */
#ifndef IRIS_GPU_LIFETIME_H
#define IRIS_GPU_LIFETIME_H

#include "gpu_device.h"

/* Drops a reference; with the last one the device goes. */
void gpu_unreference(struct gpu_device *gpu);

#endif
