/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The fused products on a GPU, as instances.def names them: C = sum over ranks of A_r @ B_r (+
 * bias), or this rank's share of it, or all ranks' A_r @ B_r one below the other, or (all ranks'
 * shards of A) @ B; the product and what goes on between ranks in one launch. A target's products
 * header has the forms, for P a type that all of the product has, or scaled<that of the result>:
 *
 *   product<P, kVariant, kResult>(wg, args)   sums, and rows of all ranks
 *   gathered_product<P>(wg, args)             of a gathered A
 *   few_rows_product<T>(wg, args)             any of the first three, in the form DECODE
 */
#ifndef IRIS_GPU_PRODUCTS_H
#define IRIS_GPU_PRODUCTS_H

#include "kernels/abi/target.h"
#include IRIS_TARGET_PRODUCTS

namespace iris
{

template <typename P, iris_variant kVariant>
IRIS_INLINE void matmul_all_reduce(work_group wg, const iris_product_args &args)
{
    product<P, kVariant, result::everywhere>(wg, args);
}

template <typename P, iris_variant kVariant>
IRIS_INLINE void matmul_reduce_scatter(work_group wg, const iris_product_args &args)
{
    product<P, kVariant, result::scattered>(wg, args);
}

template <typename P, iris_variant kVariant>
IRIS_INLINE void matmul_all_gather(work_group wg, const iris_product_args &args)
{
    product<P, kVariant, result::gathered>(wg, args);
}

template <typename P, iris_variant>
IRIS_INLINE void all_gather_matmul(work_group wg, const iris_gather_args &args)
{
    gathered_product<P>(wg, args);
}

template <typename T, iris_variant>
IRIS_INLINE void decode_product(work_group wg, const iris_decode_args &args)
{
    few_rows_product<T>(wg, args);
}

} // namespace iris

#endif
