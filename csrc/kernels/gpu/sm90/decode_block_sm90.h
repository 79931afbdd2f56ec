/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A block of a product of few rows on sm_90a (decode_sm90.h): what its roles share.
 */
#ifndef IRIS_DECODE_BLOCK_SM90_H
#define IRIS_DECODE_BLOCK_SM90_H

#include "gemm_sm90.h"
#include "kernels/abi/schedule.h"

namespace iris
{

constexpr int32_t kWeightCols = IRIS_DECODE_COLS;                          /* of a tile */
constexpr int32_t kDecodeLoader = 4, kFirstSender = 5, kFirstReceiver = 8; /* warps */
constexpr int32_t kSenders = 3, kReceiverThreads = 128;
constexpr int32_t kDecodeExchangeThreads = kSenders * 32 + kReceiverThreads;
constexpr int32_t kDecodeStages = 20; /* at most */
constexpr int32_t kResultBatch = 4;   /* sums of other owners that a receiver awaits at once */
/* From a row of partial sums to the next, in floats: wgmma's fragments meet no bank twice. */
constexpr int32_t kSumPitch = kWeightCols + 4;
constexpr int32_t kJoinBarrier = 1; /* beside kExchangeBarrier */

struct decode_barriers {
    mbarrier full[kDecodeStages], empty[kDecodeStages];
    mbarrier summed[2], emptied[2];
    uint32_t sent; /* tiles of this block whose packets are being sent */
};
constexpr int32_t kDecodeHead = 1024;
static_assert(sizeof(decode_barriers) <= kDecodeHead, "the ring begins behind");

/* The tokens as wgmma has them: its N. */
IRIS_INLINE int32_t padded_tokens(int32_t tokens)
{
    return tokens <= 8     ? 8
           : tokens <= 16  ? 16
           : tokens <= 32  ? 32
           : tokens <= 64  ? 64
           : tokens <= 128 ? 128
                           : 256;
}

/* What is where in shared memory. A stage has the tokens' rows in eights, as the swizzle does, and
 * no more: what the engine loads beyond them takes its time too. What wgmma reads behind them, of
 * another stage or of the sums, comes to columns that nobody looks at. */
struct decode_plan {
    int32_t width, stages, buffers;
    int32_t stage_rows, stage_a_nbytes; /* of the tokens; of the weights kStageW */
    int32_t sums_nbytes;                /* of a buffer */
    int32_t ring_a, sums, outbox;

    static constexpr int32_t kStageW = kWeightCols * kLineBytes;
};

IRIS_INLINE decode_plan decode_plan_of(int32_t tokens)
{
    decode_plan p = {};
    p.width = padded_tokens(tokens);
    p.stage_rows = (tokens + 7) / 8 * 8;
    p.stage_a_nbytes = p.stage_rows * kLineBytes;
    p.sums_nbytes = p.width * kSumPitch * 4;
    p.buffers = p.width <= 32 ? 2 : 1;
    const int32_t boxes = p.buffers + (p.width <= IRIS_DECODE_MAX_SPLIT_ROWS ? 1 : 0);
    const int32_t fit = (IRIS_DECODE_SHARED_NBYTES - kDecodeHead - boxes * p.sums_nbytes) /
                        (decode_plan::kStageW + p.stage_a_nbytes);
    p.stages = fit < kDecodeStages ? fit : kDecodeStages;
    p.ring_a = kDecodeHead + p.stages * decode_plan::kStageW;
    p.sums = p.ring_a + p.stages * p.stage_a_nbytes;
    p.outbox = p.sums + p.buffers * p.sums_nbytes;
    return p;
}

/* What every role needs. */
struct decode_block {
    const iris_decode_args &args;
    decode_plan plan;
    char *shared;
    decode_barriers *barriers;
    int32_t split, splits;     /* this block in its cluster */
    int32_t first_tile, tiles; /* of this cluster: every `clusters`-th from the first on */
    int32_t clusters;
    int32_t first_step, steps; /* of this block, 64 of K each */
    int32_t split_rows;        /* whose sums one block adds up */

    IRIS_INLINE char *weights(int32_t stage) const
    {
        return shared + kDecodeHead + stage * decode_plan::kStageW;
    }

    IRIS_INLINE char *tokens(int32_t stage) const
    {
        return shared + plan.ring_a + stage * plan.stage_a_nbytes;
    }

    IRIS_INLINE char *sums(int32_t buffer) const
    {
        return shared + plan.sums + buffer * plan.sums_nbytes;
    }

    /* Rows of the product that block `of` of the cluster adds up. */
    IRIS_INLINE int32_t rows_of(int32_t of) const
    {
        const int32_t left = args.layout.rows - of * split_rows;
        return left < 0 ? 0 : left < split_rows ? left : split_rows;
    }

    /* Every thread of a block waits once, before it reaches for another one's shared memory. */
    IRIS_INLINE void meet() const
    {
        if (splits > 1)
            wait_cluster();
    }
};

IRIS_INLINE decode_block decode_block_of(const iris_decode_args &args, char *shared)
{
    const int32_t steps = (int32_t)((args.product.reduce.K + kTileK - 1) / kTileK);
    const int32_t splits = args.splits, split = (int32_t)blockIdx.x % splits;
    const int32_t first = (int32_t)((int64_t)split * steps / splits);
    const int32_t end = (int32_t)((int64_t)(split + 1) * steps / splits);
    const decode_plan plan = decode_plan_of(args.layout.rows);
    return {args,
            plan,
            shared,
            reinterpret_cast<decode_barriers *>(shared),
            split,
            splits,
            (int32_t)blockIdx.x / splits,
            (args.layout.cols + kWeightCols - 1) / kWeightCols,
            (int32_t)gridDim.x / splits,
            first,
            end - first,
            plan.width / splits};
}

/* The turns of sums through their buffers. */
struct sums_cursor {
    int32_t buffer = 0, turn = 0;
    uint32_t phase = 0;

    IRIS_INLINE void advance(int32_t buffers)
    {
        ++turn;
        if (++buffer == buffers) {
            buffer = 0;
            phase ^= 1;
        }
    }
};

} // namespace iris

#endif
