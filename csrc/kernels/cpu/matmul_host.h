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

template <typename T> product_producer<T> producer_of(const iris_product_args &args)
{
    return {as_matrix<const T>(args.reduce.a), as_matrix<const T>(args.reduce.b), args.reduce.K};
}

template <typename T, iris_variant kVariant>
void matmul_all_reduce(work_group wg, const iris_product_args &args)
{
    const product_producer<T> product = producer_of<T>(args);
    run_reduction<T, kVariant>(wg, args.reduce, product);
}

/* The arguments say where the shares are. */
template <typename T, iris_variant kVariant>
void matmul_reduce_scatter(work_group wg, const iris_product_args &args)
{
    matmul_all_reduce<T, kVariant>(wg, args);
}

template <typename T, iris_variant kVariant>
void matmul_all_gather(work_group wg, const iris_product_args &args)
{
    const product_producer<T> product = producer_of<T>(args);
    rank_reduction<T, product_producer<T>>(wg, args.reduce, product, kVariant).gather();
}

} // namespace iris

#endif
