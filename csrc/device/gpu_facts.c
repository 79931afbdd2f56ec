/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A device's architecture, its compute units, and how they are divided.
 */
#include "gpu_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of the platforms' attributes. */
enum { CUDA_MULTIPROCESSOR_COUNT = 16, CUDA_CAPABILITY_MAJOR = 75, CUDA_CAPABILITY_MINOR = 76 };
enum { HIP_MULTIPROCESSOR_COUNT = 63, HIP_WALL_CLOCK_KHZ = 10017, HIP_XCC_COUNT = 10018 };

static enum iris_status cuda_arch_of(const struct gpu_driver *driver, int device, char arch[32])
{
    int major = 0, minor = 0;

    IRIS_TRY(GPU_CALL(driver, device_attribute, &major, CUDA_CAPABILITY_MAJOR, device));
    IRIS_TRY(GPU_CALL(driver, device_attribute, &minor, CUDA_CAPABILITY_MINOR, device));
    /* The kernels use instructions that only this very architecture has. */
    (void)snprintf(arch, 32, "sm_%d%d%s", major, minor, major == 9 ? "a" : "");
    return IRIS_OK;
}

/* The architecture stands in a struct whose layout and size changed between ROCm 5 and 6, and
 * nowhere else. It is the one string in it that begins with "gfx". */
static enum iris_status hip_arch_of(const struct gpu_driver *driver, int device, char arch[32])
{
    enum { PROPERTIES_NBYTES = 8192 };
    char *properties = calloc(1, PROPERTIES_NBYTES);
    enum iris_status status;
    int length = 0;

    if (properties == NULL)
        return IRIS_FAIL(IRIS_ENOMEM, "out of host memory");
    if (driver->properties != NULL)
        status = GPU_CALL(driver, properties, properties, device);
    else if (driver->old_properties != NULL)
        status = GPU_CALL(driver, old_properties, properties, device);
    else
        status = IRIS_FAIL(IRIS_EDRIVER, "the driver has no hipGetDeviceProperties");
    for (int i = 256; status == IRIS_OK && length == 0 && i < PROPERTIES_NBYTES - 32; ++i)
        if (memcmp(properties + i, "gfx", 3) == 0) /* "gfx942:sramecc+:xnack-" */
            length = snprintf(arch, 32, "%.*s", (int)strcspn(properties + i, ":"), properties + i);
    free(properties);
    if (status == IRIS_OK && length == 0)
        status = IRIS_FAIL(IRIS_EDRIVER, "the driver does not tell the device's architecture");
    return status;
}

enum iris_status gpu_arch_of(const struct gpu_driver *driver, int device, char arch[32])
{
    return driver->platform == GPU_CUDA ? cuda_arch_of(driver, device, arch)
                                        : hip_arch_of(driver, device, arch);
}

enum iris_status gpu_compute_units_of(const struct gpu_driver *driver, int device, int *out)
{
    return GPU_CALL(driver, device_attribute, out,
                    driver->platform == GPU_CUDA ? CUDA_MULTIPROCESSOR_COUNT
                                                 : HIP_MULTIPROCESSOR_COUNT,
                    device);
}

/* Compute units of an XCD, of which an MI300X has eight, an MI300A six, and a partition of either
 * as many as it is made of; and the clock's rate. */
static const struct {
    const char *arch;
    int xcd_units; /* 0: not divided */
    uint64_t ticks_per_second;
} divisions[] = {
    {"gfx90a", 0, 25000000},
    {"gfx942", 38, 100000000},
    {"gfx950", 32, 100000000},
};

struct gpu_division gpu_division_of(const struct gpu_driver *driver, int device, const char *arch,
                                    int compute_units)
{
    struct gpu_division division = {.xcds = 1, .ticks_per_second = 100000000};
    int value = 0;

    for (size_t i = 0; i < sizeof divisions / sizeof divisions[0]; ++i) {
        const int units = divisions[i].xcd_units;
        if (strcmp(divisions[i].arch, arch) != 0)
            continue;
        division.ticks_per_second = divisions[i].ticks_per_second;
        if (units != 0 && compute_units % units == 0 && compute_units > 0)
            division.xcds = compute_units / units;
    }
    /* A driver that does not know an attribute fails, or leaves 0. */
    if (GPU_SUCCEEDS(driver, device_attribute, &value, HIP_WALL_CLOCK_KHZ, device) && value > 0)
        division.ticks_per_second = (uint64_t)value * 1000;
    value = 0;
    if (GPU_SUCCEEDS(driver, device_attribute, &value, HIP_XCC_COUNT, device) && value > 0)
        division.xcds = value;
    return division;
}
