/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Loading a driver's library and binding its symbols.
 */
#include "gpu_driver.h"

#include <dlfcn.h>
#include <string.h>

#include "base/process.h"
#include "mapped_library.h"

enum { CUDA_NOT_INITIALIZED = 3 };

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

static const struct {
    const char *backend;
    const char *stem;     /* of the library's files */
    const char *files[5]; /* where none is mapped, in the order in which they are tried */
} libraries[] = {
    /* The development link first: it is what the loader path of an installation points to. */
    [GPU_HIP] = {"hip",
                 "libamdhip64",
                 {"libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"}},
    [GPU_CUDA] = {"cuda", "libcuda", {"libcuda.so.1"}},
};

static struct gpu_driver drivers[2]; /* bound when .library is set; never unloaded */
/* What came of initialising it; under the process's lock. */
static struct attempt {
    uint64_t by; /* 1 + the generation of the process that tried; 0: nobody; FOREIGN */
    size_t function;
    gpu_result result; /* of it */
    const char *error; /* the driver's name of a result that is not 0 */
    int count;         /* devices */
} attempts[2];
static const uint64_t FOREIGN = UINT64_MAX; /* somebody else, before a fork */

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

/* Which of the platform's libraries the process has mapped: one or none, else IRIS_EDRIVER, since
 * memory, streams and handles of one know nothing of those of another. torch's wheels bring one of
 * their own, beside which the system's may lie. */
static enum iris_status find_mapped(enum gpu_platform platform,
                                    struct iris_mapped_libraries *mapped)
{
    iris_find_mapped_libraries(libraries[platform].stem, mapped);
    if (mapped->count <= 1)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EDRIVER,
                     "backend '%s': this process has mapped two GPU drivers, %s and %s, of which "
                     "neither knows the other's memory; let the loader path lead to one of them",
                     libraries[platform].backend, mapped->paths[0], mapped->paths[1]);
}

static enum iris_status load(struct gpu_driver *driver)
{
    const enum gpu_platform platform = driver->platform;
    const char *const *files = libraries[platform].files;
    struct iris_mapped_libraries mapped;
    const char *file = files[0];
    enum iris_status status;

    IRIS_TRY(find_mapped(platform, &mapped));
    if (mapped.count == 1) {
        file = mapped.paths[0];
        driver->library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    }
    for (size_t i = 0; driver->library == NULL && files[i] != NULL; ++i) {
        file = files[i];
        driver->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    }
    if (driver->library == NULL)
        return IRIS_FAIL(IRIS_EDRIVER, "backend '%s': cannot load %s: no GPU driver is installed",
                         libraries[platform].backend, files[0]);
    /* A name that is not the mapped one's may have led to another file. */
    status = find_mapped(platform, &mapped);
    if (status == IRIS_OK)
        status = bind_all(driver, file);
    if (status != IRIS_OK) {
        (void)dlclose(driver->library);
        driver->library = NULL;
    }
    return status;
}

/* Under the process's lock: a child forked while another thread is in there would find a library
 * half loaded. */
enum iris_status gpu_driver_load(enum gpu_platform platform, const struct gpu_driver **out)
{
    struct gpu_driver *driver = &drivers[platform];
    enum iris_status status = IRIS_OK;

    iris_process_lock();
    driver->platform = platform;
    if (driver->library == NULL)
        status = load(driver);
    iris_process_unlock();
    if (status == IRIS_OK)
        *out = driver;
    return status;
}

static bool is_inherited(const struct attempt *attempt)
{
    return attempt->by == FOREIGN ||
           (attempt->count > 0 && attempt->by != iris_process_generation() + 1);
}

static const char *error_name(const struct gpu_driver *driver, gpu_result result)
{
    const char *name = NULL;

    if (driver->platform == GPU_HIP)
        name = driver->hip_error_name(result);
    else if (driver->cuda_error_name(result, &name) != 0)
        name = NULL;
    return name != NULL ? name : "unknown error";
}

static enum iris_status fail(const char *function, const char *error, gpu_result result)
{
    return IRIS_FAIL(IRIS_EDRIVER, "%s: %s (%d)", function, error, result);
}

/* Under the process's lock, for the same reason. What the driver says of a failure is kept: in a
 * child even to ask for the name of an error may wait for ever, for a lock of the driver's that
 * another thread of the parent held. */
static void try_init(const struct gpu_driver *driver, struct attempt *attempt)
{
    attempt->by = iris_process_generation() + 1;
    attempt->count = 0;
    attempt->function = offsetof(struct gpu_driver, init);
    attempt->result = driver->init(0);
    /* What CUDA says in a child of a process in which anybody has initialised it. */
    if (driver->platform == GPU_CUDA && attempt->result == CUDA_NOT_INITIALIZED)
        attempt->by = FOREIGN;
    if (attempt->result == 0) {
        attempt->function = offsetof(struct gpu_driver, device_count);
        attempt->result = driver->device_count(&attempt->count);
    }
    if (attempt->result != 0) {
        gpu_driver_forget_error(driver);
        attempt->error = error_name(driver, attempt->result);
    }
}

bool gpu_driver_is_inherited(const struct gpu_driver *driver)
{
    bool inherited;

    iris_process_lock();
    inherited = is_inherited(&attempts[driver->platform]);
    iris_process_unlock();
    return inherited;
}

enum iris_status gpu_driver_init(const struct gpu_driver *driver, int *count)
{
    struct attempt attempt;

    iris_process_lock();
    attempt = attempts[driver->platform];
    /* A child does not try what has failed in its parent: it may be a child of that very moment. */
    if (attempt.by == 0 || attempt.by == iris_process_generation() + 1)
        try_init(driver, &attempt);
    attempts[driver->platform] = attempt;
    iris_process_unlock();
    if (is_inherited(&attempt))
        return IRIS_FAIL(IRIS_EDRIVER,
                         "backend '%s': this process was forked from one that uses the driver, "
                         "which a forked child cannot; start processes by \"spawn\" or "
                         "\"forkserver\"",
                         libraries[driver->platform].backend);
    if (attempt.result != 0)
        return fail(gpu_driver_name(driver, attempt.function), attempt.error, attempt.result);
    *count = attempt.count;
    return IRIS_OK;
}

void gpu_driver_forget_error(const struct gpu_driver *driver)
{
    if (driver->last_error != NULL)
        (void)driver->last_error();
}

enum iris_status gpu_driver_fail(const struct gpu_driver *driver, const char *function,
                                 gpu_result result)
{
    gpu_driver_forget_error(driver);
    return fail(function, error_name(driver, result), result);
}
