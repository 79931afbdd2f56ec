/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The kernels as a GPU launches them: every row of instances.def as an entry point named
 * iris_<operation>_<variant>_<dtype>. One file makes one code object for one target.
 */
#include "kernels/abi/instances.h"

#include "gpu_collectives.h"
#include "gpu_gather_matmul.h"
#include "gpu_matmul.h"
#include "kernels/ops/barrier.hip"
#include "kernels/ops/clocks.hip"
#include "kernels/ops/copy_collectives.hip"
#include "kernels/ops/messages.hip"
#include "kernels/ops/one_sided.hip"
#include "kernels/ops/rmsnorm.h"

#if defined(__CUDACC__)
#define IRIS_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define IRIS_ARGUMENTS(type) const __grid_constant__ type
#else
#define IRIS_KERNEL(threads)                                                                       \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(threads, threads))) void
#define IRIS_ARGUMENTS(type) const type
#endif

namespace iris
{

/* The arguments as the kernel reads them. On gfx a copy in LDS: read from where they are passed,
 * the compiler would keep most of them in scalar registers, of which there are too few. */
template <typename Args> IRIS_INLINE const Args &at_hand(work_group wg, const Args &args)
{
#if defined(__HIP__)
    IRIS_SHARED static Args copy;
    const uint32_t *from = reinterpret_cast<const uint32_t *>(&args);
    uint32_t *to = reinterpret_cast<uint32_t *>(&copy);
    for (uint32_t i = (uint32_t)wg.thread; i < sizeof(Args) / 4; i += (uint32_t)wg.threads)
        to[i] = from[i];
    group_barrier(wg);
    return copy;
#else
    (void)wg;
    return args;
#endif
}

/* See IRIS_BEGINS_EARLY. Also without such a launch: then neither does anything. */
template <iris_variant kVariant> IRIS_INLINE void begin_after_the_one_before()
{
#if defined(__CUDACC__)
    if constexpr (IRIS_BEGINS_EARLY(kSm90, kVariant))
        follow_previous_launch();
#endif
}

} // namespace iris

#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel)                                \
    IRIS_KERNEL(IRIS_BLOCK_THREADS(iris::kSm90, IRIS_OP_##operation, IRIS_DTYPE_##dtype))          \
    iris_##operation##_##variant##_##dtype(IRIS_ARGUMENTS(arguments) args)                         \
    {                                                                                              \
        iris::begin_after_the_one_before<IRIS_VARIANT_##variant>();                                \
        const iris::work_group wg = iris::whole_block(IRIS_GROUP_THREADS(IRIS_OP_##operation));    \
        kernel(wg, iris::at_hand(wg, args));                                                       \
    }
#include "kernels/abi/instances.def"
