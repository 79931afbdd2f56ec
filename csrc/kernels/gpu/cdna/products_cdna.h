/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which form a fused product has on CDNA: blocks that use the matrix units one tile at a time.
 */
#ifndef IRIS_PRODUCTS_CDNA_H
#define IRIS_PRODUCTS_CDNA_H

#include "decode_cdna.h"
#include "float8_block_cdna.h"
#include "float8_cdna.h"
#include "kernels/gpu/gather_matmul_block.h"
#include "kernels/gpu/matmul_block.h"

namespace iris
{

template <typename P, iris_variant kVariant, result kResult>
IRIS_INLINE void product(work_group wg, const iris_product_args &args)
{
    block_matmul<P, kVariant, kResult>(wg, args);
}

template <typename P> IRIS_INLINE void gathered_product(work_group wg, const iris_gather_args &args)
{
    block_gather_matmul<P>(wg, args);
}

template <typename T> IRIS_INLINE void few_rows_product(work_group wg, const iris_decode_args &args)
{
    streamed_decode_product<T>(wg, args);
}

} // namespace iris

#endif
