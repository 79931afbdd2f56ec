/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of few rows on sm_90a, in the form DECODE. The weights, B, are read once, at the rate of
 * the memory: their columns are the M of wgmma, the tokens, A's rows, its N, padded to 8 ... 256.
 * A persistent block of twelve warps with roles:
 *
 *   math       warps 0-3: 64 columns of C by all rows, one 64-wide step of K after the other
 *   loader     warp 4: asks the copy engine for the stages of B and A; what it cannot read (odd
 *              strides, odd alignment, tokens not along K) the warp loads itself
 *   senders    warps 5-7: add up the partial sums of the cluster, round, send packets
 *   receivers  warps 8-11: receive what the ranks have sent, and store C (decode_exchange.h)
 *
 * so the stream of weights never waits for a link: a tile is exchanged while the next is read.
 *
 * Where there are fewer tiles than multiprocessors, K is divided among the blocks of a cluster.
 * Block s of S multiplies steps [s n / S, (s + 1) n / S) of n; then the sums of rows
 * [d rows / S, (d + 1) rows / S) go to block d, by bulk copies between shared memories, and block
 * d's senders add them up in the order of the blocks: the result is the same in every run.
 *
 *   shared memory    written by            read by           ordered by
 *   ring             engine, loader        math              full, empty: a barrier each a stage
 *   outbox (S > 1)   math                  engine            the engine has read it before the next
 *   sums             engines of all        senders           summed, emptied: a barrier each a
 *                    blocks; S = 1: math                     buffer; emptied by all blocks' senders
 *
 * The loader and the warps of the exchange wait for the launch in front of this one (sync.h,
 * follow_previous_launch), after barriers and descriptors are ready; the math warps touch no global
 * memory.
 *
 * One block owns a multiprocessor: nearly all of its shared memory is the ring, since what is on
 * its way must cover the latency of memory.
 */
#ifndef IRIS_DECODE_SM90_H
#define IRIS_DECODE_SM90_H

#include "decode_load_sm90.h"
#include "kernels/protocol/decode_exchange.h"

