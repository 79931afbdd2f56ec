/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Reading code objects from the package.
 */
#include "gpu_objects.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/abi/launch_limits.h"

struct instance {
    uint32_t id;
    enum iris_operation operation;
    enum iris_variant variant;
    enum iris_dtype dtype;
    const char *name;
};

/* Also of kernels that not every target has: see struct iris_chip. */
#define IRIS_HAS_SCALED
static const struct instance instances[] = {
#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel)                                \
    {IRIS_KERNEL_ID(IRIS_OP_##operation, IRIS_VARIANT_##variant, IRIS_DTYPE_##dtype),              \
     IRIS_OP_##operation, IRIS_VARIANT_##variant, IRIS_DTYPE_##dtype,                              \
     "iris_" #operation "_" #variant "_" #dtype},
#include "kernels/abi/instances.def"
#undef IRIS_INSTANCE
};

static const char *suffix_of(const struct gpu_driver *driver)
{
    return driver->platform == GPU_HIP ? "hsaco" : "cubin";
}

/* "iris_gfx942.hsaco, iris_sm_90a.cubin" or "none". */
static void list_objects(const char *directory, char *text, size_t nbytes)
{
    DIR *dir = opendir(directory);
    const struct dirent *entry;
    size_t used = 0;

    (void)snprintf(text, nbytes, "none");
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');
        if (strncmp(entry->d_name, "iris_", 5) != 0 || dot == NULL ||
            (strcmp(dot, ".hsaco") != 0 && strcmp(dot, ".cubin") != 0) || used + 64 > nbytes)
            continue;
        used += (size_t)snprintf(text + used, nbytes - used, "%s%.48s", used > 0 ? ", " : "",
                                 entry->d_name);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

/* The whole file, NUL-terminated. NULL with errno set. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    long nbytes;

    if (file == NULL)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (nbytes = ftell(file)) >= 0 &&
        fseek(file, 0, SEEK_SET) == 0 && (data = malloc((size_t)nbytes + 1)) != NULL) {
        if (fread(data, 1, (size_t)nbytes, file) == (size_t)nbytes) {
            data[nbytes] = '\0';
        } else {
            free(data);
            data = NULL;
        }
    }
    (void)fclose(file);
    return data;
}

enum iris_status gpu_objects_load(const struct gpu_driver *driver, const char *directory,
                                  const char *name, struct gpu_objects *out)
{
    char path[4096], list[512];
    enum iris_status status;
    gpu_result result;
    char *image;

    list_objects(directory, list, sizeof list);
    if (snprintf(path, sizeof path, "%s/iris_%s.%s", directory, name, suffix_of(driver)) >=
        (int)sizeof path)
        return IRIS_FAIL(IRIS_EDRIVER, "code objects: the path %s is too long", directory);
    image = read_file(path);
    if (image == NULL)
        return IRIS_FAIL(IRIS_EDRIVER,
                         "code objects: cannot read %s (%s); this build of iris_c has: %s", path,
                         strerror(errno), list);
    result = driver->module_load(&out->module, image);
    free(image);
    if (result != 0) {
        status = gpu_driver_fail(driver, GPU_NAME(driver, module_load), result);
        struct iris_error cause;
        iris_error_save(&cause);
        (void)IRIS_FAIL(status,
                        "code objects: %s is damaged or not for this device (%.200s); this "
                        "build of iris_c has: %s",
                        path, cause.message, list);
        return status;
    }
    out->driver = driver;
    out->sm90 = driver->platform == GPU_CUDA;
    return IRIS_OK;
}

void gpu_objects_unload(struct gpu_objects *objects)
{
    if (objects->module != NULL)
        (void)GPU_SUCCEEDS(objects->driver, module_unload, objects->module);
    objects->module = NULL;
}

static const struct instance *find_instance(uint32_t kernel_id)
{
    for (size_t i = 0; i < sizeof instances / sizeof instances[0]; ++i)
        if (instances[i].id == kernel_id)
            return &instances[i];
    return NULL;
}

static enum iris_status find_kernel(struct gpu_objects *objects, uint32_t kernel_id,
                                    struct gpu_kernel *kernel)
{
    enum { MAX_DYNAMIC_SHARED_SIZE = 8 };
    const struct instance *instance = find_instance(kernel_id);
    void *function;

    if (instance == NULL)
        return IRIS_FAIL(IRIS_EDRIVER, "code objects: the build has no kernel %u", kernel_id);
    IRIS_TRY(
        GPU_CALL(objects->driver, module_function, &function, objects->module, instance->name));
    kernel->threads = IRIS_BLOCK_THREADS(objects->sm90, instance->operation, instance->dtype);
    kernel->begins_early = IRIS_BEGINS_EARLY(objects->sm90, instance->variant);
    kernel->shared_nbytes = 0;
    if (iris_is_tensor_core_product(objects->sm90, instance->operation, instance->dtype)) {
        kernel->shared_nbytes = instance->variant == IRIS_VARIANT_LL ? IRIS_DECODE_SHARED_NBYTES
                                                                     : IRIS_SM90_SHARED_NBYTES;
        IRIS_TRY(GPU_CALL(objects->driver, function_attribute, function, MAX_DYNAMIC_SHARED_SIZE,
                          (int)kernel->shared_nbytes));
    }
    kernel->function = function;
    return IRIS_OK;
}

enum iris_status gpu_objects_kernel(struct gpu_objects *objects, uint32_t kernel_id,
                                    const struct gpu_kernel **out)
{
    struct gpu_kernel *kernel = &objects->kernels[kernel_id];

    if (kernel->function == NULL)
        IRIS_TRY(find_kernel(objects, kernel_id, kernel));
    *out = kernel;
    return IRIS_OK;
}
