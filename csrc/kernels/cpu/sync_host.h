/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The primitives under sync.h on the host; how waits pass the time is in sync_doorbell.h. Orders
 * are stronger than the protocol needs where that costs nothing on x86 and spares a fence that a
 * thread sanitizer does not understand.
 */
#ifndef IRIS_SYNC_HOST_H
#define IRIS_SYNC_HOST_H

#include <stdint.h>

#include "kernels/base/kernel.h"
#include "sync_doorbell.h"

namespace iris
{

/* ---- a group of one ---- */

inline void group_barrier(work_group)
{
}

inline bool is_leader(work_group)
{
    return true;
}

inline void group_publish(work_group)
{
}

inline bool group_agree(work_group, bool verdict)
{
    return verdict;
}

/* ---- shared words ---- */

/* acquire, for the relaxed that the protocol asks of a poll. */
inline uint32_t poll(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* The poll has acquired. */
inline void acquire(const uint32_t *)
{
}

inline uint64_t load_relaxed(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* Stores for other ranks: what the next release publishes. */
template <typename T> inline void push(T *target, const T &value)
{
    *target = value;
}

/* Before a signal for what was stored earlier: a release covers it here. */
inline void write_back()
{
}

inline void store_relaxed(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* relaxed: puts `value` in the place of `expected`, if that is there. */
inline void replace_relaxed(uint32_t *word, uint32_t expected, uint32_t value)
{
    __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Each word whole. release and acquire: launches, which order the packets of calls on a GPU, are
 * function calls here. */
inline void store_packet(iris_packet *target, uint64_t first, uint64_t second)
{
    __atomic_store_n(&target->word[0], first, __ATOMIC_RELEASE);
    __atomic_store_n(&target->word[1], second, __ATOMIC_RELEASE);
}

inline iris_packet load_packet(const iris_packet *source)
{
    return {{__atomic_load_n(&source->word[0], __ATOMIC_ACQUIRE),
             __atomic_load_n(&source->word[1], __ATOMIC_ACQUIRE)}};
}

inline uint32_t count_in_relaxed(uint32_t *counter)
{
    return __atomic_add_fetch(counter, 1, __ATOMIC_ACQ_REL); /* the next launch is another thread */
}

inline void store_relaxed(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* release, system: everything this thread wrote before, or has been published to it, is visible
 * before `value` is. */
inline void store_release(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

inline void store_release(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* release, system: as store_release, but adds. */
inline void add_release(uint32_t *word, uint32_t value)
{
    __atomic_fetch_add(word, value, __ATOMIC_RELEASE);
}

/* acq_rel: the new count. */
inline uint32_t count_in(uint32_t *counter)
{
    return __atomic_add_fetch(counter, 1, __ATOMIC_ACQ_REL);
}

/* acquire on success. Reads first: a failed compare-and-swap takes the line from the holder. */
inline bool try_lock(uint32_t *lock)
{
    uint32_t expected = 0;
    return __atomic_load_n(lock, __ATOMIC_RELAXED) == 0 &&
           __atomic_compare_exchange_n(lock, &expected, 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

/* Sets a rank's abort word, in host memory, if nobody has. release: who finds this rank's number in
 * the word reads this rank's fault. */
inline bool try_abort(uint32_t *word, uint32_t value)
{
    uint32_t expected = 0;
    return __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_RELEASE,
                                       __ATOMIC_RELAXED);
}

/* relaxed: sums are published by the signal that follows them. */
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

} // namespace iris

#endif