namespace iris
{

/* ---- math ---- */

/* Keeps the sums in their registers while wgmma works on them behind the compiler's back. */
template <int kParts, int kCount> IRIS_INLINE void pin(float (&d)[kParts][kCount])
{
#pragma unroll
    for (int i = 0; i < kParts; ++i)
#pragma unroll
        for (int j = 0; j < kCount; ++j)
            asm volatile("" : "+f"(d[i][j])::"memory");
}

/* The tokens side by side in instructions of at most this width. */
template <int32_t kRows> constexpr int32_t kTokens = kRows > 128 ? 128 : kRows;

/* One tile's sum over this block's steps. */
template <typename T, int32_t kRows, bool kWeightsMn>
IRIS_INLINE void multiply_decode_tile(const decode_block &b, stage_cursor &cursor,
                                      float (&d)[kRows / kTokens<kRows>][kTokens<kRows> / 2])
{
    constexpr int32_t kParts = kRows / kTokens<kRows>;
    const uint32_t weights = shared_address(b.weights(0));
    const uint32_t tokens = shared_address(b.tokens(0));
    const bool leads = threadIdx.x % 32 == 0;
    int32_t previous = 0;

    IRIS_NO_UNROLL
    for (int32_t step = 0; step < b.steps; ++step) {
        wait_mbarrier(&b.barriers->full[cursor.stage], cursor.phase);
        const uint32_t w = weights + cursor.stage * decode_plan::kStageW;
        const uint32_t t = tokens + cursor.stage * b.plan.stage_a_nbytes;
        pin(d);
        wgmma_fence();
#pragma unroll
        for (int32_t k = 0; k < kTileK / 16; ++k)
#pragma unroll
            for (int32_t part = 0; part < kParts; ++part)
                issue_wgmma<T, kTokens<kRows>, kWeightsMn, false>(
                    d[part], operand_descriptor(w + k * kSixteen<kWeightsMn>, 0),
                    operand_descriptor(t + k * kSixteen<false> + part * kTokens<kRows> * kLineBytes,
                                       16),
                    step > 0 || k > 0);
        wgmma_commit();
        if (step > 0) {
            wgmma_wait<1>(); /* the step before is done with its stage */
            if (leads)
                arrive_mbarrier(&b.barriers->empty[previous]);
        }
        previous = cursor.stage;
        cursor.advance(b.plan.stages);
    }
    wgmma_wait<0>();
    pin(d);
    if (leads)
        arrive_mbarrier(&b.barriers->empty[previous]);
}

/* Sends the cluster's blocks their rows of this block's sums, which lie in the outbox. By thread 0.
 * The bytes are announced at this block's own barrier; that a peer's come first does no harm, since
 * the phase cannot end before the announcement, which is its one arrival. */
IRIS_INLINE void push_sums(const decode_block &b, const sums_cursor &cursor)
{
    constexpr int32_t kRowBytes = kSumPitch * 4;
    mbarrier *summed = &b.barriers->summed[cursor.buffer];

    if (cursor.turn >= b.plan.buffers)
        wait_mbarrier_in_cluster(&b.barriers->emptied[cursor.buffer], cursor.phase ^ 1);
    arrive_expecting(summed, (uint32_t)(b.splits * b.rows_of(b.split) * kRowBytes));
    IRIS_NO_UNROLL
    for (int32_t i = 0; i < b.splits; ++i) {
        const int32_t to = (b.split + i) % b.splits, rows = b.rows_of(to);
        if (rows > 0)
            copy_bulk_in_cluster(b.sums(cursor.buffer) + b.split * b.split_rows * kRowBytes, to,
                                 b.shared + b.plan.outbox + to * b.split_rows * kRowBytes,
                                 (uint32_t)(rows * kRowBytes), summed);
    }
    commit_bulk();
}

template <typename T, int32_t kRows, bool kWeightsMn>
IRIS_INLINE void multiply_decode_tiles(const decode_block &b)
{
    constexpr int32_t kCount = kTokens<kRows> / 2;
    const int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
    float d[kRows / kTokens<kRows>][kCount];
    stage_cursor stages;
    sums_cursor cursor;

    IRIS_NO_UNROLL
    for (int32_t tile = b.first_tile; tile < b.tiles; tile += b.clusters) {
        multiply_decode_tile<T, kRows, kWeightsMn>(b, stages, d);
        char *box = b.shared + b.plan.outbox;
        if (b.splits == 1) {
            box = b.sums(cursor.buffer);
            if (cursor.turn >= b.plan.buffers)
                wait_mbarrier(&b.barriers->emptied[cursor.buffer], cursor.phase ^ 1);
        } else if (cursor.turn == 0) {
            b.meet();
        } else { /* the outbox has been read */
            if (threadIdx.x == 0)
                wait_bulk_read();
            sync_barrier(kJoinBarrier, kGroupThreads);
        }
        float *out =
            reinterpret_cast<float *>(box) + warp * 16 + lane / 4 + 2 * (lane % 4) * kSumPitch;
#pragma unroll
        for (int32_t j = 0; j < kRows / 8; ++j)
#pragma unroll
            for (int32_t e = 0; e < 4; ++e)
                out[(8 * j + (e & 1)) * kSumPitch + 8 * (e / 2)] =
                    d[4 * j / kCount][4 * j % kCount + e];
        if (b.splits == 1) {
            __syncwarp();
            if (lane == 0)
                arrive_mbarrier(&b.barriers->summed[cursor.buffer]);
        } else {
            fence_async_shared();
            sync_barrier(kJoinBarrier, kGroupThreads);
            if (threadIdx.x == 0)
                push_sums(b, cursor);
        }
        cursor.advance(b.plan.buffers);
    }
    if (cursor.turn == 0)
        b.meet();
    if (b.splits > 1 && threadIdx.x == 0)
        wait_bulk_read();
}

template <typename T, int32_t kRows> IRIS_INLINE void multiply_decode_rows(const decode_block &b)
{
    if (b.args.product.b_map_kind == IRIS_TENSOR_MAP_MN)
        multiply_decode_tiles<T, kRows, true>(b);
    else
        multiply_decode_tiles<T, kRows, false>(b);
}

template <typename T> IRIS_INLINE void multiply_decode(const decode_block &b)
{
    switch (b.plan.width) {
    case 8:
        return multiply_decode_rows<T, 8>(b);
    case 16:
        return multiply_decode_rows<T, 16>(b);
    case 32:
        return multiply_decode_rows<T, 32>(b);
    case 64:
        return multiply_decode_rows<T, 64>(b);
    case 128:
        return multiply_decode_rows<T, 128>(b);
    default:
        return multiply_decode_rows<T, 256>(b);
    }
}

/* ---- senders and receivers ---- */

/* The i-th word of the rows of a tile that this block adds up. */
IRIS_INLINE iris_decode_place decode_word(const decode_block &b, int32_t tile, int32_t i)
{
    return {b.split * b.split_rows + i / IRIS_DECODE_GROUP,
            tile * IRIS_DECODE_GROUP + i % IRIS_DECODE_GROUP};
}

/* Adds the cluster's partial sums of a word up, in the order of its blocks. */
IRIS_INLINE void join_sums(const decode_block &b, const char *sums, int32_t i,
                           float (&values)[IRIS_DECODE_WORD])
{
    const char *at =
        sums + (i / IRIS_DECODE_GROUP * kSumPitch + i % IRIS_DECODE_GROUP * IRIS_DECODE_WORD) * 4;
    const int32_t step = b.split_rows * kSumPitch * 4;
#pragma unroll
    for (int32_t s = 0; s < IRIS_DECODE_MAX_SPLITS; ++s) {
        if (s >= b.splits)
            continue;
#pragma unroll
        for (int32_t k = 0; k < IRIS_DECODE_WORD; k += 4) {
            const float4 part = *reinterpret_cast<const float4 *>(at + s * step + k * 4);
            values[k] = s == 0 ? part.x : values[k] + part.x;
            values[k + 1] = s == 0 ? part.y : values[k + 1] + part.y;
            values[k + 2] = s == 0 ? part.z : values[k + 2] + part.z;
            values[k + 3] = s == 0 ? part.w : values[k + 3] + part.w;
        }
    }
}

template <typename T>
IRIS_INLINE void send_decode_tiles(const decode_block &b, const decode_exchange<T> &exchange)
{
    const int32_t thread = (int32_t)threadIdx.x - kFirstSender * 32;
    const int32_t words = b.rows_of(b.split) * IRIS_DECODE_GROUP;
    sums_cursor cursor;

    IRIS_NO_UNROLL
    for (int32_t tile = b.first_tile; tile < b.tiles; tile += b.clusters) {
        wait_mbarrier_in_cluster(&b.barriers->summed[cursor.buffer], cursor.phase);
        if (thread == 0)
            store_shared_word(&b.barriers->sent, (uint32_t)cursor.turn + 1);
        IRIS_NO_UNROLL
        for (int32_t i = thread; i < words; i += kSenders * 32) {
            const iris_decode_place at = decode_word(b, tile, i);
            float values[IRIS_DECODE_WORD] = {};
            if (!exchange.exists(at))
                continue;
            join_sums(b, b.sums(cursor.buffer), i, values);
            exchange.send(at, values);
        }
        __syncwarp();
        if (thread % 32 < b.splits)
            arrive_mbarrier_in_cluster(&b.barriers->emptied[cursor.buffer], thread % 32);
        cursor.advance(b.plan.buffers);
    }
}

/* Whether this thread's words have all come. */
template <typename T>
IRIS_INLINE bool receive_decode_tiles(const decode_block &b, const decode_exchange<T> &exchange)
{
    const int32_t thread = (int32_t)threadIdx.x - kFirstReceiver * 32;
    const int32_t words = b.rows_of(b.split) * IRIS_DECODE_GROUP;
    uint32_t turn = 0;

    IRIS_NO_UNROLL
    for (int32_t tile = b.first_tile; tile < b.tiles; tile += b.clusters) {
        /* The peers are about as far as this rank is: to poll before would only take bandwidth from
         * the stream of weights. The senders of this block wait for its math alone. */
        ++turn;
        while (load_shared_word(&b.barriers->sent) < turn)
            ;
        IRIS_NO_UNROLL
        for (int32_t i = thread; i < words; i += kReceiverThreads) {
            const iris_decode_place at = decode_word(b, tile, i);
            if (exchange.exists(at) && !exchange.receive(at))
                return false;
        }
        IRIS_NO_UNROLL
        for (int32_t i = thread; exchange.has_results() && i < words;
             i += kResultBatch * kReceiverThreads) {
            iris_decode_place at[kResultBatch];
#pragma unroll
            for (int32_t q = 0; q < kResultBatch; ++q)
                at[q] = i + q * kReceiverThreads < words
                            ? decode_word(b, tile, i + q * kReceiverThreads)
                            : iris_decode_place{b.args.layout.rows, 0}; /* none */
            if (!exchange.receive_results(at))
                return false;
        }
    }
    return true;
}

/* Warps from kFirstSender on. The receivers come first in the group, so that its leader is one. */
template <typename T> IRIS_INLINE void exchange_decode_tiles(const decode_block &b)
{
    const bool receives = (int32_t)threadIdx.x >= kFirstReceiver * 32;
    const int32_t thread = (int32_t)threadIdx.x - kFirstReceiver * 32;
    const work_group wg = {(int32_t)blockIdx.x,
                           (int32_t)gridDim.x,
                           receives ? thread : thread + kDecodeExchangeThreads,
                           kDecodeExchangeThreads,
                           kExchangeBarrier,
                           nullptr};
    follow_previous_launch();
    const call_state call = call_begin(b.args.product.reduce.call);
    const decode_exchange<T> exchange(b.args, call);
    const bool early = ends_early(call);
    const uint32_t count = early ? count_in_early(wg, call) : 0;
    bool complete = true;

    b.meet();
    if (receives)
        complete = receive_decode_tiles<T>(b, exchange);
    else
        send_decode_tiles<T>(b, exchange);
    if (early) {
        if (complete)
            end_early(wg, call, count);
    } else if (group_agree(wg, complete)) {
        end_locally(wg, call);
    }
}

template <typename T> IRIS_INLINE void tensor_core_decode_product(const iris_decode_args &args)
{
    extern IRIS_SHARED __align__(1024) char dynamic_shared[];
    const decode_block b = decode_block_of(args, dynamic_shared);
    const int32_t warp = (int32_t)threadIdx.x / 32;

    if (warp == kDecodeLoader && threadIdx.x % 32 == 0) {
        prefetch_tensor_map(&args.product.a_map);
        prefetch_tensor_map(&args.product.b_map);
        init_decode_barriers(b);
    }
    /* Before any load: while a ring's worth of loads is being asked for, the barrier would be late.
     */
    __syncthreads();
    if (b.splits > 1)
        arrive_cluster_relaxed(); /* meet() is the other half */
    if (warp == kDecodeLoader) {
        load_decode_tiles<T>(b);
        __syncwarp();
        b.meet();
    } else if (warp < kDecodeLoader) {
        multiply_decode<T>(b);
    } else {
        exchange_decode_tiles<T>(b);
    }
    __syncwarp();
    if (b.splits > 1) { /* nobody leaves while its cluster may still write to it */
        arrive_cluster();
        wait_cluster();
    }
}

} // namespace iris

#endif
