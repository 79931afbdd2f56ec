/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which form a fused product has on Hopper: tensor cores for float8, fp16 and bf16 operands,
 * multiply-adds for fp32.
 */
#ifndef IRIS_PRODUCTS_SM90_H
#define IRIS_PRODUCTS_SM90_H

#include "decode_sm90.h"
#include "gather_matmul_sm90.h"
#include "kernels/gpu/gather_matmul_block.h"
#include "kernels/gpu/matmul_block.h"
#include "matmul_sm90.h"

namespace iris
{

template <typename P, iris_variant kVariant, result kResult>
IRIS_INLINE void product(work_group wg, const iris_product_args &args)
{
    typedef typename product_types<P>::operand operand;
    if constexpr (sizeof(operand) <= 2)
        return tensor_core_matmul<operand, typename product_types<P>::result, kVariant, kResult>(
            args);
    else
        block_matmul<P, kVariant, kResult>(wg, args);
}

template <typename P> IRIS_INLINE void gathered_product(work_group wg, const iris_gather_args &args)
{
    typedef typename product_types<P>::operand operand;
    if constexpr (sizeof(operand) <= 2)
        return tensor_core_gather_matmul<operand, typename product_types<P>::result>(args);
    else
        block_gather_matmul<P>(wg, args);
}

template <typename T> IRIS_INLINE void few_rows_product(work_group, const iris_decode_args &args)
{
    tensor_core_decode_product<T>(args);
}

} // namespace iris

#endif
