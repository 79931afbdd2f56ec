/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a wait on the host passes the time: it spins while that can be the shortest way, then sleeps
 * on its rank's doorbell (struct iris_doorbell, in the control segment, which all ranks map).
 *
 * NOTE [doorbell] Who signals to rank r, and finds that somebody of r sleeps until this rank
 * signals, changes r's `rings` and wakes r's sleepers. Nobody sleeps: one fence and one load, no
 * system call. No wake-up is lost:
 *
 *   sleeper (rank r, awaiting p)            signaller (rank p)
 *   seen = rings                            stores the signal
 *   sleepers[p] += 1                        fence
 *   fence                                   if sleepers[p] != 0:
 *   looks at the signal once more               rings += 1, wakes who sleeps on rings
 *   sleeps while rings == seen
 *
 * Of the two, one sees what the other has stored before its fence: the sleeper the signal, or the
 * signaller the sleeper; then `rings` is not `seen` any more, or the sleeper is asleep and woken.
 * docs/model/doorbell.pml checks it. Nevertheless no sleep lasts longer than kNapNs: abort words,
 * time limits, and words that something else than a signal changes, are looked at by then.
 *
 * NOTE [spinning] A signal between two running ranks takes under a microsecond, a sleep and a
 * wake-up tens of them when they are on two cores. So a wait first spins, for about as long as a
 * wake-up costs: it is then never much worse than the better of the two. But where another
 * work-group of the context was last seen waiting on this very core, what this one waits for may
 * need the core: it sleeps at once, and the kernel switches to the other. It never yields: beside a
 * process that only computes, a yield costs a time slice of milliseconds, a sleeper is put back as
 * soon as it is woken.
 *
 * Two ranks that sleep in turn look like one busy process, so the kernel may leave them on one core
 * for ever beside other work, at ten times the cost of a call on two. So of work-groups that share
 * a core, all but the first go, at most once in kSpreadNs each, to a core that they may run on and
 * that has two fewer: the thread's affinity is narrowed for a moment and put back.
 */
#ifndef IRIS_SYNC_DOORBELL_H
#define IRIS_SYNC_DOORBELL_H

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/wait.h"
#include "kernels/base/kernel.h"

