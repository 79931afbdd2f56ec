/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Collectives that move bytes: every sender pushes into every receiver's output. Who sends, who
 * receives, and how source and target move with the rank, are the only differences:
 *
 *                 senders   receivers   source_step   target_step
 *   all_gather    all       all         0             nbytes
 *   broadcast     src       all         0             0
 *   all_to_all    all       all         nbytes        nbytes
 *   gather        all       dst         0             nbytes
 *   scatter       src       all         nbytes        0
 *
 *   memory              written by   read by      ordered by
 *   output or staging   senders      this rank    ARRIVED before, DELIVERED after
 *
 * An output outside the heap is received in the staging and copied out at the end.
 */
#include "kernels/abi/instances.h"
#include "kernels/base/byte_range.h"
#include "kernels/base/tile.h"
#include "kernels/protocol/staging.h"
#include "kernels/protocol/sync.h"

namespace iris
{

IRIS_INLINE bool sends(const iris_copy_collective_args &args, int32_t rank)
{
    return (args.senders >> rank & 1u) != 0;
}

IRIS_INLINE bool receives(const iris_copy_collective_args &args, int32_t rank)
{
    return (args.receivers >> rank & 1u) != 0;
}

IRIS_INLINE void copy_collective(work_group wg, const iris_copy_collective_args &args)
{
    const call_state call = call_begin(args.call);
    const int32_t self = args.call.rank, world = args.call.world_size;
    const byte_range part = share_of(wg.index, wg.count, args.nbytes);
    const uint64_t staging = staging_offset(args.call, call.half);
    const char *input = device_pointer<const char>(args.input) + part.begin;
    char *output = device_pointer<char>(args.output) + part.begin;

    announce(wg, call, args.output_offset, 0, 0);
    if (sends(args, self)) {
        const uint64_t target = (uint64_t)self * args.target_step;
        for (int32_t hop = 1; hop < world; ++hop) {
            const int32_t peer = (self + hop) % world;
            if (!receives(args, peer))
                continue;
            if (!wait_arrived(wg, call, peer))
                return;
            const uint64_t wanted = call.control->records[call.half][peer].output_offset;
            const uint64_t base = wanted == IRIS_STAGED ? staging : wanted;
            copy_bytes(wg, heap_pointer<char>(args.call, peer, base + target + part.begin),
                       input + (uint64_t)peer * args.source_step, part.nbytes);
        }
        const char *own = input + (uint64_t)self * args.source_step;
        if (receives(args, self) && own != output + target) /* else in place */
            copy_bytes(wg, output + target, own, part.nbytes);
    }
    deliver(wg, call);
    if (args.output_offset == IRIS_STAGED && receives(args, self)) {
        if (!wait_delivered(wg, call))
            return;
        const char *staged = heap_pointer<char>(args.call, self, staging + part.begin);
        for (int32_t source = 0; source < world; ++source)
            if (source != self && sends(args, source))
                copy_bytes(wg, output + (uint64_t)source * args.target_step,
                           staged + (uint64_t)source * args.target_step, part.nbytes);
    }
    call_end(wg, call, args.ending);
}

} // namespace iris
