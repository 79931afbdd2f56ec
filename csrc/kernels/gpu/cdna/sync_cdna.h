/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The primitives under sync.h on gfx90a, gfx942 and gfx950. docs/hip.md has the generated code and
 * what tests assert of it.
 *
 * NOTE [drain] On these chips a work-group barrier does not wait for a wave's outstanding global
 * stores, and the leader's release waits for its own wave's only. So every wave drains its stores
 * before the barrier that precedes a signal.
 *
 * NOTE [write-back] A release at system scope writes the dirty lines of this XCD's L2 back
 * (buffer_wbl2). The compiler may drop the wait for it when the wave has nothing else outstanding,
 * so it is spelled out.
 *
 * NOTE [scoped stores] On gfx942 what a call hands to other work-groups and ranks is stored at
 * system scope (`push`: sc0 sc1), which goes through L2 to memory. A wave that has waited for its
 * stores has published them, and a release writes nothing back; a write-back would have to look
 * through all of L2. So whatever a call stores for others has to be stored by `push`. gfx950 and
 * gfx90a have the full release, and push as they store.
 */
#ifndef IRIS_SYNC_CDNA_H
#define IRIS_SYNC_CDNA_H

#include <stdint.h>

#include "kernels/base/kernel.h"

namespace iris
{

/* ---- the group ---- */

IRIS_INLINE bool is_leader(work_group wg)
{
    return wg.thread == 0;
}

/* Orders the block's accesses to LDS. The group is the whole block. */
IRIS_INLINE void group_barrier(work_group)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

/* Between what some lanes of a wave store to LDS and others load. LDS executes a wave's accesses in
 * order, so that nobody waits; the compiler may not reorder them. */
IRIS_INLINE void exchange_lanes()
{
    __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
    __builtin_amdgcn_wave_barrier();
}

/* This wave's stores have left for memory. */
IRIS_INLINE void drain_stores()
{
    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");
}

/* What the group wrote comes before what its leader signals next. See NOTE [drain]. */
IRIS_INLINE void group_publish(work_group wg)
{
    drain_stores();
    group_barrier(wg);
}

/* Whether all threads say yes; what one of them has acquired is visible to all after it: its
 * invalidate dropped the L1 that the block's waves share. */
IRIS_INLINE bool group_agree(work_group wg, bool verdict)
{
    if (is_leader(wg))
        *wg.shared = 1;
    group_barrier(wg);
    if (!verdict)
        *wg.shared = 0;
    group_barrier(wg);
    const bool agreed = *wg.shared != 0;
    group_barrier(wg); /* before the word is used again */
    return agreed;
}

/* ---- shared words ---- */

/* relaxed, system: `acquire` follows the successful poll, once. In the loop it would drop the
 * caches in every round. */
IRIS_INLINE uint32_t poll(const uint32_t *word)
{
    return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

IRIS_INLINE void fence_acquire()
{
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "");
}

/* acquire, system, of a word whose value has been seen. */
IRIS_INLINE void acquire(const uint32_t *)
{
    fence_acquire();
}

/* Of all that this thread has stored, or was published to it, by whatever stores. See
 * NOTE [write-back]. */
IRIS_INLINE void write_back()
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");
    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");
}

/* Of what was pushed. See NOTE [scoped stores]. */
IRIS_INLINE void fence_release()
{
#if defined(__gfx942__)
    drain_stores();
#else
    write_back();
#endif
}

