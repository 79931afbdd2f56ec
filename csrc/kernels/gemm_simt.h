/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A 128 x 128 tile of A @ B by a block of 256 threads, for any strides. Operands go from global
 * memory through registers into shared memory, twice buffered: while a stage of 64 bytes of K is
 * multiplied, the loads of the next are in flight. Both operands lie there as rows of K, whatever
 * way they lie in memory, so that one inner loop serves all. The inner loop is the target's
 * (`Unit`):
 *
 *     struct Unit {
 *         struct accumulator;                                  this thread's part of the tile, fp32
 *         static void clear(accumulator &);
 *         static void step(accumulator &, const char *a, const char *b, int32_t thread);
 *         template <class Write> static void for_each(const accumulator &, int32_t thread, Write);
 *     };                                                       Write(row, col, const float (&)[n])
 */
#ifndef IRIS_GEMM_SIMT_H
#define IRIS_GEMM_SIMT_H

#include "gpu_launch.h"
#include "tile_gpu.h"

namespace iris
{

constexpr int32_t kSimtBlock = IRIS_SIMT_BLOCK_M;
constexpr int32_t kStageRowBytes = IRIS_SIMT_BLOCK_K_BYTES;
/* Rows are padded, and every eighth row more, so that neither reading 8 rows' chunks nor writing a
 * column of every eighth row meets a bank twice more than it must. */
constexpr int32_t kStagePitch = kStageRowBytes + 16;
constexpr int32_t kStageBytes = kSimtBlock * kStagePitch + kSimtBlock / 8 * 16;

IRIS_INLINE int32_t stage_offset(int32_t row, int32_t byte)
{
    return row * kStagePitch + row / 8 * 16 + byte;
}

/* How an operand lies in memory. */
enum class operand_order { k_runs, mn_runs, elements };

/* The rows of A, or the columns of B, of one tile. */
template <typename T> class tile_operand
{
  public:
    IRIS_INLINE tile_operand(const iris_matrix_args &matrix, int64_t stride_mn, int64_t stride_k,
                             int64_t first, int32_t count, int64_t K)
        : data_(device_pointer<const T>(matrix.address) + first * stride_mn), stride_mn_(stride_mn),
          stride_k_(stride_k), count_(count), K_(K)
    {
        const uint64_t address = matrix.address;
        operand_order order = operand_order::elements;
        if (has_vector_rows<T>(address, stride_mn, stride_k))
            order = operand_order::k_runs;
        else if (has_vector_rows<T>(address, stride_k, stride_mn))
            order = operand_order::mn_runs; /* `first` is a multiple of the block */
        order_ = (operand_order)uniform((int64_t)order);
    }

    /* Brings this thread's share of the stage that begins at k into registers. */
    IRIS_INLINE void load(int32_t thread, int64_t k)
    {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
            int32_t mn = thread / 4 + 64 * i;
            int64_t at = k + thread % 4 * kChunk<T>;
            if (order_ == operand_order::mn_runs) {
                mn = thread % kRuns * kChunk<T>;
                at = k + (sizeof(T) == 2 ? thread / kRuns * 2 + i : thread / kRuns + 8 * i);
                chunks_[i] = at < K_ && mn < count_
                                 ? load_run(data_ + at * stride_k_ + mn, 1, count_ - mn, true)
                                 : chunk16{{0, 0, 0, 0}};
                continue;
            }
            const int64_t left = K_ - at;
            const int32_t n = left < kChunk<T> ? (int32_t)left : kChunk<T>;
            chunks_[i] = mn < count_ && n > 0
                             ? load_run(data_ + mn * stride_mn_ + at * stride_k_, stride_k_, n,
                                        order_ == operand_order::k_runs)
                             : chunk16{{0, 0, 0, 0}};
        }
    }

