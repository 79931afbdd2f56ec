/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of a gathered A on sm_90a, of float8, fp16 and bf16. All warps of work-groups that have
 * no tile to multiply send this rank's shard, if they are enough; else the exchange warps of those
 * that multiply do. The loader waits for the flags of what it is about to ask the copy engine for.
 * Where tiles are few, two work-groups share the K of each (IRIS_K_SPLITS).
 */
#ifndef IRIS_GATHER_MATMUL_SM90_H
#define IRIS_GATHER_MATMUL_SM90_H

#include "kernels/gpu/gathered_tile.h"
#include "kernels/protocol/staging.h"
#include "matmul_sm90.h"

namespace iris
{

/* How the loader, the exchange warps and, where they wait for another work-group, the math
 * warpgroups of a block meet at the end; barriers of the math warpgroups. */
enum { kLoaderDone = 6, kMathBarrier = 7 };

IRIS_INLINE int32_t meeting_threads(const iris_gather_args &args)
{
    return 32 + kExchangeThreads + (args.k_splits > 1 ? IRIS_SM90_PARTS * kGroupThreads : 0);
}

/* What a block's warps tell each other before they meet, in `exchange`. */
enum { kArrived = 0, kSplitMissing = 1 };

/* This warpgroup's half of the tile, as wgmma leaves it, plus the bias. `thread` is this one's
 * number. */
template <typename T, int32_t kTileN>
IRIS_INLINE void add_bias_to_part(float (&d)[kTileN / 2], const iris_reduce_args &args,
                                  const iris_tile_coord &at, int32_t half, int32_t thread)
{
    const int32_t lane = thread % 32, warp = thread / 32 % 4;
    const int32_t row = half * kPartRows + warp * 16 + lane / 4;
    const bias_addend<T> bias(args, at);
    const T *rows[2] = {bias.row(row), bias.row(row + 8)};
    int32_t col = lane % 4 * 2;

#pragma unroll
    for (int32_t j = 0; j < kTileN / 8; ++j, col += 8) {
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {
            if (i % 2 == 0)
                asm volatile("" : "+r"(col)); /* pair after pair: few registers are left */
            d[4 * j + i] += bias.element(rows[i / 2], col + i % 2);
        }
    }
}

/* Of operands of A and results of T. */
template <typename A, typename T> struct sm90_gather_call {
    using operand = A;
    using element = T;
    static constexpr bool kStagesLocally = false; /* it stores results */

    const iris_gather_args &gather;
    const iris_product_args &args;
    sm90_shared *shared;

    IRIS_INLINE int64_t part_length() const
    {
        return gather.share_k != 0 ? gather.share_k : args.reduce.K;
    }

    IRIS_INLINE int32_t part_steps() const
    {
        return (int32_t)((part_length() + kStageK<A> - 1) / kStageK<A>);
    }

    /* Tiles are numbered in the order in which they are multiplied, with their splits: first the
     * first split of all, then the second. */
    IRIS_INLINE int32_t split_of(int64_t tile) const
    {
        return tile < gather.schedule.tiles.tiles ? 0 : 1;
    }

    /* Each split takes every k_splits-th step of each part of K, so that both keep up with what
     * arrives. */
    template <int32_t kTileN> IRIS_INLINE int32_t steps(int64_t tile) const
    {
        const int32_t parts = gather.share_k != 0 ? args.reduce.call.world_size : 1;
        const int32_t steps = part_steps();
        if constexpr (kTileN == kWide)
            return parts * steps;
        return parts * ((steps + gather.k_splits - 1 - split_of(tile)) / gather.k_splits);
    }

    template <class Visit> IRIS_INLINE void for_each_tile(Visit visit) const
    {
        const int32_t idle = gather.idle_senders;
        for (int64_t tile = (int32_t)blockIdx.x - idle; tile < gather.split_tiles;
             tile += (int32_t)gridDim.x - idle)
            visit(tile, coord(tile));
    }

    IRIS_INLINE iris_tile_coord coord(int64_t tile) const
    {
        const int64_t step = tile - split_of(tile) * gather.schedule.tiles.tiles;
        int32_t source;
        return iris_gather_tile_coord(&gather.schedule, args.reduce.call.rank, step, &source);
    }

    /* Whether this work-group stores the tile: the one with the last split. Wide tiles have one. */
    template <int32_t kTileN> IRIS_INLINE bool stores(int64_t tile) const
    {
        return kTileN == kWide || split_of(tile) == gather.k_splits - 1;
    }

    /* Between the product and its rounding. */
    template <int32_t kTileN>
    IRIS_INLINE void conclude(float (&d)[kTileN / 2], int64_t tile, int32_t half) const
    {
        if constexpr (kTileN == kNarrow)
            if (gather.k_splits > 1)
                join_splits<kTileN>(d, tile, half);
        if (!stores<kTileN>(tile))
            return;
        if constexpr (is_float8<A>::value)
            scale_part<kTileN>(d, *this, tile, half);
        if (args.reduce.bias.address == 0)
            return;
        /* Where the tile lies is found anew: the product had no register for it. */
        asm volatile("" : "+l"(tile));
        const uint32_t thread = is_float8<A>::value ? thread_found_anew(shared) : threadIdx.x;
        add_bias_to_part<T, kTileN>(d, args.reduce, coord(tile), half, thread);
    }

    /* ---- scales of float8 operands, see float8_sm90.h; K is not split then ---- */

    /* Shards of columns have scales of their own. */
    IRIS_INLINE bool scales_rows_by_steps() const
    {
        return IRIS_SCALES_BY_BLOCKS(args.scaling.a.kind) || gather.share_k != 0;
    }

    IRIS_INLINE step_scales piece_of(int64_t tile, int32_t step) const
    {
        const int32_t world = args.reduce.call.world_size, source = source_of(coord(tile));
        const int32_t hop = step / part_steps(), block = step % part_steps();
        const int32_t part = gather.share_k != 0 ? (source + hop) % world : source;
        return {part, block, part * gather.share_k / IRIS_SCALE_BLOCK + block};
    }

    /* Of rank `part`'s shard, which the loader has seen arrive. The half of the staging is that
     * which was found before the work began: after the loader's last wait the call may end, and
     * raise the counter, while the last tiles are still multiplied. */
    IRIS_INLINE tile_scales row_scales(int64_t tile, int32_t part) const
    {
        const iris_tile_coord at = coord(tile);
        const call_state call = {args.reduce.call, nullptr, 0, 0, 0, shared->half};
        const gathered_operand<A> shards(gather, call);
        return {shards.scales(part), at.row - source_of(at) * gather.schedule.share_m, at.rows};
    }

    /* By one math warpgroup: hands its sums over to the work-group with the other split of the
     * tile, or adds what that one has handed over. Only where every work-group has one tile at
     * most: none waits for one that comes after what it waits for. */
    template <int32_t kTileN>
    IRIS_INLINE void join_splits(float (&d)[kTileN / 2], int64_t tile, int32_t half) const
    {
        const int32_t thread = (int32_t)threadIdx.x % kGroupThreads;
        const work_group wg = {(int32_t)blockIdx.x, (int32_t)gridDim.x,  thread,
                               kGroupThreads,       kMathBarrier + half, nullptr};
        const call_state call = call_begin(args.reduce.call);
        const int64_t step = tile - split_of(tile) * gather.schedule.tiles.tiles;
        const int64_t place = step * IRIS_SM90_PARTS + half;
        const int64_t flag = gather.layout.flags_count + place;
        float *sums =
            staged<float>(call.args, call.half, call.args.rank, gather.layout.half_nbytes, 0, 0) +
            place * (kTileN / 2) * kGroupThreads + thread;
        if (!stores<kTileN>(tile)) {
#pragma unroll
            for (int32_t i = 0; i < kTileN / 2; ++i)
                sums[i * kGroupThreads] = d[i];
            return signal_tile(wg, call, call.args.rank, flag);
        }
        if (!wait_tile(wg, call, flag, {IRIS_SIGNAL_PARTIAL, call.args.rank, (int32_t)step}))
            shared->exchange[kSplitMissing] = 1;
#pragma unroll
        for (int32_t i = 0; i < kTileN / 2; ++i)
            d[i] += sums[i * kGroupThreads];
    }

    /* Whose rows a tile has, with shards of rows; else this rank. */
    IRIS_INLINE int32_t source_of(const iris_tile_coord &at) const
    {
        return gather.schedule.share_m != 0 ? (int32_t)(at.row / gather.schedule.share_m)
                                            : args.reduce.call.rank;
    }
};

/* A warp's: waits for the unit of rank `source`'s shard that holds (row, k), and looks at the flags
 * of those behind it, which share a line. The number of units that have come, as far as they follow
 * each other; 0: the first did not in time. After it the engines may read them. */
template <typename T>
IRIS_INLINE int32_t wait_for_units(const iris_gather_layout &layout, const call_state &call,
                                   const gathered_operand<T> &operand, int32_t source, int64_t row,
                                   int64_t k)
{
    const int32_t lane = (int32_t)threadIdx.x % 32;
    const int64_t left = layout.units_k - k / layout.unit_cols;
    const int32_t count = left < 32 ? (int32_t)left : 32;
    const uint32_t *flag = operand.flag_of(source, row, k) + (lane < count ? lane : 0);

    for (bool waited = false;; waited = true) {
        const uint32_t missing = __ballot_sync(~0u, poll(flag) != call.signal && lane < count);
        const int32_t arrived = missing == 0 ? count : __ffs((int32_t)missing) - 1;
        if (arrived > 0) {
            if (lane < arrived)
                acquire(flag);
            __syncwarp();
            acquire_for_engines();
            return arrived;
        }
        if (waited || !__all_sync(~0u, lane != 0 || operand.wait_for_unit(source, row, k)))
            return 0;
    }
}

/* By all lanes of a warp, of which the first commands the engine. false: something did not come;
 * what was multiplied from there on is nothing. */
template <int32_t kTileN, class Call>
IRIS_INLINE bool load_gathered_tiles(const Call &c, const call_state &call, bool by_elements)
{
    using T = typename Call::operand;
    const iris_product_args &args = c.args;
    const iris_reduce_args &r = args.reduce;
    const gathered_operand<T> operand(c.gather, call);
    const iris_tensor_map *staged = &c.gather.staged_maps[call.half];
    const uint32_t nbytes = kTileM * kLineBytes + (args.b_map_kind != 0 ? kTileN * kLineBytes : 0);
    const int32_t lane = (int32_t)threadIdx.x % 32;
    bool arrived = true;
    stage_cursor cursor;

    if (c.gather.waits_for_all != 0) {
        arrived = __all_sync(~0u, operand.wait_for_all(lane, 32));
        acquire_for_engines();
    }
    c.for_each_tile([&](int64_t tile, const iris_tile_coord &at) {
        const int32_t source = c.source_of(at);
        const int64_t row = at.row - source * c.gather.schedule.share_m;
        const int32_t first_step = kTileN == kWide ? 0 : c.split_of(tile) * kStageK<T>;
        const int32_t stride = (kTileN == kWide ? 1 : c.gather.k_splits) * kStageK<T>;
        for_each_k_part(c.gather, source, [&](int32_t part, int64_t first, int64_t length) {
            const bool is_local = operand.is_local(part);
            int64_t there = is_local || c.gather.waits_for_all != 0 ? length : 0;
            for (int64_t k = first_step; k < length; k += stride) {
                mbarrier *full = &c.shared->full[cursor.stage];
                char *a = c.shared->a[cursor.stage], *b = c.shared->b[cursor.stage];
                if (k >= there && arrived) {
                    const int32_t units =
                        wait_for_units(c.gather.layout, call, operand, part, row, k);
                    arrived = units > 0;
                    /* Where K is split, k need not be where a unit begins. */
                    there = (k / c.gather.layout.unit_cols + units) * c.gather.layout.unit_cols;
                }
                if (by_elements || lane == 0)
                    wait_mbarrier(&c.shared->empty[cursor.stage], cursor.phase ^ 1);
                if (lane == 0) {
                    arrive_expecting(full, nbytes);
                    load_operand<kTileM>(a, is_local ? &args.a_map : staged, args.a_map_kind,
                                         (int32_t)row, (int32_t)k, is_local ? 0 : part, full);
                    if (args.b_map_kind != 0)
                        load_operand<kTileN>(b, &args.b_map, args.b_map_kind, (int32_t)at.col,
                                             (int32_t)k, c.gather.share_k != 0 ? part : 0, full);
                }
                if (by_elements) {
                    load_operand_elements<T, kTileN>(
                        b, as_matrix<const T>(r.b).tile(first + k, at.col).data, r.b.stride_col,
                        r.b.stride_row, at.cols, length - k, lane);
                    fence_async_shared();
                    arrive_mbarrier(full);
                }
                cursor.advance();
            }
            return true;
        });
    });
    return arrived;
}

/* Stores parts of tiles to C: by the engine, or, where it cannot, by the lanes. */
template <int32_t kTileN, class Call> IRIS_INLINE void store_gathered_tiles(const Call &c)
{
    using T = typename Call::element;
    using geometry = product_geometry<T, kPartRows, kTileN, 1, true, 1>;
    const iris_reduce_args &r = c.args.reduce;
    const int32_t lane = (int32_t)threadIdx.x % 32;

    const auto store = [&](int64_t, const iris_tile_coord &at, int32_t part, int32_t rows) {
        const int32_t source = c.source_of(at);
        const int32_t row =
            (int32_t)(at.row - source * c.gather.schedule.share_m) + part * kPartRows;
        if (c.args.c_is_mapped != 0) {
            for (int32_t panel = 0; lane == 0 && panel < kPanels<kTileN>; ++panel)
                copy_to_tensor(&c.args.c_map, (int32_t)at.col + panel * kSwizzleCols, row,
                               c.gather.schedule.share_m != 0 ? source : 0,
                               c.shared->part + panel * kPanelBytes);
            commit_bulk();
            wait_bulk_read();
            return;
        }
        const geometry chunks(r);
        const matrix<T> target = as_matrix<T>(r.output).tile(at.row + part * kPartRows, at.col);
        for (int32_t chunk = lane; chunk < chunks.chunks(); chunk += 32)
            if (chunks.row(chunk) < rows)
                store_run(
                    target.tile(chunks.row(chunk), chunks.col(chunk)).data, target.stride_col,
                    at.cols - chunks.col(chunk), false,
                    *reinterpret_cast<const chunk16 *>(c.shared->part + chunks.offset(chunk)));
    };
    for_each_part<kTileN>(c, store, [](int64_t, int32_t) {});
}

/* What the warps of the first warpgroup do. */
template <int32_t kTileN, class Call>
IRIS_INLINE void gathered_load_store_roles(const Call &c, const call_state &call, bool by_elements)
{
    using T = typename Call::operand;
    const int32_t warp = (int32_t)threadIdx.x / 32;
    if (warp == 0) {
        const bool arrived = load_gathered_tiles<kTileN>(c, call, by_elements);
        if (threadIdx.x == 0)
            c.shared->exchange[kArrived] = arrived ? 1 : 0;
        __syncwarp();
        return arrive_barrier(kLoaderDone, meeting_threads(c.gather));
    }
    if (warp == 1)
        return store_gathered_tiles<kTileN>(c);
    const work_group wg = {(int32_t)blockIdx.x, (int32_t)gridDim.x, (int32_t)threadIdx.x - 64,
                           kExchangeThreads,    kExchangeBarrier,   nullptr};
    const gathered_operand<T> operand(c.gather, call);
    const int32_t senders = c.gather.fetch_groups > 0 ? c.gather.fetch_groups : (int32_t)gridDim.x;
    const bool sends = wg.index < senders && c.gather.idle_senders == 0;
    if (sends || c.gather.waits_for_all != 0)
        operand.send(wg, wg.index, senders);
    const bool stored = operand.store_joined(wg, wg.index, wg.count);
    /* The counter, and at the wrap the flags, stay as they are until all have done that wait. */
    sync_barrier(kLoaderDone, meeting_threads(c.gather));
    if (stored && c.shared->exchange[kArrived] != 0 && c.shared->exchange[kSplitMissing] == 0)
        end_locally(wg, call);
}

/* A block that multiplies nothing: every warp sends units of its own, so that some copy while
 * others wait for what they signal to be stored. */
template <typename T> IRIS_INLINE void sender_block(const iris_gather_args &args)
{
    constexpr int32_t kWarps = IRIS_SM90_THREADS / 32;
    const call_state call = call_begin(args.product.reduce.call);
    const gathered_operand<T> operand(args, call);
    const int32_t warp = (int32_t)threadIdx.x / 32, index = (int32_t)blockIdx.x,
                  count = (int32_t)gridDim.x;
    const work_group sender = {index, count, (int32_t)threadIdx.x % 32, 32, 1 + warp, nullptr};
    const work_group wg = {index,  count, (int32_t)threadIdx.x, kExchangeThreads, kExchangeBarrier,
                           nullptr};

    operand.send(sender, warp * args.idle_senders + index, kWarps * args.idle_senders);
    /* All have read the counter. */
    __syncthreads();
    if (wg.thread < wg.threads && operand.store_joined(wg, index, count))
        end_locally(wg, call);
}

template <typename A, typename T>
IRIS_INLINE void tensor_core_gather_matmul(const iris_gather_args &args)
{
    extern IRIS_SHARED __align__(1024) char dynamic_shared[];
    sm90_shared *shared = reinterpret_cast<sm90_shared *>(dynamic_shared);
    const int32_t warpgroup = (int32_t)threadIdx.x / kGroupThreads;
    const bool by_elements = args.product.b_map_kind == 0;

    if ((int32_t)blockIdx.x < args.idle_senders)
        return sender_block<A>(args);
    if (threadIdx.x == 0) {
        init_stages(shared, by_elements);
        shared->exchange[kSplitMissing] = 0;
        if constexpr (is_float8<A>::value)
            shared->half = call_begin(args.product.reduce.call).half;
    }
    __syncthreads();
    const sm90_gather_call<A, T> c = {args, args.product, shared};

    if (warpgroup == 0) {
        if constexpr (is_float8<A>::value)
            give_registers<kFloat8LoadRegisters>();
        /* By all of them before the exchange warps end, and with it maybe the call: they wait for
         * the loader, and the storer has no use for it. */
        const call_state call = call_begin(args.product.reduce.call);
        if (args.product.reduce.block_n == kWide)
            gathered_load_store_roles<kWide>(c, call, by_elements);
        else
            gathered_load_store_roles<kNarrow>(c, call, by_elements);
    } else {
        if constexpr (is_float8<A>::value)
            take_registers<kFloat8MathRegisters>();
        if (args.product.reduce.block_n == kWide)
            multiply_tiles<kWide>(c, warpgroup - 1);
        else
            multiply_tiles<kNarrow>(c, warpgroup - 1);
        if (args.k_splits > 1)
            arrive_barrier(kLoaderDone, meeting_threads(args));
    }
}

} // namespace iris

#endif
