/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Describing matrices to the tensor copy engine of sm_90a: a member of struct iris_device_ops.
 */
#ifndef IRIS_GPU_TENSOR_MAP_H
#define IRIS_GPU_TENSOR_MAP_H

#include <stdbool.h>

#include "device.h"

bool gpu_tensor_map(struct iris_device *device, const struct iris_tensor_map_request *request,
                    struct iris_tensor_map *out);

#endif