IRIS_INLINE uint64_t load_relaxed(const uint64_t *word)
{
    return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

IRIS_INLINE void store_relaxed(uint32_t *word, uint32_t value)
{
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

/* relaxed, system: puts `value` in the place of `expected`, if that is there. */
IRIS_INLINE void replace_relaxed(uint32_t *word, uint32_t expected, uint32_t value)
{
    __hip_atomic_compare_exchange_strong(word, &expected, value, __ATOMIC_RELAXED, __ATOMIC_RELAXED,
                                         __HIP_MEMORY_SCOPE_SYSTEM);
}

/* ---- 16 bytes at system scope: C++ has no word for them ---- */

typedef uint32_t words4 __attribute__((ext_vector_type(4)));

template <int kBytes> struct word_of;
template <> struct word_of<1> {
    typedef uint8_t type;
};
template <> struct word_of<2> {
    typedef uint16_t type;
};
template <> struct word_of<4> {
    typedef uint32_t type;
};
template <> struct word_of<8> {
    typedef uint64_t type;
};

/* relaxed, system; 16-byte aligned; each half whole. The compiler, which does not know what stands
 * here, may write the registers of `value` next, for which the store needs wait states. */
IRIS_INLINE void store_past_caches(void *target, words4 value)
{
#if defined(__gfx90a__)
    asm volatile("global_store_dwordx4 %0, %1, off\n\ts_nop 0" ::"v"(target), "v"(value));
#else
    asm volatile("global_store_dwordx4 %0, %1, off sc0 sc1\n\ts_nop 1" ::"v"(target), "v"(value));
#endif
}

/* relaxed, system; 16-byte aligned; each half whole. Of a wave's lanes none is 2 GiB from another.
 * An instruction that the compiler knows, so that several are under way at once. */
IRIS_INLINE words4 load_past_caches(const void *source)
{
#if defined(__gfx90a__)
    constexpr int32_t kScope = 1; /* glc */
#else
    constexpr int32_t kScope = 1 + 16; /* sc0 sc1 */
#endif
    constexpr uint64_t kReach = UINT64_C(1) << 31;
    constexpr uint32_t kPlainBytes = 0x27000; /* the descriptor's last word */
    const uint64_t address = reinterpret_cast<uint64_t>(source);
    const uint64_t base = (uint64_t)uniform((int64_t)address) - kReach;
    const __amdgpu_buffer_rsrc_t memory = __builtin_amdgcn_make_buffer_rsrc(
        reinterpret_cast<void *>(base), 0, UINT32_MAX, kPlainBytes);
    return __builtin_bit_cast(words4, __builtin_amdgcn_raw_buffer_load_b128(
                                          memory, (uint32_t)(address - base), 0, kScope));
}

/* Stores for other work-groups and ranks: what the next release publishes. See
 * NOTE [scoped stores]. */
template <typename T> IRIS_INLINE void push(T *target, const T &value)
{
#if defined(__gfx942__)
    if constexpr (sizeof(T) == 16) {
        store_past_caches(target, __builtin_bit_cast(words4, value));
    } else {
        using word = typename word_of<sizeof(T)>::type;
        __hip_atomic_store(reinterpret_cast<word *>(target), __builtin_bit_cast(word, value),
                           __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
    }
#else
    *target = value;
#endif
}

IRIS_INLINE void store_packet(iris_packet *target, uint64_t first, uint64_t second)
{
    store_past_caches(target, words4{(uint32_t)first, (uint32_t)(first >> 32), (uint32_t)second,
                                     (uint32_t)(second >> 32)});
}

IRIS_INLINE iris_packet load_packet(const iris_packet *source)
{
    return __builtin_bit_cast(iris_packet, load_past_caches(source));
}

/* relaxed: the new count, for an order that the end of the launch gives. */
IRIS_INLINE uint32_t count_in_relaxed(uint32_t *counter)
{
    return __hip_atomic_fetch_add(counter, 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM) + 1;
}

IRIS_INLINE void store_relaxed(uint64_t *word, uint64_t value)
{
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

/* release, system: everything this thread wrote before, or has been published to it, is visible
 * before `value` is. */
IRIS_INLINE void store_release(uint32_t *word, uint32_t value)
{
    fence_release();
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

IRIS_INLINE void store_release(uint64_t *word, uint64_t value)
{
    fence_release();
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

/* release, system: as store_release, but adds. */
IRIS_INLINE void add_release(uint32_t *word, uint32_t value)
{
    fence_release();
    (void)__hip_atomic_fetch_add(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

/* acq_rel, system: each block publishes what it has pushed before it counts in, because the last
 * one's signals cannot do that for the others. The new count. */
IRIS_INLINE uint32_t count_in(uint32_t *counter)
{
    fence_release();
    const uint32_t before =
        __hip_atomic_fetch_add(counter, 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
    fence_acquire();
    return before + 1;
}

/* acquire on success. Reads first: a failed compare-and-swap would still cross the link. */
IRIS_INLINE bool try_lock(uint32_t *lock)
{
    uint32_t expected = 0;
    if (poll(lock) != 0 ||
        !__hip_atomic_compare_exchange_strong(lock, &expected, 1u, __ATOMIC_RELAXED,
                                              __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM))
        return false;
    fence_acquire();
    return true;
}

/* Sets a rank's abort word, in host memory, if nobody has. Not a compare-and-swap: over PCIe none
 * need be atomic against the hosts. Two reasons written at once are both true, either may stay. */
IRIS_INLINE bool try_abort(uint32_t *word, uint32_t value)
{
    if (poll(word) != 0)
        return false;
    write_back();
    store_relaxed(word, value);
    return true;
}

/* relaxed, system: sums are published by the signal that follows them. A compare-and-swap on the
 * bits: the add instruction is not defined on fine-grained memory. */
IRIS_INLINE void atomic_add(float *target, float value)
{
    uint32_t *word = reinterpret_cast<uint32_t *>(target);
    uint32_t seen = poll(word), sum;
    do {
        sum = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, seen) + value);
    } while (!__hip_atomic_compare_exchange_strong(word, &seen, sum, __ATOMIC_RELAXED,
                                                   __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM));
}

/* ---- time ---- */

/* Of the constant clock; the same on all of the device's units. */
IRIS_INLINE uint64_t clock_ticks()
{
    return __builtin_amdgcn_s_memrealtime();
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

    /* false: the time limit, in ticks of the constant clock, has passed. */
    IRIS_INLINE bool pause(int32_t)
    {
        ++rounds_;
        looks_around_ = false;
        __builtin_amdgcn_s_sleep(1);
        if (rounds_ % kClockInterval != 0)
            return true;
        const uint64_t now = clock_ticks();
        if (started_ == 0)
            started_ = looked_ = now;
        if (now - looked_ > kLookTicks) {
            looked_ = now;
            looks_around_ = true;
        }
        return now - started_ <= timeout_ticks_;
    }

  private:
    static constexpr uint32_t kClockInterval = 128;
    static constexpr uint64_t kLookTicks = 200000; /* 2 ms at 100 MHz */

    uint64_t timeout_ticks_;
    uint64_t started_ = 0, looked_ = 0;
    uint32_t rounds_ = 0;
    bool looks_around_ = false;
};

/* There are no launches that begin before the one in front has ended: see IRIS_BEGINS_EARLY. */
IRIS_INLINE void follow_previous_launch()
{
}

} // namespace iris

#endif
