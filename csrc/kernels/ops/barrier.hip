/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The device barrier: a call that only arrives, on a control block of its own. What a rank's
 * stream held before is visible to every rank's stream after.
 */
#include "kernels/abi/instances.h"
#include "kernels/protocol/sync.h"

namespace iris
{

IRIS_INLINE void barrier(work_group wg, const iris_barrier_args &args)
{
    const call_state call = call_begin(args.call);
    if (wg.index != 0)
        return;
    announce(wg, call, IRIS_STAGED, 0, 0);
    if (wait_all_peers(wg, call, call.control->arrived, IRIS_SIGNAL_BARRIER))
        call_complete(wg, call);
}

} // namespace iris
