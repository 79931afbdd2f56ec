/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Sixteen bytes of elements: the widest access of a thread.
 */
#ifndef IRIS_CHUNK_H
#define IRIS_CHUNK_H

#include "kernels/base/kernel.h"

namespace iris
{

constexpr int32_t kChunkBytes = 16;
template <typename T> constexpr int32_t kChunk = kChunkBytes / (int32_t)sizeof(T);

struct alignas(16) chunk16 {
    uint32_t word[4];
};

IRIS_INLINE bool is_aligned(uint64_t value)
{
    return value % kChunkBytes == 0;
}

} // namespace iris

#endif
