/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Bytes dealt out to the work-groups of a launch.
 */
#ifndef IRIS_BYTE_RANGE_H
#define IRIS_BYTE_RANGE_H

#include "kernel.h"

namespace iris
{

/* The part of `nbytes` that one of `count` handles. */
struct byte_range {
    uint64_t begin, nbytes;
};

IRIS_INLINE byte_range share_of(int32_t index, int32_t count, uint64_t nbytes)
{
    /* Lines are not shared between work-groups. */
    const uint64_t share = (nbytes / (uint64_t)count + 63) / 64 * 64;
    const uint64_t begin = share * (uint64_t)index;
    if (begin >= nbytes)
        return {0, 0};
    const bool last = index == count - 1 || nbytes - begin < share;
    return {begin, last ? nbytes - begin : share};
}

} // namespace iris

#endif
