/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The primitives under sync.h on sm_90a, in PTX (its memory consistency model is the reference).
 *
 * bar.sync puts all threads' earlier accesses before the leader's later ones (causality order), and
 * fence.acq_rel is cumulative, so a leader's release covers what its group wrote, to this GPU or to
 * a peer's memory. Its acquire covers the group's later reads in the same way.
 *
 * Writes of the bulk copy engine are in the async proxy: publish_bulk_stores in tile_sm90.h brings
 * them under the same order.
 */
#ifndef IRIS_SYNC_SM90_H
#define IRIS_SYNC_SM90_H

#include <stdint.h>

#include "kernels/base/kernel.h"

namespace iris
{

/* ---- the group ---- */

IRIS_INLINE bool is_leader(work_group wg)
{
    return wg.thread == 0;
}

/* Orders the group's accesses to global and shared memory, at block scope. */
IRIS_INLINE void group_barrier(work_group wg)
{
    asm volatile("bar.sync %0, %1;" ::"r"(wg.barrier), "r"(wg.threads) : "memory");
}

/* What the group wrote comes before what its leader signals next. */
IRIS_INLINE void group_publish(work_group wg)
{
    group_barrier(wg);
}

/* Whether all threads say yes; what the leader has acquired is visible to all after it. */
IRIS_INLINE bool group_agree(work_group wg, bool verdict)
{
    uint32_t all;
    asm volatile("{\n"
                 ".reg .pred mine, all;\n"
                 "setp.ne.u32 mine, %1, 0;\n"
                 "barrier.cta.red.and.pred all, %2, %3, mine;\n"
                 "selp.u32 %0, 1, 0, all;\n"
                 "}\n"
                 : "=r"(all)
                 : "r"((uint32_t)verdict), "r"(wg.barrier), "r"(wg.threads)
                 : "memory");
    return all != 0;
}

/* ---- shared words ---- */

/* relaxed, system: `acquire` follows the successful poll, once. In the loop it would drop the
 * caches in every round. */
IRIS_INLINE uint32_t poll(const uint32_t *word)
{
    uint32_t value;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}

/* acquire, system, of a word whose value has been seen. A load, because a fence would also wait for
 * this thread's own stores, which may be on their way to a peer. */
IRIS_INLINE void acquire(const uint32_t *word)
{
    asm volatile("{\n"
                 ".reg .u32 value;\n"
                 "ld.acquire.sys.global.u32 value, [%0];\n"
                 "}\n" ::"l"(word)
                 : "memory");
}

IRIS_INLINE uint64_t load_relaxed(const uint64_t *word)
{
    uint64_t value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}

IRIS_INLINE void store_relaxed(uint32_t *word, uint32_t value)
{
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

/* relaxed, system: puts `value` in the place of `expected`, if that is there. */
IRIS_INLINE void replace_relaxed(uint32_t *word, uint32_t expected, uint32_t value)
{
    asm volatile("{\n"
                 ".reg .u32 seen;\n"
                 "atom.relaxed.sys.global.cas.b32 seen, [%0], %1, %2;\n"
                 "}\n" ::"l"(word),
                 "r"(expected), "r"(value)
                 : "memory");
}

/* relaxed, system; each word whole. */
IRIS_INLINE void store_packet(iris_packet *target, uint64_t first, uint64_t second)
{
    asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(target), "l"(first),
                 "l"(second)
                 : "memory");
}

IRIS_INLINE iris_packet load_packet(const iris_packet *source)
{
    iris_packet p;
    asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(p.word[0]), "=l"(p.word[1])
                 : "l"(source)
                 : "memory");
    return p;
}

/* relaxed: the new count, for an order that the end of the launch gives. */
IRIS_INLINE uint32_t count_in_relaxed(uint32_t *counter)
{
    uint32_t before;
    asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    return before + 1;
}

