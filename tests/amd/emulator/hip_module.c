/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Modules and launches. EMULATOR_PROGRAMS names the folder with the objects' decoded instructions.
 * EMULATOR_PROFILE names a file to which every launch adds lines "kernel address count",
 * EMULATOR_COUNTS a folder, to a file of which it adds lines "instruction count".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hip_double.h"

enum { MAX_KERNARG = 4096, PACKET_AT = MAX_KERNARG - 64, MAX_BLOCK = 1024 };
enum { LDS_NBYTES = 65536, LDS_NBYTES_GFX950 = 163840 };

/* A kernel of a module, as hipModuleGetFunction returns it. */
struct function {
    struct program *program;
    const struct kernel *kernel;
    struct function *next;
};

struct module {
    struct program *program;
    struct function *functions;
};

/* The variable's value, NULL if it is empty. */
static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

/* On stderr, and in the file of EMULATOR_LOG: what several processes say at once is hard to catch.
 */
static void complain(const char *message)
{
    const char *path = setting("EMULATOR_LOG");
    FILE *file = path != NULL ? fopen(path, "a") : NULL;

    (void)fprintf(stderr, "emulator: %s\n", message);
    if (file == NULL)
        return;
    (void)fprintf(file, "%s\n", message);
    (void)fclose(file);
}

HIP_API hip_result hipModuleLoadData(void **module, const void *image)
{
    const struct device *device = current_device();
    const char *directory = getenv("EMULATOR_PROGRAMS");
    struct module *made = calloc(1, sizeof *made);
    char message[512] = "EMULATOR_PROGRAMS is not set";
    size_t nbytes;

    if (made == NULL || device == NULL) {
        free(made);
        return device == NULL ? HIP_NO_DEVICE : HIP_OUT_OF_MEMORY;
    }
    nbytes = object_nbytes(image, device->arch);
    if (nbytes != 0 && directory != NULL)
        made->program = program_load(image, nbytes, directory, message);
    if (made->program == NULL) {
        if (nbytes != 0)
            complain(message);
        free(made);
        return HIP_NO_BINARY;
    }
    if (!region_add(made->program->image, made->program->image_nbytes))
        abort();
    *module = made;
    return HIP_SUCCESS;
}

HIP_API hip_result hipModuleUnload(struct module *module)
{
    streams_drain();
    (void)region_remove(module->program->image);
    program_free(module->program);
    while (module->functions != NULL) {
        struct function *function = module->functions;
        module->functions = function->next;
        free(function);
    }
    free(module);
    return HIP_SUCCESS;
}

HIP_API hip_result hipModuleGetFunction(void **function, struct module *module, const char *name)
{
    char message[512];
    const struct device *device = current_device();
    const struct kernel *kernel =
        program_kernel(module->program, name, device == NULL || device->checks, message);
    struct function *made;

    if (kernel == NULL) {
        complain(message);
        return HIP_NOT_FOUND;
    }
    made = malloc(sizeof *made);
    if (made == NULL)
        return HIP_OUT_OF_MEMORY;
    *made = (struct function){module->program, kernel, module->functions};
    module->functions = made;
    *function = made;
    return HIP_SUCCESS;
}

/* Not HIP: program_nops of a kernel. */
HIP_API uint32_t emulator_nops(const struct function *function, uint32_t *needed)
{
    return program_nops(function->program, function->kernel, needed);
}

struct launch_task {
    struct task task;
    struct device *device;
    const struct program *program;
    const struct kernel *kernel;
    uint32_t grid[3], block, shared;
    uint8_t kernarg[MAX_KERNARG];
};

static void write_profile(const struct dispatch *dispatch, const char *path)
{
    enum { AT_ONCE = 1 << 20 }; /* so that other ranks' lines do not come between */
    FILE *file = fopen(path, "a");
    char *buffer = malloc(AT_ONCE);

    if (file != NULL && buffer != NULL)
        (void)setvbuf(file, buffer, _IOFBF, AT_ONCE);
    for (uint32_t i = 0; file != NULL && i < dispatch->program->instructions; ++i)
        if (dispatch->profile[i] != 0)
            (void)fprintf(file, "%s %x %llu\n", dispatch->kernel->name,
                          dispatch->program->instruction[i].address,
                          (unsigned long long)dispatch->profile[i]);
    if (file != NULL)
        (void)fclose(file);
    free(buffer);
}

