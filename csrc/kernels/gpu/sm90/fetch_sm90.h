/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A scattered sum on sm_90a, whose partials are fetched. The math warpgroups stage partial tiles in
 * this GPU's staging, straight from their registers; the storer raises the flags on the tiles'
 * owners; there the copy engine brings all ranks' partials into shared memory, where the exchange
 * warps add them up in rank order.
 *
 *   memory            written by               read by                  ordered by
 *   staged partials   the math warpgroups      the owner's copy engine  PARTIAL flag per part, on
 *                                                                       the owner, system scope
 *   ring              the copy engine          the exchange warps       `fetched`, a barrier in
 *                                                                       shared memory per slot
 *
 * Fetched, because all work-groups finish a tile at about the same time: pushed, the tiles queue
 * before the links, and the tensor cores wait for the shared memory through which they leave.
 * Memory of their own GPU takes them at once, and the links are busy while the next tiles are
 * multiplied. By the engine, because few threads are left to do it: what a thread can have on its
 * way in registers is too little for the latency of memory, the engine always has the whole ring.
 *
 * A rank reads its peers' halves, but no later than it signals DELIVERED, as NOTE [parity reuse] of
 * sync.h demands of whoever reads a half. For the same reason no peer reads this rank's memory any
 * more when the call has ended here.
 *
 * NOTE [staged tiles] A chunk of a staged tile is what one thread has of a row in 32 columns, two
 * neighbouring elements of every eight: thread l of a warp has rows l / 4 and l / 4 + 8 of the
 * warp's 16 and elements 2 (l mod 4) and the next. The chunks lie as the warps store them: for each
 * part, 32 columns, warp, and half of its rows, those of the 32 threads. The four chunks of a row's
 * 32 columns are turned over among the four threads that have summed them, after which each has
 * eight neighbouring elements.
 */
#ifndef IRIS_FETCH_SM90_H
#define IRIS_FETCH_SM90_H

#include "gemm_sm90.h"
#include "kernels/gpu/gpu_results.h"
#include "kernels/protocol/staging.h"

