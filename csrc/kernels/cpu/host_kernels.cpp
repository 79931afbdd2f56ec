/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The kernels compiled for the host: every row of instances.def as a function that runs one
 * work-group, found by its number.
 */
#include "kernels/abi/instances.h"

#include "all_reduce_host.h"
#include "decode_host.h"
#include "gather_matmul_host.h"
#include "kernels/ops/barrier.hip"
#include "kernels/ops/clocks.hip"
#include "kernels/ops/copy_collectives.hip"
#include "kernels/ops/copy_matrix.hip"
#include "kernels/ops/messages.hip"
#include "kernels/ops/one_sided.hip"
#include "kernels/ops/rmsnorm.h"
#include "matmul_host.h"

namespace
{

template <typename Args, void (*kKernel)(iris::work_group, const Args &)>
void run(const void *args, int32_t index, int32_t count, char *scratch)
{
#if defined(IRIS_TRACED)
    iris::traced_group = index;
#endif
    iris::current_group = {index, count};
    kKernel({index, count, scratch}, *static_cast<const Args *>(args));
}

struct row {
    uint32_t id;
    iris_host_kernel kernel;
};

#define IRIS_INSTANCE(operation, variant, dtype, arguments, kernel)                                \
    {IRIS_KERNEL_ID(IRIS_OP_##operation, IRIS_VARIANT_##variant, IRIS_DTYPE_##dtype),              \
     run<arguments, kernel>},
#define IRIS_HAS_SCALED
const row rows[] = {
#include "kernels/abi/instances.def"
#if !defined(IRIS_TRACED)
    /* Of the host alone: the last step of all_reduce_rmsnorm. */
    IRIS_INSTANCE(ALL_REDUCE_RMSNORM, NONE, F32, iris_rmsnorm_args, iris::rmsnorm<float>)
        IRIS_INSTANCE(ALL_REDUCE_RMSNORM, NONE, F16, iris_rmsnorm_args, iris::rmsnorm<iris::half_t>)
            IRIS_INSTANCE(ALL_REDUCE_RMSNORM, NONE, BF16, iris_rmsnorm_args,
                          iris::rmsnorm<iris::bfloat16_t>)
#endif
};
#undef IRIS_INSTANCE

iris_host_kernel find(uint32_t kernel_id)
{
    for (const row &candidate : rows)
        if (candidate.id == kernel_id)
            return candidate.kernel;
    return nullptr;
}

} // namespace

#if defined(IRIS_TRACED)
iris_host_kernel iris_host_traced_kernel_find(uint32_t kernel_id)
{
    return find(kernel_id);
}
#else
iris_host_kernel iris_host_kernel_find(uint32_t kernel_id)
{
    return find(kernel_id);
}

size_t iris_host_scratch_nbytes(int32_t block_m, int32_t block_n, int64_t K, bool scaled)
{
    /* Products accumulate in float, reductions of integers in up to eight bytes. */
    const size_t accumulator = iris::accumulator_nbytes({block_m, block_n, 1}, K > 0 ? 4 : 8);
    return (scaled ? 2 : 1) * accumulator +
           (K > 0 ? iris_gemm_scratch_nbytes(block_m, block_n, K) : 0);
}
#endif
