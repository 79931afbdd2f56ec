/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Sixteen bytes of elements: the widest access of a thread. And how rows of them lie in shared
 * memory, which has banks.
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

/* Rows of a stage (gemm_block.h): from the beginning of one to that of the next `pitch` bytes, and
 * more after every second, every eighth and every 32nd; multiples of 16. */
struct stage_rows {
    int32_t pitch, every_2, every_8, every_32;
};

} // namespace iris

#endif
