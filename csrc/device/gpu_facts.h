/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What a driver says of a device that need not be open.
 */
#ifndef IRIS_GPU_FACTS_H
#define IRIS_GPU_FACTS_H

#include "base/status.h"
#include "gpu_driver.h"

/* "sm_90a", "gfx942". */
enum iris_status gpu_arch_of(const struct gpu_driver *driver, int device, char arch[32]);
enum iris_status gpu_compute_units_of(const struct gpu_driver *driver, int device, int *out);

/* HIP: the XCDs to which the hardware gives work-groups in turn, and the ticks a second of the
 * clock that kernels read. Asked of the driver; of one that is too old to say, taken from a table.
 */
struct gpu_division {
    int xcds;
    uint64_t ticks_per_second;
};

struct gpu_division gpu_division_of(const struct gpu_driver *driver, int device, const char *arch,
                                    int compute_units);

#endif
