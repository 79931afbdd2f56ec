/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Loading a driver's library and binding its symbols.
 */
#include "gpu_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

struct symbol {
    size_t offset; /* of the member in struct gpu_driver */
    const char *names[2];
};

static const struct symbol symbols[] = {
#define GPU_SYMBOL(member, hip, cuda, parameters)                                                  \
    {offsetof(struct gpu_driver, member), {[GPU_HIP] = hip, [GPU_CUDA] = cuda}},
    GPU_DRIVER_FUNCTIONS(GPU_SYMBOL)
#undef GPU_SYMBOL
};

/* The development link first: it is what the loader path of an installation points to. */
static const char *const hip_libraries[] = {"libamdhip64.so", "libamdhip64.so.7",
                                            "libamdhip64.so.6", "libamdhip64.so.5", NULL};
static const char *const cuda_libraries[] = {"libcuda.so.1", NULL};

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gpu_driver drivers[2]; /* bound when .library is set; never unloaded */

static bool is_optional(const char *name)
{
    return name[0] == '?';
}

const char *gpu_driver_name(const struct gpu_driver *driver, size_t offset)
{
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; ++i) {
        const char *name = symbols[i].names[driver->platform];
        if (symbols[i].offset == offset)
            return is_optional(name) ? name + 1 : name;
    }
    return "a driver function";
}

/* POSIX lets a data pointer from dlsym be used as a function pointer; C wants the bytes copied. */
static bool bind_symbol(void *library, const char *name, void *member)
{
    void *address = dlsym(library, name);

    memcpy(member, &address, sizeof address);
    return address != NULL;
}

static enum iris_status bind_all(struct gpu_driver *driver, const char *file)
{
    const bool hip = driver->platform == GPU_HIP;
    const char *const error_name = hip ? "hipGetErrorName" : "cuGetErrorName";
    void *const error_member =
        hip ? (void *)&driver->hip_error_name : (void *)&driver->cuda_error_name;

    if (!bind_symbol(driver->library, error_name, error_member))
        return IRIS_FAIL(IRIS_EDRIVER, "%s: it has no symbol %s", file, error_name);
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; ++i) {
        const char *name = symbols[i].names[driver->platform];
        const bool optional = is_optional(name);

        if (name[0] == '\0')
            continue;
        if (!bind_symbol(driver->library, optional ? name + 1 : name,
                         (char *)driver + symbols[i].offset) &&
            !optional)
            return IRIS_FAIL(IRIS_EDRIVER, "%s: it has no symbol %s; the driver is too old", file,
                             name);
    }
    return IRIS_OK;
}

static enum iris_status load_locked(struct gpu_driver *driver)
{
    const char *const *files = driver->platform == GPU_HIP ? hip_libraries : cuda_libraries;
    const char *file = files[0];
    enum iris_status status;

    for (size_t i = 0; driver->library == NULL && files[i] != NULL; ++i) {
        file = files[i];
        driver->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    }
    if (driver->library == NULL)
        return IRIS_FAIL(IRIS_EDRIVER, "backend '%s': cannot load %s: no GPU driver is installed",
                         driver->platform == GPU_HIP ? "hip" : "cuda", files[0]);
    status = bind_all(driver, file);
    if (status != IRIS_OK) {
        (void)dlclose(driver->library);
        driver->library = NULL;
    }
    return status;
}

enum iris_status gpu_driver_load(enum gpu_platform platform, const struct gpu_driver **out)
{
    struct gpu_driver *driver = &drivers[platform];
    enum iris_status status = IRIS_OK;

    pthread_mutex_lock(&load_lock);
    driver->platform = platform;
    if (driver->library == NULL)
        status = load_locked(driver);
    pthread_mutex_unlock(&load_lock);
    if (status == IRIS_OK)
        *out = driver;
    return status;
}

enum iris_status gpu_driver_fail(const struct gpu_driver *driver, const char *function,
                                 gpu_result result)
{
    const char *name = NULL;

    if (driver->platform == GPU_HIP)
        name = driver->hip_error_name(result);
    else if (driver->cuda_error_name(result, &name) != 0)
        name = NULL;
    return IRIS_FAIL(IRIS_EDRIVER, "%s: %s (%d)", function, name != NULL ? name : "unknown error",
                     result);
}
