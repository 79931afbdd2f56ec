/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What one rank does alone to the heaps of others: put and get copy bytes, signal writes a user's
 * word in a peer's heap, wait waits for one in this rank's. What stands before a signal on its
 * stream is visible to what stands behind the wait on the other rank's: the ends of launches carry
 * it to the release, and from the acquire.
 */
#include "kernels/abi/instances.h"
#include "kernels/base/byte_range.h"
#include "kernels/base/tile.h"
#include "kernels/protocol/sync.h"

namespace iris
{

IRIS_INLINE void copy(work_group wg, const iris_copy_args &args)
{
    const byte_range part = share_of(wg.index, wg.count, args.nbytes);
    copy_bytes(wg, device_pointer<char>(args.target) + part.begin,
               device_pointer<const char>(args.source) + part.begin, part.nbytes);
}

IRIS_INLINE void signal_word(work_group wg, const iris_word_args &args)
{
    uint32_t *word = device_pointer<uint32_t>(args.word);
    if (!is_leader(wg))
        return;
    write_back(); /* of what launches before this one stored, whosever they were */
    if (args.how == IRIS_SIGNAL_OP_ADD)
        add_release(word, (uint32_t)args.value);
    else
        store_release(word, (uint32_t)args.value);
    wake_all(args.call);
}

IRIS_INLINE bool compares(int32_t seen, int32_t value, uint32_t how)
{
    switch (how) {
    case IRIS_COMPARE_EQ:
        return seen == value;
    case IRIS_COMPARE_NE:
        return seen != value;
    case IRIS_COMPARE_GT:
        return seen > value;
    case IRIS_COMPARE_GE:
        return seen >= value;
    case IRIS_COMPARE_LT:
        return seen < value;
    default:
        return seen <= value;
    }
}

IRIS_INLINE void wait_word(work_group wg, const iris_word_args &args)
{
    const call_state call = call_begin(args.call);
    uint32_t *word = device_pointer<uint32_t>(args.word);
    const int32_t value = args.value;
    const uint32_t how = args.how;
    if (!is_leader(wg))
        return;
    if (!wait_until(call, word, {IRIS_SIGNAL_WORD, args.call.rank, -1}, (uint32_t)value,
                    [=](uint32_t seen) { return compares((int32_t)seen, value, how); }))
        return;
    if (args.consume != 0) {
        add_release(word, 0u - (uint32_t)value);
        wake_all(args.call); /* another wait of this rank may be for what is left */
    }
    count_completed(args.call);
}

} // namespace iris
