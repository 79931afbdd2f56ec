/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the norm of a row is made of where a work-group's threads share it.
 */
#ifndef IRIS_RMSNORM_GPU_H
#define IRIS_RMSNORM_GPU_H

#include "kernels/abi/launch_limits.h"
#include "kernels/base/kernel.h"
#include "kernels/base/primitives.h"

namespace iris
{

IRIS_INLINE float squared(float x)
{
    return round_alone(x * x); /* the same for all dtypes */
}

/* The sum of all threads' values, in one order whatever the threads do. Called by all of them. */
IRIS_INLINE float group_sum(work_group wg, float value)
{
    constexpr int32_t kThreads = IRIS_ROW_THREADS, kParts = 32;
    IRIS_SHARED static float values[kThreads], sums[kParts];
    float sum = 0;
    values[wg.thread] = value;
    group_barrier(wg);
    if (wg.thread < kParts) {
        float part = 0;
        for (int32_t i = wg.thread; i < kThreads; i += kParts)
            part += values[i];
        sums[wg.thread] = part;
    }
    group_barrier(wg); /* the next call's first one stands before `sums` changes */
    for (int32_t i = 0; i < kParts; ++i)
        sum += sums[i];
    return sum;
}

} // namespace iris

#endif
