/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * all_reduce and reduce_scatter of plain tensors on a GPU by the reduction over ranks, and what
 * all GPU kernels begin with. An all_reduce sees its n elements as a (1, n) matrix, a
 * reduce_scatter its input as (world_size, n), row r being the share of rank r; in both a tile is a
 * run of block_n elements of one row. The input may lie outside the heap.
 */
#ifndef IRIS_GPU_COLLECTIVES_H
#define IRIS_GPU_COLLECTIVES_H

#include "gpu_reduction.h"
#include "kernels/abi/launch_limits.h"
#include "kernels/protocol/packets.h"

namespace iris
{

/* The block's first `threads` as one group. */
IRIS_INLINE work_group whole_block(int32_t threads)
{
    IRIS_SHARED static uint32_t word;
    return {block_index(), block_count(threads), thread_index(), threads, 0, &word};
}

/* The work-group's place in the tile order. */
IRIS_INLINE int64_t first_tile(work_group wg, int32_t xcds)
{
    return iris_place_in_order(wg.index, wg.count, xcds);
}

template <typename T, iris_variant kVariant, result kResult>
IRIS_INLINE void reduce_runs(work_group wg, const iris_reduce_args &args)
{
    IRIS_SHARED static reduction_shared shared;
    const call_state call = call_begin(args.call);
    using reduction_t = gpu_reduction<T, kVariant, run_geometry<T>, kResult>;
    reduction_t reduction(wg, args, call, &shared);
    const matrix<const T> input = as_matrix<const T>(args.a);
    const bool vector = has_vector_rows<T>(args.a.address, args.a.stride_row, args.a.stride_col);

    reduction.announce_output();
    IRIS_NO_UNROLL
    for (int64_t tile = wg.index; tile < reduction.tiles(); tile += wg.count) {
        const iris_tile_coord at = reduction.coord(tile);
        const matrix<const T> run = input.tile(at.row, at.col);
        const typename reduction_t::partial_slots slots(reduction, tile);
        IRIS_NO_UNROLL
        for (int32_t chunk = wg.thread; chunk * kChunk<T> < at.cols; chunk += wg.threads) {
            const chunk16 c =
                load_run(run.data + chunk * kChunk<T>, 1, at.cols - chunk * kChunk<T>, vector);
            IRIS_NO_UNROLL
            for (int32_t i = 0; i < reduction.partial_places(); ++i)
                push_chunk(slots.at(i) + chunk * kChunkBytes, c);
        }
        signal_tiles(wg, call, reduction.partial_places(),
                     [&](int32_t i) { return slots.place(i); });
    }
    reduction.reduce_and_publish();
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
    gpu_reduction<T, kVariant, run_geometry<T>, result::everywhere>(wg, args, call, nullptr)
        .clear_sums();
}

} // namespace iris

#endif
