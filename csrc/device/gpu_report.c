/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the driver says of itself and of the GPUs that it sees, for people to read.
 */
#include "gpu_report.h"

#include <stdio.h>

#include "gpu_facts.h"

static void format_version(enum gpu_platform platform, int version, char *text, size_t nbytes)
{
    if (platform == GPU_CUDA)
        (void)snprintf(text, nbytes, "CUDA %d.%d", version / 1000, version % 1000 / 10);
    else
        (void)snprintf(text, nbytes, "HIP %d.%d.%d", version / 10000000, version / 100000 % 100,
                       version % 100000);
}

static enum iris_status report_device(const struct gpu_driver *driver, int number,
                                      struct iris_device_facts *out)
{
    int device;

    IRIS_TRY(GPU_CALL(driver, device_get, &device, number));
    IRIS_TRY(GPU_CALL(driver, device_name, out->name, (int)sizeof out->name - 1, device));
    IRIS_TRY(GPU_CALL(driver, device_pci_id, out->pci, (int)sizeof out->pci - 1, device));
    IRIS_TRY(gpu_compute_units_of(driver, device, &out->compute_units));
    IRIS_TRY(gpu_arch_of(driver, device, out->arch));
    return IRIS_OK;
}

enum iris_status gpu_report(enum gpu_platform platform, struct iris_device_report *out)
{
    const struct gpu_driver *driver;
    int version = 0, count = 0;

    out->count = 0;
    IRIS_TRY(gpu_driver_load(platform, &driver));
    IRIS_TRY(gpu_driver_init(driver, &count));
    IRIS_TRY(GPU_CALL(driver, driver_version, &version));
    format_version(platform, version, out->driver, sizeof out->driver);
    out->count = count < IRIS_MAX_DEVICES ? count : IRIS_MAX_DEVICES;
    for (int i = 0; i < out->count; ++i)
        IRIS_TRY(report_device(driver, i, &out->devices[i]));
    for (int i = 0; i < out->count; ++i) {
        for (int j = 0; j < out->count; ++j) {
            int reaches = i == j;
            if (i != j)
                IRIS_TRY(GPU_CALL(driver, can_access_peer, &reaches, i, j));
            out->devices[i].reaches[j] = reaches != 0;
        }
    }
    return IRIS_OK;
}
