/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Finding a vendor's library in the process, and its symbols.
 */
#include "blas_library.h"

#include <dlfcn.h>
#include <string.h>

#include "base/process.h"

/* cublasLt.h: the same since CUDA 11.4. hipblaslt.h: since ROCm 6.0. */
static const struct blas_numbers numbers[] = {
    [GPU_HIP] = {.none = 111,
                 .transpose = 112,
                 .compute_f32 = 2,
                 .transpose_a = 0,
                 .transpose_b = 1,
                 .epilogue = 2,
                 .bias_pointer = 3,
                 .bias_type = 4,
                 .batch_count = 0,
                 .batch_step = 1,
                 .workspace_nbytes = 1,
                 .reductions = -1,
                 .alignment_a = -1,
                 .algorithm_nbytes = 24},
    [GPU_CUDA] = {.none = 0,
                  .transpose = 1,
                  .compute_f32 = 68,
                  .transpose_a = 3,
                  .transpose_b = 4,
                  .epilogue = 7,
                  .bias_pointer = 8,
                  .bias_type = 26,
                  .batch_count = 5,
                  .batch_step = 6,
                  .workspace_nbytes = 1,
                  .reductions = 3,
                  .alignment_a = 5,
                  .algorithm_nbytes = 64},
};

static const char *const files[][4] = {
    [GPU_HIP] = {"libhipblaslt.so.1", "libhipblaslt.so.0", "libhipblaslt.so", NULL},
    [GPU_CUDA] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", NULL},
};

static const struct {
    size_t offset; /* of the member in struct blas_library */
    const char *names[2];
} symbols[] = {
#define BLAS_SYMBOL(member, hip, cuda, parameters)                                                 \
    {offsetof(struct blas_library, member), {[GPU_HIP] = hip, [GPU_CUDA] = cuda}},
    BLAS_FUNCTIONS(BLAS_SYMBOL)
#undef BLAS_SYMBOL
};

static struct blas_library libraries[2]; /* under the process's lock until bound */

static bool bind(enum gpu_platform platform, void *file, struct blas_library *out)
{
    struct blas_library found = {.numbers = &numbers[platform], .library = file};

    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; ++i) {
        void *address = dlsym(file, symbols[i].names[platform]);
        if (address == NULL)
            return false;
        memcpy((char *)&found + symbols[i].offset, &address, sizeof address);
    }
    *out = found;
    return true;
}

const struct blas_library *blas_library_find(enum gpu_platform platform)
{
    struct blas_library *library = &libraries[platform];
    bool bound;

    iris_process_lock();
    for (size_t i = 0; library->library == NULL && files[platform][i] != NULL; ++i) {
        void *file = dlopen(files[platform][i], RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
        if (file != NULL && !bind(platform, file, library))
            (void)dlclose(file);
    }
    bound = library->library != NULL;
    iris_process_unlock();
    return bound ? library : NULL;
}
