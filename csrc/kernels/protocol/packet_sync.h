/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Sending and awaiting packets: sync.h, NOTE [packets], NOTE [bare packets].
 */
#ifndef IRIS_PACKET_SYNC_H
#define IRIS_PACKET_SYNC_H

#include "sync.h"

namespace iris
{

/* Pairs with receive_packets on that rank. See NOTE [packets]. Who has sent what it has to send
 * calls packets_are_sent. */
IRIS_INLINE void send_packet(const call_state &call, iris_packet *target, uint64_t data)
{
    const uint64_t signal = (uint64_t)call.signal << 32;
    store_packet(target, signal | (data & 0xffffffffu), signal | data >> 32);
}

/* Wakes the peers that sleep until they come. */
IRIS_INLINE void packets_are_sent(const call_state &call)
{
    wake_all(call.args);
}

/* Whether the packet is this call's, and its data. `seen`: a signal. */
IRIS_INLINE bool look_at_packet(const call_state &call, const iris_packet &p, uint64_t &data,
                                uint32_t &seen)
{
    const uint32_t low = (uint32_t)(p.word[0] >> 32), high = (uint32_t)(p.word[1] >> 32);
    data = (p.word[0] & 0xffffffffu) | p.word[1] << 32;
    if (low == call.signal && high == call.signal)
        return true;
    seen = low;
    return false;
}

/* Waits until look(seen) returns a negative number; else it is a rank that is awaited, which has
 * signalled `seen`. One thread's. */
template <class Look>
IRIS_INLINE bool wait_for_words(const call_state &call, iris_signal signal, Look look)
{
    waiter pacing(call.args);
    int32_t late = 0, aborted = 0; /* in registers of their own: opaque */
    for (;;) {
        uint32_t seen = 0;
        const int32_t missing = look(seen);
        /* After the abort word: what a peer sent before it left still counts. */
        if (missing < 0)
            return true;
        if (aborted != 0)
            return false;
        if (late != 0) {
            give_up(call, {signal, missing, -1}, call.signal, seen);
            return false;
        }
        late = opaque(!pacing.pause(missing));
        aborted = opaque(pacing.looks_around() && is_aborted(call, opaque(missing)));
    }
}

/* The data of `count` <= kCount packets, `stride` apart, from the ranks `source`, `source` + 1, ...
 * but not from `except`. Several are awaited at once because each look at memory takes long. */
template <int kCount>
IRIS_INLINE bool receive_packets(const call_state &call, const iris_packet *first, int64_t stride,
                                 int32_t source, int32_t count, int32_t except,
                                 uint64_t (&data)[kCount], iris_signal signal = IRIS_SIGNAL_PARTIAL)
{
    return wait_for_words(call, signal, [&](uint32_t &seen) {
        int32_t missing = -1;
        iris_packet packets[kCount];
        IRIS_UNROLL
        for (int32_t q = 0; kLoadsPacketsFirst && q < kCount; ++q)
            if (q < count && source + q != except)
                packets[q] = load_packet(first + q * stride);
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q)
            if (q < count && source + q != except &&
                !look_at_packet(call,
                                kLoadsPacketsFirst ? packets[q] : load_packet(first + q * stride),
                                data[q], seen))
                missing = source + q;
        return missing;
    });
}

/* ---- bare packets ---- */

/* The index-th bare packet of this call's half on rank `rank`. */
IRIS_INLINE iris_packet *bare_packet_at(const call_state &call, int32_t rank, int64_t index)
{
    iris_packet *packets = heap_pointer<iris_packet>(call.args, rank, call.args.bare_offset);
    return packets + (uint64_t)call.half * call.args.bare_half_count + (uint64_t)index;
}

IRIS_INLINE uint32_t half_not_empty(uint32_t half)
{
    return half == (uint32_t)IRIS_EMPTY_WORD ? half ^ 0x10000u : half;
}

/* The word, or one with other NaNs, of which no half looks empty. */
IRIS_INLINE uint64_t not_empty(uint64_t word)
{
    return (uint64_t)half_not_empty((uint32_t)(word >> 32)) << 32 | half_not_empty((uint32_t)word);
}

IRIS_INLINE bool has_come(uint64_t word)
{
    return (uint32_t)word != (uint32_t)IRIS_EMPTY_WORD && word >> 32 != IRIS_EMPTY_WORD >> 32;
}
IRIS_INLINE bool has_come(const iris_packet &packet)
{
    return has_come(packet.word[0]) && has_come(packet.word[1]);
}

IRIS_INLINE void empty_packet(iris_packet *slot)
{
    store_packet(slot, IRIS_EMPTY_WORD, IRIS_EMPTY_WORD);
}

/* As receive_packets, of bare packets, whose slots it empties. */
template <int kCount>
IRIS_INLINE bool receive_bare_packets(const call_state &call, iris_packet *first, int64_t stride,
                                      int32_t source, int32_t count, int32_t except,
                                      iris_packet (&data)[kCount], iris_signal signal)
{
    const bool complete = wait_for_words(call, signal, [&](uint32_t &) {
        int32_t missing = -1;
        IRIS_UNROLL
        for (int32_t q = 0; kLoadsPacketsFirst && q < kCount; ++q)
            if (q < count && source + q != except)
                data[q] = load_packet(first + q * stride);
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q) {
            if (q >= count || source + q == except)
                continue;
            if constexpr (!kLoadsPacketsFirst)
                data[q] = load_packet(first + q * stride);
            if (!has_come(data[q]))
                missing = source + q;
        }
        return missing;
    });
    if (!complete)
        return false;
    IRIS_UNROLL
    for (int32_t q = 0; q < kCount; ++q)
        if (q < count && source + q != except)
            empty_packet(first + q * stride);
    return true;
}

} // namespace iris

#endif
