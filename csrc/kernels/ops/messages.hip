/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * send, recv, and all_to_all with a size for each pair: messages through channels (channel.h), any
 * number at once, one for each peer and direction. A task is one lane of one message. On a GPU each
 * task has a work-group of its own, which waits for nothing but its lane: no order of the tasks has
 * to be found, and none can be wrong. On the host a work-group takes its tasks in turn and moves
 * whichever is ready.
 */
#include "kernels/abi/instances.h"
#include "kernels/base/byte_range.h"
#include "kernels/protocol/channel.h"

namespace iris
{

/* The t-th task: sends first, then receipts; each rank begins with another peer. Past those, and
 * for a task that is only a copy within this rank, `none` comes back, and t less the tasks seen. */
struct message_task {
    bool none;
    bool sending;
    int32_t peer;
    int32_t lane; /* none: t less the tasks there are */
};

IRIS_INLINE message_task find_task(const iris_message_args &args, int32_t t)
{
    const int32_t self = args.call.rank, world = args.call.world_size;
    IRIS_NO_UNROLL
    for (int32_t i = 0; i < 2 * world; ++i) {
        const bool sending = i < world;
        const int32_t hop = sending ? i : i - world;
        const int32_t peer = (sending ? self + hop : self + world - hop) % world;
        const iris_messages &messages = sending ? args.send : args.receive;
        if (hop == 0 || (messages.peers >> peer & 1u) == 0)
            continue;
        const int32_t lanes = iris_message_lanes(messages.nbytes[peer], args.lanes);
        if (t < lanes)
            return {false, sending, peer, t};
        t -= lanes;
    }
    return {true, false, self, t};
}

/* This rank's message to itself, cut into as many tasks as there are lanes. */
IRIS_INLINE void copy_own(work_group wg, const iris_message_args &args, int32_t t)
{
    const int32_t self = args.call.rank;
    if ((args.send.peers >> self & 1u) == 0 || t >= args.lanes)
        return;
    const byte_range part = share_of(t, args.lanes, args.send.nbytes[self]);
    copy_bytes(wg, device_pointer<char>(args.receive.address[self]) + part.begin,
               device_pointer<const char>(args.send.address[self]) + part.begin, part.nbytes);
}

#if defined(IRIS_GPU)
IRIS_INLINE void message(work_group wg, const iris_message_args &args)
{
    const call_state call = call_begin(args.call);
    const message_task task = find_task(args, wg.index);
    if (task.none)
        return copy_own(wg, args, task.lane);
    channel_lane lane(args, task.sending, task.peer, task.lane);
    IRIS_NO_UNROLL
    while (!lane.is_done()) {
        const bool ready = !is_leader(wg) ||
                           wait_until(call, lane.awaited_word(args), lane.reason(), lane.wanted(),
                                      [&](uint32_t seen) { return lane.is_satisfied(seen); });
        if (!group_agree(wg, ready) || !lane.step(wg, call, args))
            return;
    }
    lane.close(wg, args);
}
#else
/* One round over the work-group's tasks. */
struct message_round {
    bool failed, moved;
    const channel_lane *waiting; /* one that is not ready; NULL: all are done */
};

inline message_round advance(work_group wg, const call_state &call, const iris_message_args &args,
                             channel_lane *lanes, int32_t count)
{
    message_round round = {false, false, nullptr};
    for (int32_t i = 0; i < count; ++i) {
        if (lanes[i].is_done())
            continue;
        if (!lanes[i].is_satisfied(poll(lanes[i].awaited_word(args)))) {
            round.waiting = &lanes[i];
            continue;
        }
        round.moved = true;
        if (!lanes[i].step(wg, call, args))
            return {true, true, nullptr};
        if (lanes[i].is_done())
            lanes[i].close(wg, args);
        else
            round.waiting = &lanes[i];
    }
    return round;
}

inline void message(work_group wg, const iris_message_args &args)
{
    constexpr int32_t kMaxTasks = 2 * IRIS_MAX_RANKS * IRIS_CHANNEL_LANES;
    const call_state call = call_begin(args.call);
    channel_lane lanes[kMaxTasks];
    int32_t count = 0;

    for (int32_t t = wg.index;; t += wg.count) {
        const message_task task = find_task(args, t);
        if (!task.none)
            lanes[count++] = channel_lane(args, task.sending, task.peer, task.lane);
        else if (task.lane < args.lanes)
            copy_own(wg, args, task.lane);
        else
            break;
    }
    waiter pacing(args.call);
    for (bool aborted = false, in_time = true;;) {
        const message_round round = advance(wg, call, args, lanes, count);
        if (round.failed)
            return;
        if (round.waiting == nullptr)
            break;
        if (round.moved) {
            pacing.restart();
            aborted = false;
            continue;
        }
        /* After the abort word: what a peer sent before it left still counts. */
        if (aborted)
            return;
        if (!in_time)
            return give_up(call, round.waiting->reason(), round.waiting->wanted(),
                           poll(round.waiting->awaited_word(args)));
        in_time = pacing.pause(-1); /* whichever lane moves first */
        aborted = is_aborted(call, round.waiting->reason().rank);
    }
    count_completed(args.call);
}
#endif

} // namespace iris