namespace iris
{

/* ---- staging: the math warpgroups and the storer ---- */

constexpr int32_t kStagedCols = 32, kStagedRows = 16; /* of a block: what a warp stores at a time */
constexpr int32_t kBlockChunks = kStagedRows * kStagedCols / 8;
constexpr int32_t kColumnBlocks = kPartRows / kStagedRows; /* one below the other in a part */

/* The storer's turns with the math warpgroups: staged(tile, part) for each part of a tile when it
 * lies where the storer has said, beforehand, that partials are to be. */
template <class Call, class Staged>
IRIS_INLINE void for_each_staged_part(const Call &c, const char *partials, Staged staged)
{
    if (threadIdx.x % 32 == 0)
        c.shared->own_partials = (uint64_t)partials;
    __syncwarp();
    for (int32_t part = 0; part < IRIS_SM90_PARTS; ++part)
        arrive_barrier(kPartFree + part, kGroupThreads + 32);
    c.for_each_tile([&](int64_t tile, const iris_tile_coord &) {
        for (int32_t part = 0; part < IRIS_SM90_PARTS; ++part) {
            sync_barrier(kPartFull + part, kGroupThreads + 32);
            arrive_barrier(kPartFree + part, kGroupThreads + 32);
            staged(tile, part);
            __syncwarp();
        }
    });
}

/* Leaves this warpgroup's part of the tile, rounded, and tells the storer once that one has heard
 * of the tile before. See NOTE [staged tiles]. */
template <typename T, int32_t kTileN>
IRIS_INLINE void stage_part(const float (&d)[kTileN / 2], const sm90_shared *shared, int64_t tile,
                            int32_t part)
{
    const int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    sync_barrier(kPartFree + part, kGroupThreads + 32);
    char *place = device_pointer<char>(shared->own_partials) +
                  (tile * IRIS_SM90_PARTS + part) * (kPartRows * kTileN * (int64_t)sizeof(T)) +
                  (warp * kBlockChunks + lane) * kChunkBytes;

#pragma unroll
    for (int32_t group = 0; group < kTileN / kStagedCols; ++group) {
#pragma unroll
        for (int32_t half = 0; half < 2; ++half) {
            const float *v = d + group * 16 + half * 2;
            store_chunk(place + half * (kBlockChunks / 2) * kChunkBytes,
                        chunk16{{pack_pair<T>(v[0], v[1]), pack_pair<T>(v[4], v[5]),
                                 pack_pair<T>(v[8], v[9]), pack_pair<T>(v[12], v[13])}});
        }
        place += kColumnBlocks * kBlockChunks * kChunkBytes;
    }
    arrive_barrier(kPartFull + part, kGroupThreads + 32);
}

/* ---- fetching: the exchange warps ---- */

/* Word k of lane q of every four becomes word q of lane k. */
IRIS_INLINE void transpose_4x4(uint32_t (&word)[4])
{
    const bool odd = (threadIdx.x & 1) != 0, high = (threadIdx.x & 2) != 0;
    const uint32_t first = __shfl_xor_sync(~0u, odd ? word[0] : word[1], 1);
    const uint32_t second = __shfl_xor_sync(~0u, odd ? word[2] : word[3], 1);
    (odd ? word[0] : word[1]) = first;
    (odd ? word[2] : word[3]) = second;
    const uint32_t third = __shfl_xor_sync(~0u, high ? word[0] : word[2], 2);
    const uint32_t fourth = __shfl_xor_sync(~0u, high ? word[1] : word[3], 2);
    (high ? word[0] : word[2]) = third;
    (high ? word[1] : word[3]) = fourth;
}

/* kBatch: chunks of a run that a thread adds up at once. */
template <typename T, iris_variant kVariant, class Geometry, int32_t kBatch>
class partial_fetcher : public gpu_results<T, kVariant, Geometry, result::scattered>
{
    using base = gpu_results<T, kVariant, Geometry, result::scattered>;
    using base::args_;
    using base::call_;
    using base::coord;
    using base::exists;
    using base::flag_of;
    using base::flag_stride;
    using base::layout_;
    using base::owned_units;
    using base::publish;
    using base::rank_;
    using base::ranks;
    using base::wg_;
    using values_t = typename base::values_t;

  public:
    IRIS_INLINE partial_fetcher(work_group wg, const iris_reduce_args &args, const call_state &call,
                                sm90_shared *shared)
        : base(wg, args, call, nullptr), ring_(shared->part), fetched_(shared->fetched)
    {
        const int32_t room = (int32_t)sizeof shared->part / (ranks() * kRunBytes);
        slots_ = room < kFetchSlots ? room : kFetchSlots;
    }

    /* All that this rank's exchange warps owe: sums and stores every wg.count-th unit. A slot is
     * asked for again as soon as it has been read, also where that means to wait for the next
     * unit's flags: what this holds up nobody waits for, as who multiplies and stores waits for
     * nobody. false: something did not come. */
    IRIS_INLINE bool fetch()
    {
        const int64_t units = owned_units();

        IRIS_NO_UNROLL
        for (int32_t slot = 0; slot < slots_; ++slot)
            if (!ask(slot))
                return wait_for_engine();
        IRIS_NO_UNROLL
        for (int64_t unit = wg_.index; unit < units; unit += wg_.count) {
            const int64_t tile = tile_of(unit);
            const iris_tile_coord at = coord(tile);
            const int32_t first = (int32_t)(unit % Geometry::kPieces) * kUnitBlocks;
            const trace_span span(args_.call, is_leader(wg_), IRIS_TRACE_REDUCE, rank_, tile);
            const bool plain = stores_plainly(at);
            char *target = plain_target(at, first);
            IRIS_NO_UNROLL
            for (int32_t run = 0; run < kRuns; ++run) {
                values_t sums[kBatch];
                wait_mbarrier(&fetched_[cursor_.stage], cursor_.phase);
                add_up(sums);
                group_barrier(wg_); /* all have read the slot */
                if (!ask(cursor_.stage))
                    return wait_for_engine();
                cursor_.advance(slots_);
                --asked_;
                if (plain) {
                    store_full(target, sums);
                    target += down(kBatch);
                    if ((run + 1) % (kColumnBlocks / kBatch) == 0)
                        target += kStagedCols * (int64_t)sizeof(T) - down(kColumnBlocks);
                } else {
                    store_edge(tile, at, first + run * kBatch, sums);
                }
            }
        }
        return true;
    }

