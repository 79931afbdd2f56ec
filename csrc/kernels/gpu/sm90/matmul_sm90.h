/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of 16-bit and float8 operands on sm_90a, fused with the reduction over ranks: the roles
 * of gemm_sm90.h, and where their tiles go.
 */
#ifndef IRIS_MATMUL_SM90_H
#define IRIS_MATMUL_SM90_H

#include "fetch_sm90.h"
#include "float8_sm90.h"
#include "kernels/base/tile.h"
#include "kernels/gpu/gpu_collectives.h"

namespace iris
{

/* Everything a role needs to walk the tiles: of operands of A and results of T. */
template <typename A, typename T, iris_variant kVariantOfCall, result kResultOfCall>
struct sm90_call {
    using operand = A;
    using element = T;
    static constexpr iris_variant kVariant = kVariantOfCall;
    static constexpr result kResult = kResultOfCall;
    /* Whether partials are staged in memory of this GPU, straight from registers, to be fetched. */
    static constexpr bool kStagesLocally = kResult == result::scattered;

    const iris_product_args &args;
    sm90_shared *shared;

    template <int32_t kTileN> IRIS_INLINE int32_t steps(int64_t) const
    {
        return (int32_t)((args.reduce.K + kStageK<A> - 1) / kStageK<A>);
    }

    /* Between the product and its rounding; the exchange adds the bias. */
    template <int32_t kTileN>
    IRIS_INLINE void conclude(float (&d)[kTileN / 2], int64_t tile, int32_t half) const
    {
        if constexpr (is_float8<A>::value)
            scale_part<kTileN>(d, *this, tile, half);
    }

    /* ---- scales of float8 operands, see float8_sm90.h ---- */

    IRIS_INLINE bool scales_rows_by_steps() const
    {
        return IRIS_SCALES_BY_BLOCKS(args.scaling.a.kind);
    }

    IRIS_INLINE step_scales piece_of(int64_t, int32_t step) const
    {
        return {0, step, step};
    }

    IRIS_INLINE tile_scales row_scales(int64_t tile, int32_t) const
    {
        const iris_tile_coord at = coord(tile);
        return {args.scaling.a, at.row, at.rows};
    }

    /* Found anew each time: the product leaves no registers for what could be kept. */
    IRIS_INLINE iris_tile_coord coord(int64_t tile) const
    {
        int64_t M = args.reduce.M, N = args.reduce.N;
        asm volatile("" : "+l"(tile), "+l"(M), "+l"(N));
        const iris_schedule schedule = gpu_schedule<kResult>(args.reduce, M, N);
        return gpu_tile_coord<kResult>(&schedule, args.reduce, tile);
    }

    /* Whether this work-group stores what it has multiplied. */
    template <int32_t kTileN> IRIS_INLINE bool stores(int64_t) const
    {
        return true;
    }

