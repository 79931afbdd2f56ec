/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce and reduce_scatter of plain tensors: the reduction exchange with pieces of the input
 * as partial tiles. An all_reduce sees its n elements as a (1, n) matrix, a reduce_scatter its
 * input as (world_size, n), row r being the share of rank r; in both a tile is a run of block_n
 * elements of one row. The input may lie outside the heap.
 */
#ifndef IRIS_ALL_REDUCE_HOST_H
#define IRIS_ALL_REDUCE_HOST_H

#include "kernels/abi/instances.h"
#include "kernels/protocol/packets.h"
#include "reduction_host.h"

namespace iris
{

template <typename T, iris_variant kVariant>
void all_reduce(work_group wg, const iris_reduce_args &args)
{
    const tensor_producer<T> input = {as_matrix<const T>(args.a)};
    run_reduction<T, kVariant>(wg, args, input);
}

template <typename T, iris_variant kVariant>
void reduce_scatter(work_group wg, const iris_reduce_args &args)
{
    all_reduce<T, kVariant>(wg, args);
}

/* The preparation of a call in the variants atomic and spinlock, of products too. */
template <typename T, iris_variant kVariant>
void clear_sums(work_group wg, const iris_reduce_args &args)
{
    const tensor_producer<T> none = {};
    rank_reduction<T, tensor_producer<T>>(wg, args, none, kVariant).clear_sums();
}

} // namespace iris

#endif
