/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The kernels as a GPU launches them: every row of instances.def as an entry point named
 * iris_<operation>_<variant>_<dtype>. One file makes one code object for one target.
 */
#include "kernels/abi/instances.h"

#include "gpu_collectives.h"
#include "gpu_products.h"
#include "kernels/ops/barrier.hip"
#include "kernels/ops/clocks.hip"
#include "kernels/ops/copy_collectives.hip"
#include "kernels/ops/copy_matrix.hip"
#include "kernels/ops/messages.hip"
#include "kernels/ops/one_sided.hip"
#include "kernels/ops/rmsnorm.h"

namespace iris
{

/* Whether a kernel's warps wait for the launch in front where they need to, each by itself. */
template <typename Args> constexpr bool kFollowsByWarps = false;
template <> constexpr bool kFollowsByWarps<iris_decode_args> = true;

/* See IRIS_BEGINS_EARLY. Also without such a launch: then neither does anything. */
template <iris_variant kVariant, typename Args> IRIS_INLINE void begin_after_the_one_before()
{
    if constexpr (IRIS_BEGINS_EARLY(IRIS_TARGET_IS_SM90, kVariant) && !kFollowsByWarps<Args>)
        follow_previous_launch();
}

} // namespace iris

/* See struct iris_chip. There are no traced twins of these: they would take as long to compile. */
#if IRIS_TARGET_HAS_FLOAT8 && !defined(IRIS_TRACED)
#define IRIS_HAS_SCALED
#define IRIS_LACKS_SCALED_FLOAT32
#endif

#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel)                                \
    IRIS_KERNEL(IRIS_BLOCK_THREADS(IRIS_TARGET_IS_SM90, IRIS_OP_##operation, IRIS_DTYPE_##dtype))  \
    iris_##operation##_##variant##_##dtype(IRIS_ARGUMENTS(arguments) args)                         \
    {                                                                                              \
        iris::begin_after_the_one_before<IRIS_VARIANT_##variant, arguments>();                     \
        const iris::work_group wg = iris::whole_block(IRIS_GROUP_THREADS(IRIS_OP_##operation));    \
        kernel(wg, iris::args_in_lds(wg, args));                                                   \
    }
#include "kernels/abi/instances.def"
