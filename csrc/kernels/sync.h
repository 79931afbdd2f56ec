/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Signals, waits, barriers, locks: the only place where memory order and scope are spelled.
 * docs/protocol.md holds the argument; the notes here are its short form.
 *
 * A *signal* is a 32-bit word in the heap that one work-group stores (release, system scope) and
 * others poll (acquire, system scope). What the storing work-group wrote before the signal is
 * visible to whoever has seen it. Signals carry the call's value and are never reset between
 * calls. Every wait is bounded: it ends with `false` when the rank's abort word is set or the
 * time limit passes, and a kernel then leaves without touching anything more.
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
 * nobody writes that half before this rank has completed the call.
 */
#ifndef IRIS_SYNC_H
#define IRIS_SYNC_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "kernel.h"

namespace iris
{

constexpr uint64_t kSignalPeriod = INT32_MAX;

constexpr uint32_t signal_value(uint64_t call_number)
{
    return (uint32_t)(1 + (call_number - 1) % kSignalPeriod);
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

/* ---- the primitive operations on shared words ---- */

/* release, system: everything this work-group wrote before is visible before `value` is. */
inline void store_release(work_group, uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Polling order on the host: acquire, which costs nothing over relaxed on x86 and spares the
 * fence after the loop that a thread sanitizer does not understand. */
inline uint32_t poll(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

inline uint32_t *abort_word(const call_state &call, int32_t rank)
{
    return &(reinterpret_cast<iris_fault *>(call.args.faults_address) + rank)->abort;
}

/* Sets a rank's abort word if nobody has. release, system: a peer's host that finds this rank's
 * number in the word reads this rank's fault. */
inline bool try_abort(uint32_t *word, uint32_t value)
{
    uint32_t expected = 0;
    return __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_RELEASE,
                                       __ATOMIC_RELAXED);
}

/* relaxed, system: sums are published by the signal that follows them. */
inline void atomic_add(float *target, float value)
{
    uint32_t *word = reinterpret_cast<uint32_t *>(target);
    uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED), sum;
    do {
        float current;
        __builtin_memcpy(&current, &seen, sizeof current);
        current += value;
        __builtin_memcpy(&sum, &current, sizeof sum);
    } while (
        !__atomic_compare_exchange_n(word, &seen, sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/* ---- bounded waits ---- */

/* What a wait is for, so that a fault can say what was missing. */
struct wait_reason {
    iris_signal signal;
    int32_t rank;
    int32_t tile; /* -1: the whole call */
};

/* Spins, then yields, then sleeps between polls: ranks share cores on the host, and the peer that
 * is waited for may need this one. */
class waiter
{
  public:
    explicit waiter(uint64_t timeout_ns) : timeout_ns_(timeout_ns)
    {
    }

    /* false: the time limit has passed. */
    bool pause()
    {
        ++rounds_;
        if (rounds_ < kSpins) {
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#endif
            return true;
        }
        if (rounds_ % kClockInterval == 0) {
            const uint64_t now = clock_ns();
            if (started_ns_ == 0)
                started_ns_ = now;
            if (now - started_ns_ > timeout_ns_)
                return false;
            long_wait_ = now - started_ns_ > kYieldNs;
        }
        if (long_wait_) {
            const timespec nap = {0, kNapNs};
            nanosleep(&nap, nullptr);
        } else {
            sched_yield();
        }
        return true;
    }

  private:
    /* About 5 us of pauses: a signal between two running ranks takes under 1 us. */
    static constexpr uint32_t kSpins = 100;
    /* A clock read costs about as much as two yields. */
    static constexpr uint32_t kClockInterval = 16;
    static constexpr uint64_t kYieldNs = 2000000;
    static constexpr long kNapNs = 50000;

    static uint64_t clock_ns()
    {
        timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }

    uint64_t timeout_ns_;
    uint64_t started_ns_ = 0;
    uint32_t rounds_ = 0;
    bool long_wait_ = false;
};

/* Records the first fault of this rank and ends everybody's waits: the call cannot complete. */
inline void give_up(const call_state &call, const wait_reason &reason, uint32_t wanted,
                    uint32_t seen)
{
    const int32_t self = call.args.rank;
    iris_fault *fault = reinterpret_cast<iris_fault *>(call.args.faults_address) + self;

    if (!try_abort(&fault->abort, IRIS_ABORT_WORD(IRIS_ABORT_TIMEOUT, reason.rank)))
        return;
    fault->operation = call.args.operation;
    fault->signal = reason.signal;
    fault->call = call.signal;
    fault->rank = reason.rank;
    fault->tile = reason.tile;
    fault->wanted = wanted;
    fault->seen = seen;
    for (int32_t peer = 0; peer < call.args.world_size; ++peer)
        if (peer != self)
            try_abort(abort_word(call, peer), IRIS_ABORT_WORD(IRIS_ABORT_PEER_GAVE_UP, self));
}

/* Polls `word` until `satisfied(value)`. What the signaller wrote before is visible after. */
template <typename Satisfied>
inline bool wait_until(const call_state &call, const uint32_t *word, const wait_reason &reason,
                       uint32_t wanted, Satisfied satisfied)
{
    if (satisfied(poll(word)))
        return true;
    waiter pacing(call.args.timeout_ns);
    for (;;) {
        const bool in_time = pacing.pause();
        const bool aborted = poll(abort_word(call, call.args.rank)) != 0;
        /* After the abort word: what a peer signalled before it left still counts. */
        const uint32_t seen = poll(word);
        if (satisfied(seen))
            return true;
        if (aborted)
            return false;
        if (!in_time) {
            give_up(call, reason, wanted, seen);
            return false;
        }
    }
}

/* Waits for a word that one peer writes in every call. See NOTE [one ahead]. */
inline bool wait_peer(work_group, const call_state &call, const uint32_t *word,
                      const wait_reason &reason)
{
    const uint32_t current = call.signal, next = call.next;
    return wait_until(call, word, reason, current,
                      [=](uint32_t seen) { return seen == current || seen == next; });
}

/* ---- tile flags ---- */

inline uint32_t *tile_flag(const call_state &call, int32_t rank, int64_t index)
{
    uint32_t *flags = heap_pointer<uint32_t>(call.args, rank, call.args.flags_offset);
    return flags + (int64_t)call.half * call.args.flags_count + index;
}

/* Publishes the tile this work-group has just stored into rank `rank`'s staging or output.
 * Pairs with wait_tile on that rank. */
inline void signal_tile(work_group wg, const call_state &call, int32_t rank, int64_t index)
{
    store_release(wg, tile_flag(call, rank, index), call.signal);
}

inline bool wait_tile(work_group, const call_state &call, int64_t index, const wait_reason &reason)
{
    const uint32_t current = call.signal;
    return wait_until(call, tile_flag(call, call.args.rank, index), reason, current,
                      [=](uint32_t seen) { return seen == current; });
}

/* ---- work-groups of one rank ---- */

/* Counts this work-group in; true for the last of the launch, which also resets the counter for
 * the next call. acq_rel, device scope: what all the others wrote before is visible to the last,
 * and its system-scope signals then publish their writes too. */
inline bool last_work_group(work_group wg, uint32_t *counter)
{
    if (__atomic_add_fetch(counter, 1, __ATOMIC_ACQ_REL) != (uint32_t)wg.count)
        return false;
    __atomic_store_n(counter, 0, __ATOMIC_RELAXED);
    return true;
}

/* ---- locks, for the spinlock variant ---- */

/* acquire, system: pairs with the previous holder's lock_release. */
inline bool lock_acquire(work_group, const call_state &call, uint32_t *lock,
                         const wait_reason &reason)
{
    waiter pacing(call.args.timeout_ns);
    for (;;) {
        uint32_t expected = 0;
        /* Read first: a failed compare-and-swap takes the line away from the holder. */
        if (__atomic_load_n(lock, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(lock, &expected, 1, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return true;
        if (poll(abort_word(call, call.args.rank)) != 0)
            return false;
        if (!pacing.pause()) {
            give_up(call, reason, 0, 1);
            return false;
        }
    }
}

/* release, system: the tile written under the lock is visible to the next holder. */
inline void lock_release(work_group wg, uint32_t *lock)
{
    store_release(wg, lock, 0);
}

/* ---- the frame of a call ---- */

inline call_state call_begin(const iris_call_args &args)
{
    auto *control = heap_pointer<iris_workspace_control>(args, args.rank, args.control_offset);
    /* relaxed: advanced by the previous launch on this stream. */
    const uint64_t number = __atomic_load_n(&control->calls, __ATOMIC_RELAXED) + 1;
    return {args,
            control,
            number,
            signal_value(number),
            signal_value(number + 1),
            (uint32_t)(number & 1)};
}

inline iris_workspace_control *control_of(const call_state &call, int32_t rank)
{
    return heap_pointer<iris_workspace_control>(call.args, rank, call.args.control_offset);
}

/* Tells every peer where this rank wants results, and that it has started the call: its output may
 * be written from now on. Pairs with wait_arrived on the peer. One work-group does it. */
inline void announce(work_group wg, const call_state &call, uint64_t output_offset,
                     int64_t stride_row, int64_t stride_col)
{
    const int32_t self = call.args.rank, world = call.args.world_size;
    if (wg.index != 0)
        return;
    for (int32_t step = 1; step < world; ++step) {
        const int32_t peer = (self + step) % world;
        iris_workspace_control *control = control_of(call, peer);
        iris_record *record = &control->records[call.half][self];
        record->output_offset = output_offset;
        record->stride_row = stride_row;
        record->stride_col = stride_col;
        store_release(wg, &control->arrived[self].value, call.signal);
    }
}

/* After it, `peer` has started this call and its record may be read. */
inline bool wait_arrived(work_group wg, const call_state &call, int32_t peer)
{
    return wait_peer(wg, call, &call.control->arrived[peer].value, {IRIS_SIGNAL_ARRIVED, peer, -1});
}

/* Called by each work-group when it has pushed all it owes; the last one tells every peer that
 * this rank's pushes are complete. Pairs with wait_delivered. */
inline void deliver(work_group wg, const call_state &call)
{
    const int32_t self = call.args.rank, world = call.args.world_size;
    if (!last_work_group(wg, &call.control->work_groups_pushed))
        return;
    for (int32_t step = 1; step < world; ++step) {
        iris_workspace_control *control = control_of(call, (self + step) % world);
        store_release(wg, &control->delivered[self].value, call.signal);
    }
}

/* After it, everything that any peer pushes to this rank in this call is visible here. */
inline bool wait_delivered(work_group wg, const call_state &call)
{
    for (int32_t step = 1; step < call.args.world_size; ++step) {
        const int32_t peer = (call.args.rank + step) % call.args.world_size;
        if (!wait_peer(wg, call, &call.control->delivered[peer].value,
                       {IRIS_SIGNAL_DELIVERED, peer, -1}))
            return false;
    }
    return true;
}

/* Advances the counter: only the last work-group of a launch may, when no other reads it. */
inline void call_complete(const call_state &call)
{
    __atomic_store_n(&call.control->calls, call.number, __ATOMIC_RELEASE);
}

/* Ends the call for this work-group. The last one hears from every peer (which is what makes the
 * staging half reusable, see NOTE [parity reuse]), says that this rank's results are complete,
 * waits for the peers' word for that if the caller wants it, and advances the counter, which no
 * work-group of this launch reads any more. */
inline void call_end(work_group wg, const call_state &call, bool wait_done)
{
    const int32_t self = call.args.rank, world = call.args.world_size;
    iris_workspace_control *control = call.control;

    if (!last_work_group(wg, &control->work_groups_done))
        return;
    if (!wait_delivered(wg, call))
        return;
    for (int32_t step = 1; step < world; ++step)
        store_release(wg, &control_of(call, (self + step) % world)->done[self].value, call.signal);
    if (wait_done) {
        for (int32_t step = 1; step < world; ++step) {
            const int32_t peer = (self + step) % world;
            if (!wait_peer(wg, call, &control->done[peer].value, {IRIS_SIGNAL_DONE, peer, -1}))
                return;
        }
    }
    if (call.signal >= kSignalPeriod - 1) { /* see NOTE [wrap] */
        uint32_t *flags = tile_flag(call, self, 0);
        for (uint32_t i = 0; i < call.args.flags_count; ++i)
            __atomic_store_n(&flags[i], 0, __ATOMIC_RELAXED);
    }
    call_complete(call);
}

} // namespace iris

#endif
