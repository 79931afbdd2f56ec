/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which kind of memory an allocation got.
 */
#ifndef IRIS_GPU_MEMORY_KIND_H
#define IRIS_GPU_MEMORY_KIND_H

#include "device.h"
#include "gpu_driver.h"

/* Of device memory at `data`: HIP gives fine-grained memory in silence where it was asked for
 * uncached memory and has none, so the runtime below it is asked. */
enum iris_memory_kind gpu_memory_kind_of(const struct gpu_driver *driver, const void *data);

#endif
