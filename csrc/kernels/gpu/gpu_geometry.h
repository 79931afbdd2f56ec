/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a staged tile is laid out in 16-byte chunks, the tiles of products and runs of tensors, and
 * where partial tiles and results go; and how chunks are reduced.
 */
#ifndef IRIS_GPU_GEOMETRY_H
#define IRIS_GPU_GEOMETRY_H

#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"
#include "tile_gpu.h"

namespace iris
{

/* How a tile's chunks lie in the staging, and where in the tile they belong. Chunks are numbered
 * row by row. Swizzled: a part, kRows / kParts rows, lies as it left shared memory, in panels as
 * wide as one line of the copy engines (8 chunks), in which a row's chunks change places with the
 * row, so that writing a column of chunks there meets no bank twice. kHasFewRegisters: the threads
 * that sum have few registers left, so that they take fewer chunks at once. */
template <typename T, int kRows, int kCols, int kPartCount, bool kSwizzled, int kPieceCount,
          bool kHasFewRegisters = false>
struct product_geometry {
    static constexpr int32_t kRowChunks = kCols / kChunk<T>;
    static constexpr int32_t kLineChunks = 8;
    static constexpr int32_t kPartRows = kRows / kPartCount;
    static constexpr int32_t kPieces = kPieceCount; /* that are reduced and published one by one */
    static constexpr int32_t kParts = kPartCount;
    static constexpr int32_t kChunks = kRows * kCols / kChunk<T>;
    static constexpr bool kProduct = true, kTensorCores = kSwizzled;
    static constexpr bool kFewRegisters = kHasFewRegisters;

    IRIS_INLINE explicit product_geometry(const iris_reduce_args &)
    {
    }
    IRIS_INLINE int32_t chunks() const
    {
        return kChunks;
    }
    IRIS_INLINE int32_t row(int32_t chunk) const
    {
        return chunk / kRowChunks;
    }
    IRIS_INLINE int32_t col(int32_t chunk) const
    {
        return chunk % kRowChunks * kChunk<T>;
    }
    IRIS_INLINE int32_t offset(int32_t chunk) const
    {
        if constexpr (!kSwizzled)
            return chunk * kChunkBytes;
        const int32_t part = chunk / (kPartRows * kRowChunks);
        const int32_t line = chunk / kRowChunks % kPartRows, column = chunk % kRowChunks;
        const int32_t panel = part * (kRowChunks / kLineChunks) + column / kLineChunks;
        return ((panel * kPartRows + line) * kLineChunks + (column % kLineChunks ^ (line & 7))) *
               kChunkBytes;
    }
};

template <typename T> struct run_geometry {
    static constexpr int32_t kPieces = IRIS_RUN_PIECES, kParts = 1;
    static constexpr bool kProduct = false, kTensorCores = false, kFewRegisters = false;
    int32_t cols;

    IRIS_INLINE explicit run_geometry(const iris_reduce_args &args) : cols(args.block_n)
    {
    }
    IRIS_INLINE int32_t chunks() const
    {
        return (cols + kChunk<T> - 1) / kChunk<T>;
    }
    IRIS_INLINE int32_t row(int32_t) const
    {
        return 0;
    }
    IRIS_INLINE int32_t col(int32_t chunk) const
    {
        return chunk * kChunk<T>;
    }
    IRIS_INLINE int32_t offset(int32_t chunk) const
    {
        return chunk * kChunkBytes;
    }
};

/* Where a rank wants its results, resolved from its record. */
struct result_place {
    uint64_t address; /* of the output, or of the result staging */
    int64_t stride_row, stride_col;
    uint32_t staged;
    uint32_t vector; /* rows take whole chunks */
};

/* Shared memory of a group that reduces and publishes. */
struct reduction_shared {
    result_place places[IRIS_MAX_RANKS];
    /* All outputs take whole chunks and have the same strides, as symmetric tensors do: a chunk
     * lies equally far from the start of each. */
    uint32_t uniform;
};

/* Where a partial tile goes. */
struct partial_place {
    char *slot;
    int32_t rank;
    int64_t flag;
};

/* ---- which tiles there are ---- */

/* Who gets what. Scattered: each rank its share of the sum. Gathered: all ranks all shares, of
 * which each is one rank's product; nothing is added up. */
enum class result { everywhere, scattered, gathered };

/* Every tile that a rank computes. */
template <result kResult> IRIS_INLINE int64_t gpu_tiles(const iris_schedule *schedule)
{
    return kResult == result::gathered ? schedule->share_max : schedule->tiles;
}

/* M, N: those of the arguments. */
template <result kResult>
IRIS_INLINE iris_schedule gpu_schedule(const iris_reduce_args &args, int64_t M, int64_t N)
{
    constexpr bool kShares = kResult != result::everywhere;
    return iris_share_schedule_make(M, N, kShares ? args.share_m : 0, kShares ? args.share_n : 0,
                                    args.block_m, args.block_n, args.group_size_m,
                                    args.call.world_size);
}

template <result kResult> IRIS_INLINE iris_schedule gpu_schedule(const iris_reduce_args &args)
{
    return gpu_schedule<kResult>(args, args.M, args.N);
}

/* Where a tile's operands begin. Of a scattered result, too, tile t is rank t mod W's. */
template <result kResult>
IRIS_INLINE iris_tile_coord gpu_tile_coord(const iris_schedule *schedule,
                                           const iris_reduce_args &args, int64_t tile)
{
    if constexpr (kResult == result::scattered)
        return iris_share_tile_coord(schedule, iris_cyclic_owner(schedule, tile),
                                     tile / schedule->world_size, args.share_m, args.share_n);
    else
        return iris_tile_coord_of(schedule, tile);
}

/* ---- reducing chunks ---- */

template <typename T> using chunk_values = acc_t<T>[kChunk<T>];

/* Of a product, whose partials are always added, the first is added too: to -0, which leaves every
 * number as it is, 0 and -0 as well. */
template <typename T, bool kProduct> IRIS_INLINE void begin_chunk(chunk_values<T> &values)
{
    if constexpr (kProduct)
#pragma unroll
        for (int i = 0; i < kChunk<T>; ++i)
            values[i] = -0.0f;
}

template <typename T, bool kProduct>
IRIS_INLINE void reduce_chunk(chunk_values<T> &values, const chunk16 &c, bool first, uint32_t op)
{
    chunk_values<T> term;
    unpack(c, term, T{});
#pragma unroll
    for (int i = 0; i < kChunk<T>; ++i) {
        if constexpr (kProduct)
            values[i] += term[i];
        else
            values[i] = first ? term[i] : reduced(values[i], term[i], op);
    }
}

template <typename T, bool kProduct>
IRIS_INLINE void conclude_chunk(chunk_values<T> &values, const iris_reduce_args &args,
                                int32_t world)
{
    if constexpr (!kProduct)
#pragma unroll
        for (int i = 0; i < kChunk<T>; ++i)
            values[i] = concluded(values[i], args.reduce_op, world, args.reduce_scale);
}

/* Chunks of a tile that a thread sums at once. */
template <result kResult, class Geometry>
constexpr int32_t kExchangeBatch = Geometry::kFewRegisters        ? 1
                                   : kResult == result::scattered ? kScatteredSumBatch
                                                                  : kSumBatch;

} // namespace iris

#endif
