/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which form a fused product has on Hopper: tensor cores for fp16 and bf16, multiply-adds for fp32.
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

template <typename T, iris_variant kVariant, result kResult>
IRIS_INLINE void product(work_group wg, const iris_product_args &args)
{
    if constexpr (sizeof(T) == 2)
        return tensor_core_matmul<T, kVariant, kResult>(args);
    else
        block_matmul<T, kVariant, kResult>(wg, args.reduce);
}

template <typename T> IRIS_INLINE void gathered_product(work_group wg, const iris_gather_args &args)
{
    if constexpr (sizeof(T) == 2)
        return tensor_core_gather_matmul<T>(args);
    else
        block_gather_matmul<T>(wg, args);
}

template <typename T> IRIS_INLINE void few_rows_product(work_group, const iris_decode_args &args)
{
    tensor_core_decode_product<T>(args);
}

} // namespace iris

#endif