IRIS_INLINE void store_relaxed(uint64_t *word, uint64_t value)
{
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

/* Stores for other work-groups and ranks: what the next release publishes. */
template <typename T> IRIS_INLINE void push(T *target, const T &value)
{
    *target = value;
}

/* Before a signal for what earlier launches stored: a release covers it here. */
IRIS_INLINE void write_back()
{
}

/* release, system: everything this thread wrote before, or has been published to it, is visible
 * before `value` is. */
IRIS_INLINE void store_release(uint32_t *word, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

IRIS_INLINE void store_release(uint64_t *word, uint64_t value)
{
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

/* release, system: as store_release, but adds. */
IRIS_INLINE void add_release(uint32_t *word, uint32_t value)
{
    asm volatile("red.release.sys.global.add.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

/* acq_rel, system, because the last one's signals go to peers: the new count. */
IRIS_INLINE uint32_t count_in(uint32_t *counter)
{
    uint32_t before;
    asm volatile("atom.acq_rel.sys.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    return before + 1;
}

/* acquire on success. Reads first: a failed compare-and-swap would still cross the link. */
IRIS_INLINE bool try_lock(uint32_t *lock)
{
    uint32_t seen;
    if (poll(lock) != 0)
        return false;
    asm volatile("atom.acquire.sys.global.cas.b32 %0, [%1], 0, 1;"
                 : "=r"(seen)
                 : "l"(lock)
                 : "memory");
    return seen == 0;
}

/* Sets a rank's abort word, in host memory, if nobody has. Not a compare-and-swap: over PCIe none
 * is atomic against the hosts. Two reasons written at once are both true, either may stay. */
IRIS_INLINE bool try_abort(uint32_t *word, uint32_t value)
{
    if (poll(word) != 0)
        return false;
    store_release(word, value);
    return true;
}

/* relaxed, system: sums are published by the signal that follows them. */
IRIS_INLINE void atomic_add(float *target, float value)
{
    asm volatile("red.relaxed.sys.global.add.f32 [%0], %1;" ::"l"(target), "f"(value) : "memory");
}

/* ---- launches of a stream ---- */

/* By every thread of a kernel that is launched before the one before it on the stream has ended:
 * returns when that one is complete and what it wrote is visible. Then the next may come, and do
 * the same. */
IRIS_INLINE void follow_previous_launch()
{
    asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
}

/* ---- time ---- */

/* Nanoseconds; the same on all of the device's units. */
IRIS_INLINE uint64_t clock_ticks()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

/* ---- waking, and pacing of a wait: here nobody sleeps ---- */

IRIS_INLINE void wake(const iris_call_args &, int32_t)
{
}

IRIS_INLINE void wake_all(const iris_call_args &)
{
}

class waiter
{
  public:
    IRIS_INLINE explicit waiter(const iris_call_args &args) : timeout_ticks_(args.timeout_ticks)
    {
    }

    /* The abort word lies in host memory, behind a link that many pollers of one line would jam:
     * all waits would crawl. So each looks rarely. */
    IRIS_INLINE bool looks_around() const
    {
        return looks_around_;
    }

    /* false: the time limit, in nanoseconds, has passed. */
    IRIS_INLINE bool pause(int32_t)
    {
        ++rounds_;
        looks_around_ = false;
        if (rounds_ > kSpins)
            __nanosleep(kNapNs);
        if (rounds_ % kClockInterval != 0)
            return true;
        const uint64_t now = clock_ticks();
        if (started_ == 0)
            started_ = looked_ = now;
        if (now - looked_ > kLookNs) {
            looked_ = now;
            looks_around_ = true;
        }
        return now - started_ <= timeout_ticks_;
    }

  private:
    static constexpr uint32_t kSpins = 64;
    static constexpr uint32_t kClockInterval = 128;
    static constexpr uint32_t kNapNs = 40;
    static constexpr uint64_t kLookNs = 2000000;

    uint64_t timeout_ticks_;
    uint64_t started_ = 0, looked_ = 0;
    uint32_t rounds_ = 0;
    bool looks_around_ = false;
};

} // namespace iris

#endif
