/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Where things lie in the staging of a call, the same on the host and on GPUs: the half that the
 * call uses, what is in it (iris_reduce_layout of kernels/abi/schedule.h), and which partial tile
 * lies where. Who owns a tile, and who reduces what when, is each reduction's own:
 * kernels/cpu/reduction_host.h, kernels/gpu/gpu_reduction.h.
 */
#ifndef IRIS_STAGING_H
#define IRIS_STAGING_H

#include <stdint.h>

#include "kernels/abi/schedule.h"
#include "kernels/base/byte_range.h"
#include "kernels/base/tile.h"
#include "sync.h"

namespace iris
{

/* The half of the staging that the call uses, from the base of any rank's heap; see
 * NOTE [parity reuse]. */
IRIS_INLINE uint64_t staging_offset(const iris_call_args &args, uint32_t half)
{
    return args.data_offset + half * args.data_half_nbytes;
}

/* On rank `rank`: the index-th place of `nbytes` bytes in the part of the half that begins at
 * `part`, an offset of the layout. */
template <typename T>
IRIS_INLINE T *staged(const iris_call_args &args, uint32_t half, int32_t rank, uint64_t part,
                      int64_t index, uint64_t nbytes)
{
    return heap_pointer<T>(args, rank,
                           staging_offset(args, half) + part + (uint64_t)index * nbytes);
}

/* The number of rank `source`'s partial among those of one owner's share, in which its tile is the
 * index-th: that of its flag (times the parts of a tile) and, but where the layout leaves the
 * owner's own out, of its place. two_shot. */
IRIS_INLINE int64_t partial_in_share(const iris_schedule &s, int32_t source, int64_t index)
{
    return source * s.share_max + index;
}

/* The same among the partials of all tiles. one_shot. */
IRIS_INLINE int64_t partial_of_all(const iris_schedule &s, int32_t source, int64_t tile)
{
    return source * s.tiles + tile;
}

/* spinlock: the lock of a tile's sum on rank `rank`. */
IRIS_INLINE uint32_t *sum_lock(const iris_call_args &args, uint32_t half, int32_t rank,
                               const iris_reduce_layout &layout, int64_t tile)
{
    return staged<uint32_t>(args, half, rank, layout.locks_offset, 0, 0) + tile;
}

/* This work-group's part of zeroing this rank's sums and locks for the call that follows, without
 * being a call itself: nobody touches them before the barrier that comes after it. */
IRIS_INLINE void clear_all_sums(work_group wg, const iris_call_args &args, uint32_t half,
                                const iris_reduce_layout &layout)
{
    const byte_range part = share_of(wg.index, wg.count, layout.own_offset);

    if (part.nbytes > 0)
        clear_bytes(wg, staged<char>(args, half, args.rank, part.begin, 0, 0), part.nbytes);
}

} // namespace iris

#endif
