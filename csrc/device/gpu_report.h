/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What there is of GPUs, for people to read.
 */
#ifndef IRIS_GPU_REPORT_H
#define IRIS_GPU_REPORT_H

#include "base/status.h"
#include "device.h"
#include "gpu_driver.h"

/* For `report` of struct iris_device_ops. */
enum iris_status gpu_report(enum gpu_platform platform, struct iris_device_report *out);

#endif
