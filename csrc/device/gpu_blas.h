/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products by the library of the GPU's vendor: members of struct iris_device_ops.
 */
#ifndef IRIS_GPU_BLAS_H
#define IRIS_GPU_BLAS_H

#include "device.h"

struct gpu_blas; /* a device's, from the first gpu_has_blas that is true on */

bool gpu_has_blas(struct iris_device *device);
enum iris_status gpu_blas_workspace(struct iris_device *device, struct iris_memory *out);
enum iris_status gpu_multiply(struct iris_device *device, const struct iris_blas_product *product,
                              bool *done);

/* With the device current. NULL is fine. */
void gpu_blas_destroy(struct gpu_blas *blas);

#endif
