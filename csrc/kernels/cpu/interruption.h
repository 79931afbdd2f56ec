/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Work that takes long without a wait is cut short, too, when the caller of this rank's call is
 * interrupted (base/wait.h): between two tiles the caller's own thread asks whether it is, and the
 * others see it in the abort word. Who is to stop returns at once, and signals nothing more: what
 * it has left out must not look delivered.
 */
#ifndef IRIS_INTERRUPTION_H
#define IRIS_INTERRUPTION_H

#include "base/wait.h"
#include "kernels/protocol/sync.h"

namespace iris
{

class interruption
{
  public:
    explicit interruption(const call_state &call) : call_(call)
    {
    }

    /* To be asked before each tile. Before the first it does not look: small calls have one. */
    bool has_come()
    {
        if (!begun_) {
            begun_ = true;
            return false;
        }
        (void)iris_wait_is_over(clock_ticks(), &asked_ns_);
        /* acquire is not needed: nothing is read that the abort word would publish. */
        const uint32_t word = poll(abort_word(call_, call_.args.rank));
        return IRIS_ABORT_REASON(word) == IRIS_ABORT_INTERRUPTED &&
               IRIS_ABORT_CULPRIT(word) == call_.args.rank;
    }

  private:
    const call_state &call_;
    uint64_t asked_ns_ = 0;
    bool begun_ = false;
};

} // namespace iris

#endif