    /* Stores it as rows of K. */
    IRIS_INLINE void store(int32_t thread, char *stage) const
    {
        if (order_ != operand_order::mn_runs) {
#pragma unroll
            for (int32_t i = 0; i < 2; ++i)
                store_chunk(stage + stage_offset(thread / 4 + 64 * i, thread % 4 * kChunkBytes),
                            chunks_[i]);
            return;
        }
        const int32_t mn = thread % kRuns * kChunk<T>, k = thread / kRuns;
        if constexpr (sizeof(T) == 2) { /* two runs of one k each: pairs along k */
#pragma unroll
            for (int32_t j = 0; j < 4; ++j) {
                const uint32_t low = chunks_[0].word[j], high = chunks_[1].word[j];
                *reinterpret_cast<uint32_t *>(stage + stage_offset(mn + 2 * j, 4 * k)) =
                    (low & 0xffffu) | high << 16;
                *reinterpret_cast<uint32_t *>(stage + stage_offset(mn + 2 * j + 1, 4 * k)) =
                    low >> 16 | (high & 0xffff0000u);
            }
        } else {
#pragma unroll
            for (int32_t i = 0; i < 2; ++i)
#pragma unroll
                for (int32_t j = 0; j < 4; ++j)
                    *reinterpret_cast<uint32_t *>(stage + stage_offset(mn + j, 4 * (k + 8 * i))) =
                        chunks_[i].word[j];
        }
    }

  private:
    static constexpr int32_t kRuns = kSimtBlock / kChunk<T>;

    const T *data_;
    int64_t stride_mn_, stride_k_;
    int32_t count_;
    int64_t K_;
    operand_order order_;
    chunk16 chunks_[2];
};

/* Shared memory of the product; the finished tile leaves through it too. */
struct gemm_shared {
    alignas(16) char a[2][kStageBytes];
    alignas(16) char b[2][kStageBytes];
};

template <typename T, class Unit>
IRIS_INLINE void simt_gemm(work_group wg, typename Unit::accumulator &acc,
                           const iris_reduce_args &args, const iris_tile_coord &at,
                           gemm_shared *shared)
{
    constexpr int32_t kStep = kStageRowBytes / (int32_t)sizeof(T);
    tile_operand<T> a(args.a, args.a.stride_row, args.a.stride_col, at.row, at.rows, args.K);
    tile_operand<T> b(args.b, args.b.stride_col, args.b.stride_row, at.col, at.cols, args.K);
    const int64_t K = uniform(args.K);
    int32_t buffer = 0;

    Unit::clear(acc);
    a.load(wg.thread, 0);
    b.load(wg.thread, 0);
    group_barrier(wg); /* shared memory still holds the tile before */
    for (int64_t k = 0; k < K; k += kStep) {
        a.store(wg.thread, shared->a[buffer]);
        b.store(wg.thread, shared->b[buffer]);
        /* One barrier a step: a wave that stores the next stage but one has passed the next step's
         * barrier, and with it everybody's reads of this stage. */
        group_barrier(wg);
        if (k + kStep < K) {
            a.load(wg.thread, k + kStep);
            b.load(wg.thread, k + kStep);
        }
        Unit::step(acc, shared->a[buffer], shared->b[buffer], wg.thread);
        buffer ^= 1;
    }
}

/* Hands the tile, rounded to T, out as chunks: visit(chunk number, chunk), row by row, neighbouring
 * threads with neighbouring chunks. */
template <typename T, class Unit, class Visit>
IRIS_INLINE void for_each_tile_chunk(work_group wg, const typename Unit::accumulator &acc,
                                     int32_t rows, gemm_shared *shared, Visit visit)
{
    constexpr int32_t kPitch = kSimtBlock * (int32_t)sizeof(T) + 16;
    constexpr int32_t kPassRows = sizeof(T) == 4 ? 64 : 128;
    constexpr int32_t kRowChunks = kSimtBlock / kChunk<T>;
    static_assert(kPassRows * kPitch <= (int32_t)sizeof(gemm_shared), "the tile passes through");
    char *tile = shared->a[0];

    for (int32_t pass = 0; pass < kSimtBlock; pass += kPassRows) {
        group_barrier(wg);
        Unit::for_each(acc, wg.thread, [&](int32_t row, int32_t col, const auto &values) {
            if (row < pass || row >= pass + kPassRows)
                return;
            T *target = reinterpret_cast<T *>(tile + (row - pass) * kPitch) + col;
            store_values(target, values);
        });
        group_barrier(wg);
        for (int32_t chunk = wg.thread; chunk < kPassRows * kRowChunks; chunk += wg.threads) {
            const int32_t row = chunk / kRowChunks;
            if (pass + row < rows)
                visit(pass * kRowChunks + chunk,
                      *reinterpret_cast<const chunk16 *>(tile + row * kPitch +
                                                         chunk % kRowChunks * kChunkBytes));
        }
    }
}

} // namespace iris

#endif
