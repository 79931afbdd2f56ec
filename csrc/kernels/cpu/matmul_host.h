/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The fused products on the host: C = sum over ranks of A_r @ B_r (+ bias), or this rank's share of
 * it, or all ranks' A_r @ B_r one below the other; the product and the exchange in one launch. A
 * work-group computes one tile of this rank's product at a time and hands it to the reduction
 * exchange while the next is computed; reduction_host.h has the variants.
 *
 * Also clear_sums, the per-call preparation of the variants atomic and spinlock.
 */
#ifndef IRIS_MATMUL_HOST_H
#define IRIS_MATMUL_HOST_H

#include "reduction_host.h"
#include "scaled_host.h"

namespace iris
{

/* Partial tiles that are products: A[rows, :] @ B[:, cols]. */
template <typename T> struct product_producer {
    matrix<const T> a;
    matrix<const T> b;
    int64_t K;

    int64_t inner_dimension() const
    {
        return K;
    }

    void produce(work_group wg, accumulator &acc, const iris_tile_coord &at) const
    {
        tile_gemm(wg, acc, a, b, at.row, at.col, {at.rows, at.cols}, K);
    }

    void produce_into(work_group wg, accumulator &acc, const iris_tile_coord &at,
                      const matrix<T> &target) const
    {
        tile_gemm_store(wg, acc, a, b, at.row, at.col, {at.rows, at.cols}, K, target);
    }
};

/* The same of float8 operands with scales. */
template <typename T> struct product_producer<scaled<T>> {
    scaled_tiles tiles;
    scaled_operands operands;

    int64_t inner_dimension() const
    {
        return operands.K;
    }

    void produce(work_group, accumulator &acc, const iris_tile_coord &at) const
    {
        tiles.multiply(acc, operands, at.row, at.col, {at.rows, at.cols}, false);
    }

    void produce_into(work_group wg, accumulator &acc, const iris_tile_coord &at,
                      const matrix<T> &target) const
    {
        produce(wg, acc, at);
        tile_store(wg, target, acc, {at.rows, at.cols});
    }
};

/* P: a type that all of the product has, or scaled<that of the result>. */
template <typename P> product_producer<P> producer_of(work_group wg, const iris_product_args &args)
{
    typedef typename product_types<P>::operand operand;
    const iris_reduce_args &r = args.reduce;
    const matrix<const operand> a = as_matrix<const operand>(r.a);
    const matrix<const operand> b = as_matrix<const operand>(r.b);

    if constexpr (product_types<P>::kIsScaled)
        return {scaled_tiles(wg, {r.block_m, r.block_n, r.block_k}, r.K),
                {a, b, args.scaling, r.K}};
    else
        return {a, b, r.K};
}

template <typename P, iris_variant kVariant>
void matmul_all_reduce(work_group wg, const iris_product_args &args)
{
    const product_producer<P> product = producer_of<P>(wg, args);
    run_reduction<typename product_types<P>::result, kVariant>(wg, args.reduce, product);
}

/* The arguments say where the shares are. */
template <typename P, iris_variant kVariant>
void matmul_reduce_scatter(work_group wg, const iris_product_args &args)
{
    matmul_all_reduce<P, kVariant>(wg, args);
}

template <typename P, iris_variant kVariant>
void matmul_all_gather(work_group wg, const iris_product_args &args)
{
    const product_producer<P> product = producer_of<P>(wg, args);
    rank_reduction<typename product_types<P>::result, product_producer<P>>(wg, args.reduce, product,
                                                                           kVariant)
        .gather();
}

} // namespace iris

#endif
