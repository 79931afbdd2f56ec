/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Signals, waits, barriers, locks. With the primitives of sync_<target>.h, which this file
 * includes, the only place where memory order and scope are spelled. docs/protocol.md holds the
 * argument; the notes here are its short form.
 *
 * A *signal* is a 32-bit word in the heap that one work-group stores (release, system scope) and
 * others poll (acquire, system scope). What the storing work-group wrote before the signal is
 * visible to whoever has seen it. Signals carry the call's value and are never reset between
 * calls. Every wait is bounded: it ends with `false` when the rank's abort word is set or the
 * time limit passes, and a kernel then leaves without touching anything more.
 *
 * Loops over peers stay loops: unrolled they are most of a kernel, which has to be fetched before
 * it runs, and what they do takes microseconds anyway.
 *
 * Functions that take a work_group are called by all its threads. Inside, one thread, the leader,
 * or one thread for each peer, signals and waits: `group_publish` puts what all the others wrote
 * before its signal, and `group_agree` what its wait saw before what they read. On the host a
 * work-group is one thread and both are nothing.
 *
 * NOTE [signal values] Call number n (1, 2, ... in 64 bits) signals 1 + (n - 1) mod INT32_MAX:
 * 1 ... INT32_MAX, then 1 again; 0 was never signalled.
 *
 * NOTE [parity reuse] Staging and tile flags exist twice; call n uses half n & 1 of the 64-bit
 * number. (Not of the signal value: INT32_MAX and 1 are both odd, the same half would come twice
 * at the wrap.) When a rank starts call n it has completed n - 1, for which it waited for a
 * signal of n - 1 from every peer, which a peer sends only after it completed n - 2, the last call
 * that read this half. So writing the half needs no further wait.
 *
 * NOTE [one ahead] A peer can be at most one call ahead, because completing a call needs a signal
 * of that call from everybody. A per-peer word that this rank waits for in call n therefore holds
 * the value of n or n + 1 once it is satisfied; a tile flag lies in the half of n, which nobody
 * writes for n + 2 yet, and holds the value of n exactly.
 *
 * NOTE [wrap] A tile flag may lie unwritten for long. So that a value of the previous period never
 * looks current, the last two calls of a period zero their half of the rank's flags when they end;
 * nobody writes that half before this rank has completed the call. The same holds for packets. The
 * per-peer words lie unwritten for as long as calls signal by packets or partials alone. They have
 * no halves, and a peer may be writing them for the next call: what is neither of this call nor of
 * the next is swapped for 0, in these two calls and in the first of a period, in which the values
 * of these two have become old.
 *
 * NOTE [packets] A packet's words carry the call's value beside the data (the LL protocol of NCCL):
 * who sees the value has the data, so nothing orders one word before another, and one hop is
 * enough. Packets have memory of their own, where no other data can look like a value.
 * A call in which every rank waits for a packet from every peer needs no other signal: each has
 * then heard from each, as NOTE [parity reuse] and NOTE [one ahead] demand.
 *
 * NOTE [bare packets] Packets of floating-point data need no signal: a slot's words are empty,
 * IRIS_EMPTY_WORD, until data is there, and whoever has read it empties them. Half of a word that
 * is not empty is data, so nothing orders the halves. The reader's launch ends before its next
 * call, which a peer has heard of before it writes the slot again (NOTE [parity reuse]): the
 * emptying comes first. A value whose half looks empty, a NaN, is sent as another NaN. A call that
 * is broken off leaves slots full: its storage is never used again.
 */
#ifndef IRIS_SYNC_H
#define IRIS_SYNC_H

#include <stdint.h>

#include "kernels/base/primitives.h"
#include IRIS_TARGET_SYNC
#include "trace.h"

