/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce and reduce_scatter of plain tensors on a GPU by the reduction exchange, and what all
 * GPU kernels begin with. An all_reduce sees its n elements as a (1, n) matrix, a reduce_scatter
 * its input as (world_size, n), row r being the share of rank r; in both a tile is a run of block_n
 * elements of one row. The input may lie outside the heap.
 */
#ifndef IRIS_GPU_COLLECTIVES_H
#define IRIS_GPU_COLLECTIVES_H

#include "gpu_reduction.h"
#include "kernels/abi/launch_limits.h"
#include "kernels/protocol/packets.h"

namespace iris
{

#if defined(__CUDACC__)
constexpr bool kSm90 = true;
#else
constexpr bool kSm90 = false;
#endif

/* The block's first `threads` as one group. */
IRIS_INLINE work_group whole_block(int32_t threads)
{
    IRIS_SHARED static uint32_t word;
#if defined(__CUDACC__)
    return {(int32_t)blockIdx.x, (int32_t)gridDim.x, (int32_t)threadIdx.x, threads, 0, &word};
#else
    return {(int32_t)__builtin_amdgcn_workgroup_id_x(),
            (int32_t)(__builtin_amdgcn_grid_size_x() / (uint32_t)threads),
            (int32_t)__builtin_amdgcn_workitem_id_x(),
            threads,
            0,
            &word};
#endif
}

/* The work-group's place in the tile order. Where the hardware deals work-groups to dies in turn,
 * each die gets neighbouring tiles, which share operands in its L2. */
IRIS_INLINE int64_t first_tile(work_group wg, int32_t dies)
{
    if (dies <= 1 || wg.count % dies != 0)
        return wg.index;
    return wg.index % dies * (wg.count / dies) + wg.index / dies;
}

template <typename T, iris_variant kVariant, result kResult>
IRIS_INLINE void reduce_runs(work_group wg, const iris_reduce_args &args)
{
    IRIS_SHARED static exchange_shared shared;
    const call_state call = call_begin(args.call);
    gpu_exchange<T, kVariant, run_geometry<T>, kResult> exchange(wg, args, call, &shared);
    const matrix<const T> input = as_matrix<const T>(args.a);
    const bool vector = has_vector_rows<T>(args.a.address, args.a.stride_row, args.a.stride_col);

    exchange.announce_output();
    IRIS_NO_UNROLL
    for (int64_t tile = wg.index; tile < exchange.tiles(); tile += wg.count) {
        const iris_tile_coord at = exchange.coord(tile);
        const matrix<const T> run = input.tile(at.row, at.col);
        IRIS_NO_UNROLL
        for (int32_t chunk = wg.thread; chunk * kChunk<T> < at.cols; chunk += wg.threads) {
            const chunk16 c =
                load_run(run.data + chunk * kChunk<T>, 1, at.cols - chunk * kChunk<T>, vector);
            IRIS_NO_UNROLL
            for (int32_t i = 0; i < exchange.partial_places(); ++i)
                store_chunk(exchange.place_of(tile, i).slot + chunk * kChunkBytes, c);
        }
        signal_tiles(wg, call, exchange.partial_places(),
                     [&](int32_t i) { return exchange.place_of(tile, i); });
    }
    exchange.bring_on();
}

template <typename T, iris_variant kVariant>
IRIS_INLINE void all_reduce(work_group wg, const iris_reduce_args &args)
{
    reduce_runs<T, kVariant, result::everywhere>(wg, args);
}

template <typename T, iris_variant kVariant>
IRIS_INLINE void reduce_scatter(work_group wg, const iris_reduce_args &args)
{
    reduce_runs<T, kVariant, result::scattered>(wg, args);
}

/* The preparation of a call in the variants atomic and spinlock, of products too. */
template <typename T, iris_variant kVariant>
IRIS_INLINE void clear_sums(work_group wg, const iris_reduce_args &args)
{
    const call_state call = call_begin(args.call);
    gpu_exchange<T, kVariant, run_geometry<T>, result::everywhere>(wg, args, call, nullptr)
        .clear_sums();
}

} // namespace iris

#endif