/* Each process has a file of its own. */
static void write_counts(const struct dispatch *dispatch, const char *directory)
{
    const struct program *program = dispatch->program;
    uint64_t *counts = calloc(program->name_count, sizeof *counts);
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/%ld", directory, (long)getpid());
    for (uint32_t i = 0; counts != NULL && i < program->instructions; ++i)
        if (dispatch->profile[i] != 0)
            counts[(program->instruction[i].name - program->names[0]) /
                   (ptrdiff_t)sizeof program->names[0]] += dispatch->profile[i];
    FILE *file = counts != NULL ? fopen(path, "a") : NULL;
    for (uint32_t i = 0; file != NULL && i < program->name_count; ++i)
        if (counts[i] != 0)
            (void)fprintf(file, "%s %llu\n", program->names[i], (unsigned long long)counts[i]);
    if (file != NULL)
        (void)fclose(file);
    free(counts);
}

static void run_launch(struct task *task)
{
    const struct launch_task *launch = (struct launch_task *)task;
    const char *const profile = setting("EMULATOR_PROFILE"), *counts = setting("EMULATOR_COUNTS");
    void *kernarg = aligned_alloc(4096, MAX_KERNARG);
    struct dispatch dispatch = {
        .device = launch->device,
        .program = launch->program,
        .kernel = launch->kernel,
        .grid = {launch->grid[0], launch->grid[1], launch->grid[2]},
        .block = launch->block,
        .dynamic_lds = launch->shared,
        .kernarg = kernarg,
    };
    enum dispatch_result result;

    if (sticky_result() != HIP_SUCCESS || kernarg == NULL) {
        free(kernarg);
        return;
    }
    memcpy(kernarg, launch->kernarg, MAX_KERNARG);
    dispatch.packet = (struct dispatch_packet *)((char *)kernarg + PACKET_AT);
    *dispatch.packet = (struct dispatch_packet){
        .workgroup_size = {(uint16_t)launch->block, 1, 1},
        .grid_size = {launch->grid[0] * launch->block, launch->grid[1], launch->grid[2]},
        .group_nbytes = launch->kernel->lds_nbytes + launch->shared,
    };
    if (!region_add(kernarg, MAX_KERNARG))
        abort();
    if (profile != NULL || counts != NULL)
        dispatch.profile = calloc(launch->program->instructions, sizeof *dispatch.profile);
    result = dispatch_run(&dispatch);
    if (dispatch.profile != NULL && profile != NULL)
        write_profile(&dispatch, profile);
    if (dispatch.profile != NULL && counts != NULL)
        write_counts(&dispatch, counts);
    free(dispatch.profile);
    if (result != DISPATCH_OK) {
        complain(dispatch.message);
        set_sticky_result(result == DISPATCH_DEADLOCK ? HIP_LAUNCH_TIMEOUT : HIP_LAUNCH_FAILURE);
    }
    (void)region_remove(kernarg);
    free(kernarg);
}

HIP_API hip_result hipModuleLaunchKernel(struct function *function, unsigned int gx,
                                         unsigned int gy, unsigned int gz, unsigned int bx,
                                         unsigned int by, unsigned int bz, unsigned int shared,
                                         void *stream, void **parameters, void **extra)
{
    const struct kernel *kernel = function->kernel;
    struct launch_task launch = {
        .task = {NULL, run_launch, sizeof launch},
        .device = current_device(),
        .program = function->program,
        .kernel = kernel,
        .grid = {gx, gy, gz},
        .block = bx,
        .shared = shared,
    };

    const uint32_t room = function->program->arch == ARCH_GFX950 ? LDS_NBYTES_GFX950 : LDS_NBYTES;

    if (sticky_result() != HIP_SUCCESS)
        return sticky_result();
    if (gx * gy * gz == 0 || bx == 0 || bx > MAX_BLOCK || by != 1 || bz != 1 || extra != NULL ||
        kernel->lds_nbytes + shared > room || kernel->kernarg_nbytes > PACKET_AT)
        return HIP_INVALID_VALUE;
    for (uint32_t i = 0; i < kernel->arguments; ++i)
        memcpy(launch.kernarg + kernel->argument[i].offset, parameters[i],
               kernel->argument[i].nbytes);
    return stream_add(stream, &launch.task);
}