    template <class Visit> IRIS_INLINE void for_each_tile(Visit visit) const
    {
        const iris_schedule schedule = gpu_schedule<kResult>(args.reduce);
        for (int64_t tile = blockIdx.x; tile < gpu_tiles<kResult>(&schedule); tile += gridDim.x)
            visit(tile, gpu_tile_coord<kResult>(&schedule, args.reduce, tile));
    }
};

/* The operands that the engine cannot load, by kElementLoaders threads. */
template <typename T, int32_t kTileN>
IRIS_INLINE void load_stage_by_elements(const iris_product_args &args, const iris_tile_coord &at,
                                        int64_t k, char *stage_a, char *stage_b, mbarrier *full,
                                        int32_t thread)
{
    const iris_reduce_args &r = args.reduce;
    if (args.a_map_kind == 0)
        load_operand_elements<T, kTileM>(stage_a, as_matrix<const T>(r.a).tile(at.row, k).data,
                                         r.a.stride_row, r.a.stride_col, at.rows, r.K - k, thread);
    if (args.b_map_kind == 0)
        load_operand_elements<T, kTileN>(stage_b, as_matrix<const T>(r.b).tile(k, at.col).data,
                                         r.b.stride_col, r.b.stride_row, at.cols, r.K - k, thread);
    fence_async_shared();
    arrive_mbarrier(full);
}

/* By all lanes of a warp, of which the first commands the engine. */
template <int32_t kTileN, class Call> IRIS_INLINE void load_tiles(const Call &c, bool by_elements)
{
    using T = typename Call::operand;
    const iris_product_args &args = c.args;
    const uint32_t nbytes = (args.a_map_kind != 0 ? kTileM * kLineBytes : 0) +
                            (args.b_map_kind != 0 ? kTileN * kLineBytes : 0);
    const int32_t lane = (int32_t)threadIdx.x % 32;
    stage_cursor cursor;

    if (!by_elements && lane != 0)
        return;
    prefetch_tensor_map(&args.a_map);
    prefetch_tensor_map(&args.b_map);
    c.for_each_tile([&](int64_t tile, const iris_tile_coord &at) {
        for (int32_t step = 0; step < c.template steps<kTileN>(tile); ++step) {
            mbarrier *full = &c.shared->full[cursor.stage];
            char *a = c.shared->a[cursor.stage], *b = c.shared->b[cursor.stage];
            wait_mbarrier(&c.shared->empty[cursor.stage], cursor.phase ^ 1);
            if (lane == 0) {
                arrive_expecting(full, nbytes);
                if (args.a_map_kind != 0)
                    load_operand<kTileM>(a, &args.a_map, args.a_map_kind, (int32_t)at.row,
                                         step * kStageK<T>, full);
                if (args.b_map_kind != 0)
                    load_operand<kTileN>(b, &args.b_map, args.b_map_kind, (int32_t)at.col,
                                         step * kStageK<T>, full);
            }
            if (by_elements)
                load_stage_by_elements<T, kTileN>(args, at, (int64_t)step * kStageK<T>, a, b, full,
                                                  lane);
            cursor.advance();
        }
    });
}

template <int32_t kTileN, bool kAMn, bool kBMn, class Call>
IRIS_INLINE void multiply_tiles_in_order(const Call &c, int32_t half)
{
    using T = typename Call::element;
    constexpr bool kIsFloat8 = is_float8<typename Call::operand>::value;
    stage_cursor cursor;
    float d[kTileN / 2];

    c.for_each_tile([&](int64_t tile, const iris_tile_coord &) {
        {
            const iris_call_args &call = c.args.reduce.call;
            const trace_span span(call, half == 0 && threadIdx.x % kGroupThreads == 0,
                                  IRIS_TRACE_GEMM, call.rank, tile);
            const int32_t steps = c.template steps<kTileN>(tile);
            if constexpr (kIsFloat8)
                multiply_float8_tile<kTileN>(d, c, cursor, tile, half, steps);
            else
                multiply_tile<T, kTileN, kAMn, kBMn>(d, c.shared, cursor, half, steps);
        }
        c.template conclude<kTileN>(d, tile, half);
        /* Of float8 there are no registers for what could be found once. */
        const uint32_t thread = kIsFloat8 ? thread_found_anew(c.shared) : threadIdx.x;
        if constexpr (Call::kStagesLocally)
            stage_part<T, kTileN>(d, c.shared, tile, half);
        else if (c.template stores<kTileN>(tile))
            hand_over_part<T, kTileN>(d, c.shared, half, thread);
    });
}

template <int32_t kTileN, class Call> IRIS_INLINE void multiply_tiles(const Call &c, int32_t half)
{
    if constexpr (is_float8<typename Call::operand>::value) {
        multiply_tiles_in_order<kTileN, false, false>(c, half);
    } else {
        const bool a_mn = c.args.a_map_kind == IRIS_TENSOR_MAP_MN;
        const bool b_mn = c.args.b_map_kind == IRIS_TENSOR_MAP_MN;
        if (a_mn && b_mn)
            multiply_tiles_in_order<kTileN, true, true>(c, half);
        else if (a_mn)
            multiply_tiles_in_order<kTileN, true, false>(c, half);
        else if (b_mn)
            multiply_tiles_in_order<kTileN, false, true>(c, half);
        else
            multiply_tiles_in_order<kTileN, false, false>(c, half);
    }
}

/* A part of the tile, of which `rows` rows are in the matrix, to wherever it goes. */
template <int32_t kTileN, class Reduction, class Call>
IRIS_INLINE void store_part(const Call &c, const Reduction &reduction, int64_t tile,
                            const iris_tile_coord &at, int32_t part, int32_t rows)
{
    const bool whole = rows >= kPartRows;
    for (int32_t panel = 0; panel < kPanels<kTileN>; ++panel) {
        const char *source = c.shared->part + panel * kPanelBytes;
        if (c.args.c_is_mapped != 0) {
            copy_to_tensor(&c.args.c_map, (int32_t)at.col + panel * kSwizzleCols,
                           (int32_t)at.row + part * kPartRows, source);
            continue;
        }
        if (whole && panel > 0)
            break; /* the panels follow each other: one copy for all */
        for (int32_t i = 0; i < reduction.partial_places(); ++i)
            copy_bulk(
                reduction.place_of(tile, i).slot + (part * kPanels<kTileN> + panel) * kPanelBytes,
                source, (uint32_t)(whole ? kPanels<kTileN> * kPanelBytes : rows * kLineBytes));
    }
    commit_bulk();
}

/* Signals what this thread has handed to the copy engine. */
template <class Reduction>
IRIS_INLINE void signal_part(const call_state &call, const Reduction &reduction, int64_t tile,
                             int32_t part)
{
    const trace_span span(call.args, true, IRIS_TRACE_SIGNAL, -1, tile);
    publish_bulk_stores();
    for (int32_t i = 0; i < reduction.partial_places(); ++i) {
        const partial_place place = reduction.place_of(tile, i);
        store_release(tile_flag(call, place.rank, place.flag + part), call.signal);
    }
}

/* The storer's turns with the math warpgroups: store(tile, at, part, rows) each part that has rows
 * in the matrix and be done with its shared memory, then stored(tile, part). */
template <int32_t kTileN, class Call, class Store, class Stored>
IRIS_INLINE void for_each_part(const Call &c, Store store, Stored stored)
{
    arrive_barrier(kPartFree, kGroupThreads + 32);
    c.for_each_tile([&](int64_t tile, const iris_tile_coord &at) {
        for (int32_t part = c.template stores<kTileN>(tile) ? 0 : IRIS_SM90_PARTS;
             part < IRIS_SM90_PARTS; ++part) {
            const int32_t rows = at.rows - part * kPartRows;
            sync_barrier(kPartFull + part, kGroupThreads + 32);
            if (rows > 0)
                store(tile, at, part, rows);
            __syncwarp();
            arrive_barrier(kPartFree + 1 - part, kGroupThreads + 32);
            stored(tile, part);
        }
    });
}

template <int32_t kTileN, class Reduction, class Call>
IRIS_INLINE void store_tiles(const Call &c, const call_state &call, const Reduction &reduction)
{
    const bool leads = threadIdx.x % 32 == 0;
    const auto store = [&](int64_t tile, const iris_tile_coord &at, int32_t part, int32_t rows) {
        if (!leads)
            return;
        store_part<kTileN>(c, reduction, tile, at, part, rows);
        wait_bulk_read();
    };

    for_each_part<kTileN>(c, store, [&](int64_t tile, int32_t part) {
        if (leads && c.args.c_is_mapped == 0 && (Reduction::kSignalsParts || part == 1))
            signal_part(call, reduction, tile, Reduction::kSignalsParts ? part : 0);
    });
}

/* Signals to the owners what the math warpgroups have staged to be fetched. */
template <class Reduction, class Call>
IRIS_INLINE void signal_staged_parts(const Call &c, const call_state &call,
                                     const Reduction &reduction)
{
    const bool leads = threadIdx.x % 32 == 0;

    for_each_staged_part(c, reduction.place_of(0, 0).slot, [&](int64_t tile, int32_t part) {
        const partial_place place = reduction.place_of(tile, 0);
        const trace_span span(call.args, leads, IRIS_TRACE_SIGNAL, place.rank, tile);
        if (leads)
            store_release(tile_flag(call, place.rank, place.flag + part), call.signal);
    });
}

/* What the warps of the first warpgroup do. */
template <int32_t kTileN, class Call>
IRIS_INLINE void load_store_roles(const Call &c, bool by_elements)
{
    using T = typename Call::element;
    /* A rank that sums only its share has half as many, larger pieces to wait for. */
    constexpr int kPieces = Call::kResult == result::scattered ? 4 : 8;
    using geometry = product_geometry<T, kTileM, kTileN, IRIS_SM90_PARTS, true, kPieces,
                                      is_float8<typename Call::operand>::value>;
    const int32_t warp = (int32_t)threadIdx.x / 32;
    /* The exchange warps; the storer only asks it for places. */
    const work_group wg = {(int32_t)blockIdx.x, (int32_t)gridDim.x, (int32_t)threadIdx.x - 64,
                           kExchangeThreads,    kExchangeBarrier,   nullptr};
    static_assert(sizeof(reduction_shared) <= sizeof c.shared->exchange, "its part of the block's");

    if (warp == 0)
        return load_tiles<kTileN>(c, by_elements);
    /* The counter does not move before the exchange warps of all blocks have ended, and they need
     * what the storer stores: both read the same number. */
    const call_state call = call_begin(c.args.reduce.call);
    gpu_reduction<T, Call::kVariant, geometry, Call::kResult> reduction(
        wg, c.args.reduce, call, reinterpret_cast<reduction_shared *>(c.shared->exchange));
    if constexpr (Call::kStagesLocally) {
        if (warp == 1)
            signal_staged_parts(c, call, reduction);
        else if (fetch_partials<T, Call::kVariant, geometry>(wg, c.args.reduce, call, c.shared))
            reduction.end();
    } else if (warp == 1) {
        store_tiles<kTileN>(c, call, reduction);
    } else {
        reduction.announce_output();
        if (c.args.c_is_mapped != 0)
            reduction.end();
        else
            reduction.reduce_and_publish();
    }
}

/* By one thread of the block. */
IRIS_INLINE void init_stages(sm90_shared *shared, bool by_elements)
{
    for (int32_t stage = 0; stage < kStages; ++stage) {
        init_mbarrier(&shared->full[stage], 1 + (by_elements ? kElementLoaders : 0));
        init_mbarrier(&shared->empty[stage], 2);
    }
    for (int32_t slot = 0; slot < kFetchSlots; ++slot)
        init_mbarrier(&shared->fetched[slot], 1);
    shared->zero = 0;
    fence_mbarrier_init();
}

template <typename A, typename T, iris_variant kVariant, result kResult>
IRIS_INLINE void tensor_core_matmul(const iris_product_args &args)
{
    extern IRIS_SHARED __align__(1024) char dynamic_shared[];
    sm90_shared *shared = reinterpret_cast<sm90_shared *>(dynamic_shared);
    const int32_t warpgroup = (int32_t)threadIdx.x / kGroupThreads;
    const bool by_elements = args.a_map_kind == 0 || args.b_map_kind == 0;

    if (threadIdx.x == 0)
        init_stages(shared, by_elements);
    __syncthreads();
    const sm90_call<A, T, kVariant, kResult> c = {args, shared};

    /* Both need the 168 registers a thread that there are: the one for its accumulators, the other
     * for what it has in flight. Of float8 the accumulators are half as many again. */
    if (warpgroup == 0) {
        if constexpr (is_float8<A>::value)
            give_registers<kFloat8LoadRegisters>();
        if (args.reduce.block_n == kWide)
            load_store_roles<kWide>(c, by_elements);
        else
            load_store_roles<kNarrow>(c, by_elements);
    } else {
        if constexpr (is_float8<A>::value)
            take_registers<kFloat8MathRegisters>();
        if (args.reduce.block_n == kWide)
            multiply_tiles<kWide>(c, warpgroup - 1);
        else
            multiply_tiles<kNarrow>(c, warpgroup - 1);
    }
}

} // namespace iris

#endif