  private:
    static constexpr int32_t kRunBytes = kBatch * kBlockChunks * kChunkBytes;
    static constexpr int32_t kUnitBlocks = Geometry::kChunks / Geometry::kPieces / kBlockChunks;
    static constexpr int32_t kRuns = kUnitBlocks / kBatch;
    static_assert(kBlockChunks == kExchangeThreads, "each thread sums a chunk of a block");
    static_assert(kRuns * kBatch * kBlockChunks * Geometry::kPieces == Geometry::kChunks &&
                      kUnitBlocks % kColumnBlocks == 0 && kColumnBlocks % kBatch == 0,
                  "a unit is whole columns of blocks, and those are whole runs");

    IRIS_INLINE int64_t tile_of(int64_t unit) const
    {
        return unit / Geometry::kPieces * ranks() + rank_;
    }

    /* Asks for the next run of all ranks. The thread that has seen a rank's flag commands the
     * engine to load from that rank, behind a fence between the two proxies. */
    IRIS_INLINE bool ask(int32_t slot)
    {
        if (next_run_ == kRuns) {
            const int64_t index = next_unit_ / Geometry::kPieces;
            if (next_unit_ >= owned_units())
                return true;
            if (!wait_partials(wg_, call_, tile_of(next_unit_), flag_of(index, next_unit_),
                               flag_stride(), -1))
                return false;
            acquire_for_engines();
            next_offset_ = staging_offset(args_.call, call_.half) + layout_.partials_offset +
                           (uint64_t)tile_of(next_unit_) * layout_.tile_nbytes +
                           (uint64_t)(next_unit_ % Geometry::kPieces) * (kRuns * kRunBytes);
            next_unit_ += wg_.count;
            next_run_ = 0;
        }
        if (is_leader(wg_))
            arrive_expecting(&fetched_[slot], (uint32_t)(ranks() * kRunBytes));
        if (wg_.thread < ranks())
            load_bulk(ring_ + (slot * ranks() + wg_.thread) * kRunBytes,
                      heap_pointer<char>(args_.call, wg_.thread, next_offset_), kRunBytes,
                      &fetched_[slot]);
        next_offset_ += kRunBytes;
        ++next_run_;
        ++asked_;
        return true;
    }

    /* This thread's chunks of the slot that has come: ((p_0 + p_1) + p_2) + ... */
    IRIS_INLINE void add_up(values_t (&sums)[kBatch]) const
    {
        const char *place = ring_ + cursor_.stage * ranks() * kRunBytes + wg_.thread * kChunkBytes;
#pragma unroll
        for (int32_t b = 0; b < kBatch; ++b)
            begin_chunk<T, true>(sums[b]);
#pragma unroll 2
        for (int32_t source = 0; source < ranks(); ++source, place += kRunBytes)
#pragma unroll
            for (int32_t b = 0; b < kBatch; ++b)
                reduce_chunk<T, true>(
                    sums[b],
                    *reinterpret_cast<const chunk16 *>(place + b * kBlockChunks * kChunkBytes),
                    false, IRIS_REDUCE_SUM);
    }

    /* The engine still writes to the ring: the block must not end before it has. */
    IRIS_INLINE bool wait_for_engine()
    {
        for (; asked_ > 0; --asked_, cursor_.advance(slots_))
            wait_mbarrier(&fetched_[cursor_.stage], cursor_.phase);
        return false;
    }

