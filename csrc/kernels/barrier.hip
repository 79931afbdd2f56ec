/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The device barrier: a call that only arrives, on a control block of its own. What a rank's
 * stream held before is visible to every rank's stream after.
 */
#include "instances.h"
#include "sync.h"
#include "tile.h"

namespace iris
{

inline void barrier(work_group wg, const iris_barrier_args &args)
{
    const call_state call = call_begin(args.call);
    if (wg.index != 0)
        return;
    announce(wg, call, IRIS_STAGED, 0, 0);
    for (int32_t hop = 1; hop < args.call.world_size; ++hop) {
        const int32_t peer = (args.call.rank + hop) % args.call.world_size;
        if (!wait_peer(wg, call, &call.control->arrived[peer].value,
                       {IRIS_SIGNAL_BARRIER, peer, -1}))
            return;
    }
    call_complete(call);
}

} // namespace iris
