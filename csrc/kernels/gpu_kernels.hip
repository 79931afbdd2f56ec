/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The kernels as a GPU launches them: every row of instances.def as an entry point named
 * iris_<operation>_<variant>_<dtype>. One file makes one code object for one target.
 */
#include "instances.h"

#include "barrier.hip"
#include "gpu_collectives.h"
#include "gpu_matmul.h"
#include "transfer.hip"

#if defined(__CUDACC__)
#define IRIS_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define IRIS_ARGUMENTS(type) const __grid_constant__ type
#else
#define IRIS_KERNEL(threads)                                                                       \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(threads, threads))) void
#define IRIS_ARGUMENTS(type) const type
#endif

#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel)                                \
    IRIS_KERNEL(iris::kernel_threads(IRIS_OP_##operation, IRIS_DTYPE_##dtype))                     \
    iris_##operation##_##variant##_##dtype(IRIS_ARGUMENTS(arguments) args)                         \
    {                                                                                              \
        kernel(iris::whole_block(), args);                                                         \
    }
#include "instances.def"
