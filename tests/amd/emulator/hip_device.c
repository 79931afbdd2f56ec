/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Devices, properties, errors.
 *
 * EMULATOR_ARCH            gfx90a, gfx942 (default) or gfx950
 * EMULATOR_DEVICES         how many there are: 8
 * EMULATOR_COMPUTE_UNITS   of each: 4
 * and what dispatch.c reads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hip_double.h"

enum { MAX_DEVICES = 16, ATTRIBUTE_MULTIPROCESSOR_COUNT = 63, ATTRIBUTE_XCC_COUNT = 10018 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct device devices[MAX_DEVICES];
static bool is_open[MAX_DEVICES];
static __thread int ordinal;
static hip_result sticky;

static int number_of(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? atoi(text) : otherwise;
}

static const char *arch_name(void)
{
    const char *arch = getenv("EMULATOR_ARCH");
    return arch != NULL && *arch != '\0' ? arch : "gfx942";
}

static int count_devices(void)
{
    const int count = number_of("EMULATOR_DEVICES", 8);
    return count < MAX_DEVICES ? count : MAX_DEVICES;
}

hip_result sticky_result(void)
{
    return __atomic_load_n(&sticky, __ATOMIC_ACQUIRE);
}

void set_sticky_result(hip_result result)
{
    __atomic_store_n(&sticky, result, __ATOMIC_RELEASE);
}

struct device *current_device(void)
{
    struct device *device = &devices[ordinal];

    pthread_mutex_lock(&lock);
    if (!is_open[ordinal])
        is_open[ordinal] = device_open(device, arch_name());
    pthread_mutex_unlock(&lock);
    return is_open[ordinal] ? device : NULL;
}

/* Not HIP: forgets devices and errors, so that the environment is read again. */
HIP_API void emulator_reset(void)
{
    streams_drain();
    for (int i = 0; i < MAX_DEVICES; ++i) {
        if (is_open[i])
            device_close(&devices[i]);
        is_open[i] = false;
    }
    set_sticky_result(HIP_SUCCESS);
}

HIP_API hip_result hipInit(unsigned int flags)
{
    return flags != 0 ? HIP_INVALID_VALUE : count_devices() == 0 ? HIP_NO_DEVICE : HIP_SUCCESS;
}

HIP_API hip_result hipDriverGetVersion(int *version)
{
    *version = 60300000;
    return HIP_SUCCESS;
}

HIP_API hip_result hipGetDeviceCount(int *count)
{
    *count = count_devices();
    return *count == 0 ? HIP_NO_DEVICE : HIP_SUCCESS;
}

HIP_API hip_result hipDeviceGet(int *device, int number)
{
    *device = number;
    return number >= 0 && number < count_devices() ? HIP_SUCCESS : HIP_INVALID_DEVICE;
}

HIP_API hip_result hipSetDevice(int number)
{
    if (number < 0 || number >= count_devices())
        return HIP_INVALID_DEVICE;
    ordinal = number;
    return HIP_SUCCESS;
}

HIP_API hip_result hipGetDevice(int *number)
{
    *number = ordinal;
    return HIP_SUCCESS;
}

HIP_API hip_result hipDeviceGetName(char *name, int nbytes, int device)
{
    (void)device;
    (void)snprintf(name, (size_t)nbytes, "emulated %s", arch_name());
    return HIP_SUCCESS;
}

HIP_API hip_result hipDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    switch (attribute) {
    case ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *value = number_of("EMULATOR_COMPUTE_UNITS", 4);
        return HIP_SUCCESS;
    case ATTRIBUTE_XCC_COUNT: /* 0: of an age that does not know it */
        *value = number_of("EMULATOR_XCDS", 0);
        return *value > 0 ? HIP_SUCCESS : HIP_INVALID_VALUE;
    default:
        return HIP_INVALID_VALUE;
    }
}

HIP_API hip_result hipDeviceGetPCIBusId(char *id, int nbytes, int device)
{
    (void)snprintf(id, (size_t)nbytes, "0000:%02x:00.0", device + 1);
    return HIP_SUCCESS;
}

HIP_API hip_result hipDeviceGetByPCIBusId(int *device, const char *id)
{
    unsigned int bus;

    if (sscanf(id, "0000:%02x:00.0", &bus) != 1 || bus < 1 || (int)bus > count_devices())
        return HIP_INVALID_VALUE;
    *device = (int)bus - 1;
    return HIP_SUCCESS;
}

/* EMULATOR_NO_LINK, "0-1": these two do not reach each other. */
HIP_API hip_result hipDeviceCanAccessPeer(int *can, int device, int peer)
{
    const char *missing = getenv("EMULATOR_NO_LINK");
    int one, other;

    *can = device != peer;
    if (missing != NULL && sscanf(missing, "%d-%d", &one, &other) == 2 &&
        ((device == one && peer == other) || (device == other && peer == one)))
        *can = 0;
    return HIP_SUCCESS;
}

/* The two layouts of hipDeviceProp_t put the architecture at different places. */
static hip_result fill_properties(char *properties, size_t arch_at)
{
    (void)snprintf(properties, 256, "emulated %s", arch_name());
    (void)snprintf(properties + arch_at, 256, "%s:sramecc+:xnack-", arch_name());
    return HIP_SUCCESS;
}

HIP_API hip_result hipGetDevicePropertiesR0600(void *properties, int device)
{
    (void)device;
    return fill_properties(properties, 1160);
}

HIP_API hip_result hipGetDeviceProperties(void *properties, int device)
{
    (void)device;
    return fill_properties(properties, 396);
}

HIP_API const char *hipGetErrorName(hip_result result)
{
    static const struct {
        hip_result result;
        const char *name;
    } names[] = {
        {HIP_SUCCESS, "hipSuccess"},
        {HIP_INVALID_VALUE, "hipErrorInvalidValue"},
        {HIP_OUT_OF_MEMORY, "hipErrorOutOfMemory"},
        {HIP_NO_DEVICE, "hipErrorNoDevice"},
        {HIP_INVALID_DEVICE, "hipErrorInvalidDevice"},
        {HIP_INVALID_CONTEXT, "hipErrorInvalidContext"},
        {HIP_NO_BINARY, "hipErrorNoBinaryForGpu"},
        {HIP_INVALID_HANDLE, "hipErrorInvalidHandle"},
        {HIP_NOT_FOUND, "hipErrorNotFound"},
        {HIP_LAUNCH_TIMEOUT, "hipErrorLaunchTimeOut"},
        {HIP_HOST_MEMORY_REGISTERED, "hipErrorHostMemoryAlreadyRegistered"},
        {HIP_LAUNCH_FAILURE, "hipErrorLaunchFailure"},
        {HIP_CAPTURE_UNSUPPORTED, "hipErrorStreamCaptureUnsupported"},
        {HIP_CAPTURE_INVALID, "hipErrorStreamCaptureInvalidated"},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        if (names[i].result == result)
            return names[i].name;
    return "hipErrorUnknown";
}
