/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The clock that the hosts' time limits are measured with.
 */
#ifndef IRIS_CLOCK_H
#define IRIS_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds of a clock that nobody sets. */
static inline uint64_t iris_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