    /* ---- results; blocks are numbered as they lie in a tile's staging ---- */

    /* This thread's chunk of a block after turning over, as the geometry numbers them. */
    IRIS_INLINE int32_t chunk_of(int32_t block) const
    {
        constexpr int32_t kPartBlocks = Geometry::kChunks / IRIS_SM90_PARTS / kBlockChunks;
        const int32_t row =
            block / kPartBlocks * kPartRows + block % kColumnBlocks * kStagedRows + wg_.thread / 4;
        const int32_t group = block % kPartBlocks / kColumnBlocks;
        return row * Geometry::kRowChunks + group * 4 + wg_.thread % 4;
    }

    IRIS_INLINE void store_edge(int64_t tile, const iris_tile_coord &at, int32_t block,
                                values_t (&sums)[kBatch]) const
    {
#pragma unroll
        for (int32_t b = 0; b < kBatch; ++b) {
            uint32_t even[4], odd[4];
#pragma unroll
            for (int32_t i = 0; i < 4; ++i) {
                even[i] = float_to_bits(sums[b][2 * i]);
                odd[i] = float_to_bits(sums[b][2 * i + 1]);
            }
            transpose_4x4(even);
            transpose_4x4(odd);
#pragma unroll
            for (int32_t i = 0; i < 4; ++i) {
                sums[b][2 * i] = bits_to_float(even[i]);
                sums[b][2 * i + 1] = bits_to_float(odd[i]);
            }
            if (exists(at, chunk_of(block + b)))
                publish(tile, at, chunk_of(block + b), sums[b], false);
        }
    }

    /* Whole tiles without a bias take whole chunks. */
    IRIS_INLINE bool stores_plainly(const iris_tile_coord &at) const
    {
        return args_.bias.address == 0 && at.rows == args_.block_m && at.cols == args_.block_n &&
               has_vector_rows<T>(args_.output.address, args_.output.stride_row,
                                  args_.output.stride_col);
    }

    IRIS_INLINE char *plain_target(const iris_tile_coord &at, int32_t block) const
    {
        return reinterpret_cast<char *>(
            base::template part_at<true>(args_.output, at, chunk_of(block)).data);
    }

    /* Bytes of the output from a block to the one so many below it. */
    IRIS_INLINE int64_t down(int32_t blocks) const
    {
        return blocks * kStagedRows * args_.output.stride_row * (int64_t)sizeof(T);
    }

    IRIS_INLINE void store_full(char *target, const values_t (&sums)[kBatch]) const
    {
#pragma unroll
        for (int32_t b = 0; b < kBatch; ++b) {
            chunk16 c = pack(sums[b], T{});
            transpose_4x4(c.word);
            store_chunk(target + down(b), c);
        }
    }

    char *const ring_;
    mbarrier *const fetched_;
    int32_t slots_, asked_ = 0, next_run_ = kRuns;
    int64_t next_unit_ = wg_.index;
    uint64_t next_offset_ = 0; /* in every rank's heap */
    stage_cursor cursor_;
};

/* Of many ranks a slot takes one block of each. */
template <typename T, iris_variant kVariant, class Geometry>
IRIS_INLINE bool fetch_partials(work_group wg, const iris_reduce_args &args, const call_state &call,
                                sm90_shared *shared)
{
    constexpr int32_t kFewRanks = 4, kMany = 1, kFew = 2;
    static_assert(2 * IRIS_MAX_RANKS * kMany * kBlockChunks * kChunkBytes <= sizeof shared->part &&
                      4 * kFewRanks * kFew * kBlockChunks * kChunkBytes <= sizeof shared->part,
                  "some slots are on their way while one is added up");
    if (args.call.world_size > kFewRanks)
        return partial_fetcher<T, kVariant, Geometry, kMany>(wg, args, call, shared).fetch();
    return partial_fetcher<T, kVariant, Geometry, kFew>(wg, args, call, shared).fetch();
}

} // namespace iris

#endif