namespace iris
{

constexpr uint64_t kSignalPeriod = INT32_MAX;

IRIS_INLINE constexpr uint32_t signal_value(uint64_t call_number)
{
    return (uint32_t)(1 + (call_number - 1) % kSignalPeriod);
}

/* The value of the call after the one with this value. */
IRIS_INLINE constexpr uint32_t next_signal(uint32_t value)
{
    return value == kSignalPeriod ? 1 : value + 1;
}

/* One work-group's view of the call it takes part in. */
struct call_state {
    const iris_call_args &args;
    iris_workspace_control *control; /* this rank's */
    uint64_t number;
    uint32_t signal; /* value of this call */
    uint32_t next;   /* value of the call after it */
    uint32_t half;   /* which half of flags and staging */
};

/* ---- bounded waits, by one thread ---- */

/* What a wait is for, so that a fault can say what was missing. */
struct wait_reason {
    iris_signal signal;
    int32_t rank;
    int32_t tile; /* -1: the whole call */
};

IRIS_INLINE uint32_t *abort_word(const call_state &call, int32_t rank)
{
    return &(device_pointer<iris_fault>(call.args.faults_address) + rank)->abort;
}

/* Whether this rank's wait for rank `awaited`, or for any (-1), is to end. A mismatch is about one
 * call: those before it, which slower ranks may still be in, are sound. So are the calls that a
 * peer had done with when it left, for those who stay: it owes them nothing more. */
IRIS_INLINE bool is_aborted(const call_state &call, int32_t awaited)
{
    const uint32_t word = poll(abort_word(call, call.args.rank));
    const uint32_t own = call.args.board_number, number = IRIS_ABORT_NUMBER(word);
    const int32_t later = (int32_t)((own - number) << 16);
    if (IRIS_ABORT_REASON(word) != IRIS_ABORT_PEER_LEFT)
        return word != 0 && (IRIS_ABORT_REASON(word) != IRIS_ABORT_MISMATCH || number == own);
    /* One after the other: see opaque. */
    int32_t concerned = opaque(awaited < 0 || own == IRIS_BOARD_REPLAY);
    concerned |= opaque(awaited == IRIS_ABORT_CULPRIT(word));
    return (concerned | opaque(later > 0 && own != IRIS_BOARD_DIRECT)) != 0;
}

/* Records the first fault of this rank and ends everybody's waits: the call cannot complete. */
IRIS_INLINE void give_up(const call_state &call, const wait_reason &reason, uint32_t wanted,
                         uint32_t seen)
{
    const int32_t self = call.args.rank;
    iris_fault *fault = device_pointer<iris_fault>(call.args.faults_address) + self;

    if (!try_lock(&call.control->faulted))
        return;
    fault->operation = call.args.operation;
    fault->signal = reason.signal;
    fault->call = call.signal;
    fault->rank = reason.rank;
    fault->tile = reason.tile;
    fault->wanted = wanted;
    fault->seen = seen;
    if (!try_abort(&fault->abort, IRIS_ABORT_WORD(IRIS_ABORT_TIMEOUT, reason.rank)))
        return;
    IRIS_NO_UNROLL
    for (int32_t peer = 0; peer < call.args.world_size; ++peer)
        if (peer != self)
            try_abort(abort_word(call, peer), IRIS_ABORT_WORD(IRIS_ABORT_PEER_GAVE_UP, self));
}

/* Polls `word` until `satisfied(value)`. What the signaller wrote before is visible after. */
template <typename Satisfied>
IRIS_INLINE bool wait_until(const call_state &call, const uint32_t *word, const wait_reason &reason,
                            uint32_t wanted, Satisfied satisfied)
{
    if (!satisfied(poll(word))) {
        const trace_span span(call.args, true, IRIS_TRACE_WAIT, reason.rank, reason.tile);
        const int32_t awaited = opaque(reason.signal == IRIS_SIGNAL_WORD ? -1 : reason.rank);
        waiter pacing(call.args);
        for (;;) {
            const bool in_time = pacing.pause(awaited);
            const int32_t aborted = opaque(pacing.looks_around() && is_aborted(call, awaited));
            /* After the abort word: what a peer signalled before it left still counts. */
            const uint32_t seen = poll(word);
            if (satisfied(seen))
                break;
            if (aborted != 0)
                return false;
            if (!in_time) {
                give_up(call, reason, wanted, seen);
                return false;
            }
        }
    }
    acquire(word);
    return true;
}

/* Waits for a word that one peer writes in every call. See NOTE [one ahead]. */
IRIS_INLINE bool wait_for_peer(const call_state &call, const uint32_t *word,
                               const wait_reason &reason)
{
    const uint32_t current = call.signal, next = call.next;
    return wait_until(call, word, reason, current,
                      [=](uint32_t seen) { return seen == current || seen == next; });
}

/* ---- tile flags ---- */

IRIS_INLINE uint32_t *tile_flag(const call_state &call, int32_t rank, int64_t index)
{
    uint32_t *flags = heap_pointer<uint32_t>(call.args, rank, call.args.flags_offset);
    return flags + (int64_t)call.half * call.args.flags_count + index;
}

/* Publishes the tile this work-group has just stored into rank `rank`'s staging or output.
 * Pairs with wait_tile on that rank. */
IRIS_INLINE void signal_tile(work_group wg, const call_state &call, int32_t rank, int64_t index)
{
    const trace_span span(call.args, is_leader(wg), IRIS_TRACE_SIGNAL, rank, index);
    group_publish(wg);
    if (is_leader(wg)) {
        store_release(tile_flag(call, rank, index), call.signal);
        wake(call.args, rank);
    }
}

/* Publishes what this work-group has stored into the staging of `count` ranks: place(i) names the
 * i-th's `rank` and `flag`. All at once, because a release waits for what was stored. */
template <class Place>
IRIS_INLINE void signal_tiles(work_group wg, const call_state &call, int32_t count, Place place)
{
    const trace_span span(call.args, is_leader(wg), IRIS_TRACE_SIGNAL, -1, -1);
    group_publish(wg);
    IRIS_NO_UNROLL
    for (int32_t i = wg.thread; i < count; i += wg.threads)
        store_release(tile_flag(call, place(i).rank, place(i).flag), call.signal);
    wake_all(call.args);
}

IRIS_INLINE bool wait_for_tile(const call_state &call, int64_t index, const wait_reason &reason)
{
    const uint32_t current = call.signal;
    return wait_until(call, tile_flag(call, call.args.rank, index), reason, current,
                      [=](uint32_t seen) { return seen == current; });
}

IRIS_INLINE bool wait_tile(work_group wg, const call_state &call, int64_t index,
                           const wait_reason &reason)
{
    return group_agree(wg, !is_leader(wg) || wait_for_tile(call, index, reason));
}

/* Waits for the partials of `tile` from the ranks 0 ... world_size - 1, but not from `except`,
 * whose flags lie `stride` apart, the first at `index`. */
IRIS_INLINE bool wait_partials(work_group wg, const call_state &call, int64_t tile, int64_t index,
                               int64_t stride, int32_t except)
{
    bool arrived = true;
    IRIS_NO_UNROLL
    for (int32_t source = wg.thread; arrived && source < call.args.world_size; source += wg.threads)
        arrived = source == except || wait_for_tile(call, index + source * stride,
                                                    {IRIS_SIGNAL_PARTIAL, source, (int32_t)tile});
    return group_agree(wg, arrived);
}

/* ---- packets ---- */

/* The index-th packet of this call's half on rank `rank`. */
IRIS_INLINE iris_packet *packet_at(const call_state &call, int32_t rank, int64_t index)
{
    iris_packet *packets = heap_pointer<iris_packet>(call.args, rank, call.args.packets_offset);
    return packets + (uint64_t)call.half * call.args.packets_half_count + (uint64_t)index;
}

/* ---- work-groups of one rank ---- */

/* Counts this work-group in; true for the last of the launch, which also resets the counter for
 * the next call. What all the others wrote before is visible to the last, and its signals then
 * publish their writes too. */
IRIS_INLINE bool last_work_group(work_group wg, uint32_t *counter)
{
    bool last = false;
    group_publish(wg);
    if (is_leader(wg)) {
        last = count_in(counter) == (uint32_t)wg.count;
        if (last)
            store_relaxed(counter, 0);
    }
    return group_agree(wg, !is_leader(wg) || last);
}

/* ---- locks, for the spinlock variant ---- */

/* acquire, system: pairs with the previous holder's lock_release. */
IRIS_INLINE bool wait_for_lock(const call_state &call, uint32_t *lock, const wait_reason &reason)
{
    const trace_span span(call.args, true, IRIS_TRACE_WAIT, reason.rank, reason.tile);
    waiter pacing(call.args);
    while (!try_lock(lock)) {
        if (pacing.looks_around() && is_aborted(call, reason.rank))
            return false;
        if (!pacing.pause(-1)) {
            give_up(call, reason, 0, 1);
            return false;
        }
    }
    return true;
}

IRIS_INLINE bool lock_acquire(work_group wg, const call_state &call, uint32_t *lock,
                              const wait_reason &reason)
{
    return group_agree(wg, !is_leader(wg) || wait_for_lock(call, lock, reason));
}

/* release, system: the tile written under the lock is visible to the next holder. */
IRIS_INLINE void lock_release(work_group wg, const call_state &call, uint32_t *lock)
{
    group_publish(wg);
    if (is_leader(wg)) {
        store_release(lock, 0u);
        wake_all(call.args);
    }
}

/* ---- the frame of a call ---- */

IRIS_INLINE call_state call_begin(const iris_call_args &args)
{
    auto *control = heap_pointer<iris_workspace_control>(args, args.rank, args.control_offset);
    /* relaxed: advanced by the previous launch on this stream. */
    const uint64_t number = load_relaxed(&control->calls) + 1;
    const uint32_t signal = (uint32_t)opaque((int32_t)signal_value(number));
    return {args, control, number, signal, next_signal(signal), (uint32_t)(number & 1)};
}

IRIS_INLINE iris_workspace_control *control_of(const call_state &call, int32_t rank)
{
    return heap_pointer<iris_workspace_control>(call.args, rank, call.args.control_offset);
}

/* Tells every peer where this rank wants results, and that it has started the call: its output may
 * be written from now on. Pairs with wait_arrived on the peer. One work-group does it. */
IRIS_INLINE void announce(work_group wg, const call_state &call, uint64_t output_offset,
                          int64_t stride_row, int64_t stride_col)
{
    const int32_t self = call.args.rank, world = call.args.world_size;
    if (wg.index != 0)
        return;
    IRIS_NO_UNROLL
    for (int32_t step = 1 + wg.thread; step < world; step += wg.threads) {
        const int32_t peer = (self + step) % world;
        iris_workspace_control *control = control_of(call, peer);
        iris_record *record = &control->records[call.half][self];
        push(&record->output_offset, output_offset);
        push(&record->stride_row, stride_row);
        push(&record->stride_col, stride_col);
        store_release(&control->arrived[self].value, call.signal);
    }
    wake_all(call.args);
}

/* After it, `peer` has started this call and its record may be read. */
IRIS_INLINE bool wait_arrived(work_group wg, const call_state &call, int32_t peer)
{
    return group_agree(wg, !is_leader(wg) || wait_for_peer(call, &call.control->arrived[peer].value,
                                                           {IRIS_SIGNAL_ARRIVED, peer, -1}));
}

/* Waits for a word of this call from every peer; `words` is indexed by the peer's rank. */
IRIS_INLINE bool wait_all_peers(work_group wg, const call_state &call, const iris_flag *words,
                                iris_signal signal)
{
    bool arrived = true;
    IRIS_NO_UNROLL
    for (int32_t step = 1 + wg.thread; arrived && step < call.args.world_size; step += wg.threads) {
        const int32_t peer = (call.args.rank + step) % call.args.world_size;
        arrived = wait_for_peer(call, &words[peer].value, {signal, peer, -1});
    }
    return group_agree(wg, arrived);
}

/* Sends a word of this call to every peer; what the group wrote, or saw, before comes first. */
IRIS_INLINE void signal_all_peers(work_group wg, const call_state &call,
                                  iris_flag (iris_workspace_control::*words)[IRIS_MAX_RANKS])
{
    const int32_t self = call.args.rank, world = call.args.world_size;
    const trace_span span(call.args, is_leader(wg), IRIS_TRACE_SIGNAL, -1, -1);
    group_publish(wg);
    IRIS_NO_UNROLL
    for (int32_t step = 1 + wg.thread; step < world; step += wg.threads)
        store_release(&(control_of(call, (self + step) % world)->*words)[self].value, call.signal);
    wake_all(call.args);
}

/* Called by each work-group when it has pushed all it owes; the last one tells every peer that
 * this rank's pushes are complete. Pairs with wait_delivered. */
IRIS_INLINE void deliver(work_group wg, const call_state &call)
{
    if (last_work_group(wg, &call.control->work_groups_pushed))
        signal_all_peers(wg, call, &iris_workspace_control::delivered);
}

/* After it, everything that any peer pushes to this rank in this call is visible here. */
IRIS_INLINE bool wait_delivered(work_group wg, const call_state &call)
{
    return wait_all_peers(wg, call, call.control->delivered, IRIS_SIGNAL_DELIVERED);
}

/* Advances the counter: only the last work-group of a launch may, when no other reads it. */
IRIS_INLINE void call_complete(work_group wg, const call_state &call)
{
    group_publish(wg);
    if (is_leader(wg))
        store_release(&call.control->calls, call.number);
}

/* Whether the call is one of those that forget, see NOTE [wrap]. */
IRIS_INLINE bool is_at_the_wrap(const call_state &call)
{
    return call.signal == 1 || call.signal >= kSignalPeriod - 1;
}

IRIS_INLINE void forget_old_value(const call_state &call, uint32_t *word)
{
    const uint32_t seen = poll(word);
    if (seen != 0 && seen != call.signal && seen != call.next)
        replace_relaxed(word, seen, 0);
}

/* By the last work-group of a call at the wrap. */
IRIS_INLINE void forget_old_values(work_group wg, const call_state &call)
{
    uint32_t *flags = tile_flag(call, call.args.rank, 0);
    iris_packet *packets = packet_at(call, call.args.rank, 0);
    IRIS_NO_UNROLL
    for (uint32_t i = (uint32_t)wg.thread; i < call.args.flags_count; i += (uint32_t)wg.threads)
        store_relaxed(&flags[i], 0);
    IRIS_NO_UNROLL
    for (uint64_t i = (uint64_t)wg.thread; i < call.args.packets_half_count;
         i += (uint64_t)wg.threads)
        store_packet(&packets[i], 0, 0);
    IRIS_NO_UNROLL
    for (int32_t peer = wg.thread; peer < call.args.world_size; peer += wg.threads) {
        forget_old_value(call, &call.control->arrived[peer].value);
        forget_old_value(call, &call.control->delivered[peer].value);
        forget_old_value(call, &call.control->done[peer].value);
    }
}

/* The end of a call in which nothing is left to signal or to wait for: this rank has heard from
 * every peer, and no peer writes or reads its results. The last work-group advances the counter;
 * that the launch ends orders everything else. All threads have passed a barrier since the last use
 * of what the call brought. */
IRIS_INLINE void end_locally(work_group wg, const call_state &call)
{
    bool last = true;
    if (wg.count > 1) {
        if (is_leader(wg)) {
            last = count_in_relaxed(&call.control->work_groups_done) == (uint32_t)wg.count;
            if (last)
                store_relaxed(&call.control->work_groups_done, 0u);
        }
        last = group_agree(wg, !is_leader(wg) || last);
    }
    if (!last)
        return;
    if (is_at_the_wrap(call))
        forget_old_values(wg, call);
    if (is_leader(wg))
        store_relaxed(&call.control->calls, call.number);
}

#if defined(IRIS_GPU)
/* The same end, begun early: the count of the work-groups that have read the counter is all that
 * must be known before it may advance, and it is on its way while packets are. What a host finds in
 * the counter after a fault does not matter on a GPU. Calls that have to forget end late. */
IRIS_INLINE bool ends_early(const call_state &call)
{
    return !is_at_the_wrap(call);
}

/* All threads have read the counter. The leader's result is for end_early; nobody waits for it
 * before. */
IRIS_INLINE uint32_t count_in_early(work_group wg, const call_state &call)
{
    group_barrier(wg);
    return wg.count > 1 && is_leader(wg) ? count_in_relaxed(&call.control->work_groups_done) : 1;
}

IRIS_INLINE void end_early(work_group wg, const call_state &call, uint32_t count)
{
    if (!is_leader(wg) || count != (uint32_t)wg.count)
        return;
    if (wg.count > 1)
        store_relaxed(&call.control->work_groups_done, 0u);
    store_relaxed(&call.control->calls, call.number);
}
#endif

/* For a call that advances no counter. On a GPU nobody asks: faults tell. */
IRIS_INLINE void count_completed(const iris_call_args &args)
{
#if defined(IRIS_GPU)
    (void)args;
#else
    count_in(device_pointer<uint32_t>(args.completed));
#endif
}

/* The end of a call, by its last work-group: hears from every peer (which is what makes the staging
 * half reusable, see NOTE [parity reuse]), tells and asks the peers what `ending` says, and
 * advances the counter, which no work-group of this launch reads any more. */
IRIS_INLINE void close_call(work_group wg, const call_state &call, uint32_t ending)
{
    if (!wait_delivered(wg, call))
        return;
    if (ending != IRIS_ENDING_LOCAL)
        signal_all_peers(wg, call, &iris_workspace_control::done);
    if (ending == IRIS_ENDING_WAITS &&
        !wait_all_peers(wg, call, call.control->done, IRIS_SIGNAL_DONE))
        return;
    if (is_at_the_wrap(call))
        forget_old_values(wg, call);
    call_complete(wg, call);
}

/* Ends the call for a work-group that has delivered. */
IRIS_INLINE void call_end(work_group wg, const call_state &call, uint32_t ending)
{
    if (last_work_group(wg, &call.control->work_groups_done))
        close_call(wg, call, ending);
}

/* deliver and call_end at once, for a work-group that has nothing to do between them: the
 * work-groups of a rank meet once instead of twice. */
IRIS_INLINE void deliver_and_end(work_group wg, const call_state &call, uint32_t ending)
{
    if (!last_work_group(wg, &call.control->work_groups_done))
        return;
    signal_all_peers(wg, call, &iris_workspace_control::delivered);
    close_call(wg, call, ending);
}

} // namespace iris

#endif