namespace iris
{

/* Nanoseconds; the same in all processes. */
inline uint64_t clock_ticks()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The work-group that this thread runs. */
struct running_group {
    int32_t index, count;
};
inline thread_local running_group current_group = {0, 1};

inline iris_doorbell *doorbell_of(const iris_call_args &args, int32_t rank)
{
    return device_pointer<iris_doorbell>(args.doorbells_address) + rank;
}

/* seq_cst: between a store and a load that must not change places. The thread sanitizer does not
 * know it, and needs not: it orders no data. */
inline void doorbell_fence()
{
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wtsan"
#endif
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}

/* ---- the core that work-groups wait on ---- */

inline uint32_t *core_of(const iris_call_args &args, int32_t rank, int32_t group)
{
    return &doorbell_of(args, rank)->core[group % IRIS_DOORBELL_CORES];
}

/* Says where this work-group is: 1 + the core's number. Its line is written only when that changes.
 * relaxed: a hint. */
inline uint32_t tell_core(const iris_call_args &args)
{
    uint32_t *told = core_of(args, args.rank, current_group.index);
    const uint32_t core = (uint32_t)(sched_getcpu() + 1);
    if (__atomic_load_n(told, __ATOMIC_RELAXED) != core)
        __atomic_store_n(told, core, __ATOMIC_RELAXED);
    return core;
}

/* How many work-groups of the context have said that they are on `core`; only those before this one
 * in the order of (rank, index), or all. */
inline int32_t groups_on(const iris_call_args &args, uint32_t core, bool only_before)
{
    const int32_t own = current_group.index % IRIS_DOORBELL_CORES;
    const int32_t groups =
        current_group.count < IRIS_DOORBELL_CORES ? current_group.count : IRIS_DOORBELL_CORES;
    int32_t found = 0;
    for (int32_t rank = 0; rank < args.world_size; ++rank)
        for (int32_t group = 0; group < groups; ++group) {
            if (only_before && (rank > args.rank || (rank == args.rank && group >= own)))
                return found;
            if (__atomic_load_n(core_of(args, rank, group), __ATOMIC_RELAXED) == core)
                ++found;
        }
    return found;
}

/* Lets this thread go on on a core with fewer work-groups of the context, if it may run on one with
 * two fewer than here. Those that are first on their core stay, so that no two change places. */
inline void spread(const iris_call_args &args, uint32_t core, int32_t here)
{
    cpu_set_t allowed, one;
    if (groups_on(args, core, true) == 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (int32_t step = 1; step < CPU_SETSIZE; ++step) {
        const uint32_t other = (core - 1 + (uint32_t)step) % CPU_SETSIZE;
        if (!CPU_ISSET(other, &allowed) || groups_on(args, other + 1, false) > here - 2)
            continue;
        CPU_ZERO(&one);
        CPU_SET(other, &one);
        if (sched_setaffinity(0, sizeof one, &one) == 0)
            sched_setaffinity(0, sizeof allowed, &allowed);
        return;
    }
}

/* Whether another work-group of the context has said that it is on this one's core. From time to
 * time this one then goes elsewhere. See NOTE [spinning]. */
inline bool shares_core(const iris_call_args &args)
{
    /* A move may have to wait for a time slice of whoever runs there. */
    constexpr uint64_t kSpreadNs = 10000000;
    static thread_local uint64_t spread_ns;
    uint32_t core = tell_core(args);
    int32_t here = groups_on(args, core, false);
    if (here < 2)
        return false;
    if (clock_ticks() - spread_ns > kSpreadNs) {
        spread(args, core, here);
        spread_ns = clock_ticks();
        core = tell_core(args);
        here = groups_on(args, core, false);
    }
    return here > 1;
}

/* ---- waking ---- */

/* The slow half of a wake-up. Not private: the word is shared between processes. */
inline void ring(const iris_call_args &args, int32_t rank)
{
    uint32_t *rings = &doorbell_of(args, rank)->rings;
    tell_core(args);
    __atomic_fetch_add(rings, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

inline void ring_if_asleep(const iris_call_args &args, int32_t rank)
{
    if (__atomic_load_n(&doorbell_of(args, rank)->sleepers[args.rank], __ATOMIC_RELAXED) != 0)
        ring(args, rank);
}

/* After the signals that this rank has stored for `rank`. See NOTE [doorbell]. */
inline void wake(const iris_call_args &args, int32_t rank)
{
    doorbell_fence();
    ring_if_asleep(args, rank);
}

/* After signals for several ranks. */
inline void wake_all(const iris_call_args &args)
{
    doorbell_fence();
    for (int32_t rank = 0; rank < args.world_size; ++rank)
        ring_if_asleep(args, rank);
}

/* ---- pacing of a wait ---- */

class waiter
{
  public:
    explicit waiter(const iris_call_args &args) : args_(args)
    {
    }

    waiter(const waiter &) = delete;
    waiter &operator=(const waiter &) = delete;

    ~waiter()
    {
        leave();
    }

    /* From the beginning: what was waited for has come, something else is waited for now. */
    void restart()
    {
        leave();
        spin_again();
        started_ns_ = 0;
    }

    /* Whether this round should look at the abort word too. */
    bool looks_around() const
    {
        return true;
    }

    /* Between two looks at a signal of rank `awaited`, -1: of any. A pause spins; or it announces a
     * sleep, so that there is one more look; or it sleeps. false: the time limit, in nanoseconds,
     * has passed. */
    bool pause(int32_t awaited)
    {
        if (announced_ && awaited_ == awaited)
            return sleep();
        leave();
        if (!spins())
            announce(awaited);
        return in_time_;
    }

  private:
    static constexpr uint32_t kFirstSpins = 4;
    static constexpr uint32_t kClockInterval = 16;
    static constexpr uint64_t kSpinNs = 50000;
    static constexpr long kNapNs = 2000000;

    bool spins()
    {
        ++rounds_;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
        if (rounds_ == kFirstSpins)
            shares_core_ = shares_core(args_);
        if (shares_core_)
            return false;
        if (rounds_ % kClockInterval != 0)
            return true;
        const uint64_t now = look_at_clock();
        if (spinning_since_ == 0)
            spinning_since_ = now;
        return now - spinning_since_ < kSpinNs;
    }

    void spin_again()
    {
        rounds_ = 0;
        spinning_since_ = 0;
        shares_core_ = false;
    }

    uint64_t look_at_clock()
    {
        const uint64_t now = clock_ticks();
        if (started_ns_ == 0)
            started_ns_ = now;
        in_time_ = now - started_ns_ <= args_.timeout_ticks;
        /* On the thread that made the call: runs handlers of signals. If it is to end, the abort
         * word says so, too. */
        (void)iris_wait_is_over(now, &asked_ns_);
        return now;
    }

    /* relaxed: the fences order it. */
    void count(int32_t change) const
    {
        iris_doorbell *own = doorbell_of(args_, args_.rank);
        for (int32_t rank = 0; rank < args_.world_size; ++rank)
            if (awaited_ < 0 || awaited_ == rank)
                __atomic_fetch_add(&own->sleepers[rank], (uint32_t)change, __ATOMIC_RELAXED);
    }

    void announce(int32_t awaited)
    {
        awaited_ = awaited;
        announced_ = true;
        seen_ = __atomic_load_n(&doorbell_of(args_, args_.rank)->rings, __ATOMIC_ACQUIRE);
        count(1);
        doorbell_fence();
    }

    void leave()
    {
        if (announced_)
            count(-1);
        announced_ = false;
    }

    /* A signal's handler, an old `seen_` or the end of the nap end it too. */
    bool sleep()
    {
        const timespec nap = {0, kNapNs};
        syscall(SYS_futex, &doorbell_of(args_, args_.rank)->rings, FUTEX_WAIT, seen_, &nap, nullptr,
                0);
        leave();
        spin_again();
        look_at_clock();
        return in_time_;
    }

    const iris_call_args &args_;
    uint64_t started_ns_ = 0, spinning_since_ = 0, asked_ns_ = 0;
    uint32_t rounds_ = 0, seen_ = 0;
    int32_t awaited_ = -1;
    bool announced_ = false, shares_core_ = false, in_time_ = true;
};

} // namespace iris

#endif
