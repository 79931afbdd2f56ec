/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * compare_clocks: how far this rank's device clock is ahead of rank 0's, for traces on one time
 * axis. Devices start their clocks on their own. Rank 0 asks each peer for its time, again and
 * again, and believes the answer that came back the soonest: it was given in the middle of the way
 * there and back, up to half of it (Cristian, Probabilistic clock synchronization, 1989).
 *
 *   packets of a half    written by   read by   what
 *   [0, ROUNDS)          rank 0       a peer    questions
 *   RESULT, + 1          rank 0       a peer    its offset; the way there and back
 *   RESULT + 2           rank 0       a peer    that all have answered
 *   ANSWERS + ROUNDS * r
 *           + round      rank r       rank 0    the time there
 *
 * The last one makes every rank hear from every other, as sync.h, NOTE [packets], demands.
 */
#include "kernels/abi/instances.h"
#include "kernels/protocol/packet_sync.h"

namespace iris
{

struct clock_offset {
    int64_t ahead;
    uint64_t round_trip;
};

IRIS_INLINE bool receive_time(const call_state &call, int32_t source, int64_t index, uint64_t &time)
{
    uint64_t data[1] = {0};
    const bool arrived = receive_packets(call, packet_at(call, call.args.rank, index), 0, source, 1,
                                         -1, data, IRIS_SIGNAL_CLOCK);
    time = data[0];
    return arrived;
}

/* Rank 0's. */
IRIS_INLINE bool ask(const call_state &call, int32_t peer, clock_offset &best)
{
    best = {0, UINT64_MAX};
    IRIS_NO_UNROLL
    for (int32_t round = 0; round < IRIS_CLOCK_ROUNDS; ++round) {
        uint64_t theirs;
        const uint64_t before = clock_ticks();
        send_packet(call, packet_at(call, peer, round), before);
        packets_are_sent(call);
        if (!receive_time(call, peer, IRIS_CLOCK_ANSWERS + peer * IRIS_CLOCK_ROUNDS + round,
                          theirs))
            return false;
        const uint64_t round_trip = clock_ticks() - before;
        if (round_trip < best.round_trip)
            best = {(int64_t)(theirs - (before + round_trip / 2)), round_trip};
    }
    return true;
}

IRIS_INLINE bool ask_all(const call_state &call)
{
    const int32_t world = call.args.world_size;
    IRIS_NO_UNROLL
    for (int32_t peer = 1; peer < world; ++peer) {
        clock_offset theirs;
        if (!ask(call, peer, theirs))
            return false;
        send_packet(call, packet_at(call, peer, IRIS_CLOCK_RESULT), (uint64_t)theirs.ahead);
        send_packet(call, packet_at(call, peer, IRIS_CLOCK_RESULT + 1), theirs.round_trip);
    }
    IRIS_NO_UNROLL
    for (int32_t peer = 1; peer < world; ++peer)
        send_packet(call, packet_at(call, peer, IRIS_CLOCK_RESULT + 2), 0);
    packets_are_sent(call);
    return true;
}

IRIS_INLINE bool answer(const call_state &call, clock_offset &own)
{
    const int64_t first = IRIS_CLOCK_ANSWERS + call.args.rank * IRIS_CLOCK_ROUNDS;
    uint64_t data;
    IRIS_NO_UNROLL
    for (int32_t round = 0; round < IRIS_CLOCK_ROUNDS; ++round) {
        if (!receive_time(call, 0, round, data))
            return false;
        send_packet(call, packet_at(call, 0, first + round), clock_ticks());
        packets_are_sent(call);
    }
    if (!receive_time(call, 0, IRIS_CLOCK_RESULT, data))
        return false;
    own.ahead = (int64_t)data;
    return receive_time(call, 0, IRIS_CLOCK_RESULT + 1, own.round_trip) &&
           receive_time(call, 0, IRIS_CLOCK_RESULT + 2, data);
}

/* By one work-group. */
IRIS_INLINE void compare_clocks(work_group wg, const iris_barrier_args &args)
{
    const call_state call = call_begin(args.call);
    clock_offset own = {0, 0};
    bool complete = true;
    if (is_leader(wg))
        complete = call.args.rank == 0 ? ask_all(call) : answer(call, own);
    if (!group_agree(wg, complete))
        return;
    if (is_leader(wg)) {
        iris_trace *trace = device_pointer<iris_trace>(call.args.trace);
        trace->clock_offset = own.ahead;
        trace->round_trip = own.round_trip;
    }
    end_locally(wg, call);
}

} // namespace iris
