/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A 128 x 128 tile of A @ B by a block of 256 threads, for any strides. Operands go from global
 * memory through registers into shared memory, twice buffered: while a stage of 64 bytes of K is
 * multiplied, the loads of the next are in flight. Both operands lie there as rows of K, whatever
 * way they lie in memory, so that one inner loop serves all. Operands that consist of aligned runs,
 * but for the end of K, have a loop of their own, in which little else happens than loads, stores
 * to LDS and products. The inner loop is the target's (`Unit`):
 *
 *     struct Unit {
 *         struct accumulator;                                  this thread's part of the tile, fp32
 *         static void clear(accumulator &);
 *         static int32_t a_offset(int32_t thread);             where it begins to read in a stage
 *         static int32_t b_offset(int32_t thread);
 *         static void step(accumulator &, const char *a, const char *b);       from there
 *         template <class Write> static void for_each(const accumulator &, int32_t thread, Write);
 *     };                                                       Write(row, col, const float (&)[n])
 */
#ifndef IRIS_GEMM_BLOCK_H
#define IRIS_GEMM_BLOCK_H

#include "kernels/abi/launch_limits.h"
#include "tile_gpu.h"

namespace iris
{

constexpr int32_t kGemmBlock = IRIS_GEMM_BLOCK_M;
constexpr int32_t kStageRowBytes = IRIS_GEMM_BLOCK_K_BYTES;
/* Rows are padded, and every eighth row more, so that neither reading 8 rows' chunks nor writing a
 * column of every eighth row meets a bank twice more than it must. */
constexpr int32_t kStagePitch = kStageRowBytes + 16;
constexpr int32_t kStageBytes = kGemmBlock * kStagePitch + kGemmBlock / 8 * 16;

IRIS_INLINE int32_t stage_offset(int32_t row, int32_t byte)
{
    return row * kStagePitch + row / 8 * 16 + byte;
}

/* Between a row of a stage and the one `rows` below it, a multiple of 8. */
IRIS_INLINE constexpr int32_t stage_rows(int32_t rows)
{
    return rows * kStagePitch + rows / 8 * 16;
}

/* How an operand lies in memory. */
enum class operand_order { k_runs, mn_runs, elements };

/* A thread's share of a stage is two chunks: of rows thread / 4 and thread / 4 + 64, the chunk
 * thread mod 4 of K; of an operand whose runs lie along M or N, runs of two k. */
template <typename T> constexpr int32_t kRuns = kGemmBlock / kChunk<T>;

template <typename T> IRIS_INLINE int32_t run_k(int32_t thread, int32_t i)
{
    return sizeof(T) == 2 ? thread / kRuns<T> * 2 + i : thread / kRuns<T> + 8 * i;
}

/* Where the thread's share begins in a stage. */
template <typename T, bool kMn> IRIS_INLINE int32_t share_offset(int32_t thread)
{
    return kMn ? stage_offset(thread % kRuns<T> * kChunk<T>, 4 * (thread / kRuns<T>))
               : stage_offset(thread / 4, thread % 4 * kChunkBytes);
}

/* Stores the share from there on, as rows of K. */
template <typename T, bool kMn>
IRIS_INLINE void store_share(char *target, const chunk16 (&chunks)[2])
{
    if constexpr (!kMn) {
        store_chunk(target, chunks[0]);
        store_chunk(target + stage_rows(64), chunks[1]);
    } else if constexpr (sizeof(T) == 2) { /* two runs of one k each: pairs along k */
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
            const uint32_t first = chunks[0].word[j], second = chunks[1].word[j];
            char *row = target + 2 * j * kStagePitch;
            *reinterpret_cast<uint32_t *>(row) = low_halves(first, second);
            *reinterpret_cast<uint32_t *>(row + kStagePitch) = high_halves(first, second);
        }
    } else {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i)
#pragma unroll
            for (int32_t j = 0; j < 4; ++j)
                *reinterpret_cast<uint32_t *>(target + j * kStagePitch + 32 * i) =
                    chunks[i].word[j];
    }
}

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
        /* Of a scattered result a tile begins anywhere. */
        const uint64_t first_address = address + (uint64_t)first * sizeof(T);
        operand_order order = operand_order::elements;
        if (has_vector_rows<T>(address, stride_mn, stride_k))
            order = operand_order::k_runs;
        else if (has_vector_rows<T>(first_address, stride_k, stride_mn))
            order = operand_order::mn_runs;
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
                mn = thread % kRuns<T> * kChunk<T>;
                at = k + run_k<T>(thread, i);
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
        if (order_ == operand_order::mn_runs)
            store_share<T, true>(stage + share_offset<T, true>(thread), chunks_);
        else
            store_share<T, false>(stage + share_offset<T, false>(thread), chunks_);
    }

    /* Whether all of it but the end of K can be loaded by whole runs: also what stands in for the
     * rows or columns that the tile lacks, and by offsets of 32 bits. */
    IRIS_INLINE bool has_runs() const
    {
        constexpr int64_t kReach = INT64_C(1) << 30;
        const int64_t stride = order_ == operand_order::mn_runs ? stride_k_ : stride_mn_;
        return order_ != operand_order::elements &&
               stride * kGemmBlock * (int64_t)sizeof(T) < kReach &&
               (order_ == operand_order::k_runs || count_ % kChunk<T> == 0);
    }

    IRIS_INLINE bool is_mn() const
    {
        return order_ == operand_order::mn_runs;
    }

  private:
    template <typename, bool> friend class run_loader;

    const T *data_;
    int64_t stride_mn_, stride_k_;
    int32_t count_;
    int64_t K_;
    operand_order order_;
    chunk16 chunks_[2];
};

/* Loads stage after stage of an operand that has_runs(): from an address that is the same in all
 * lanes and moves on, at offsets that stay. Rows or columns that the tile lacks are copies of its
 * last ones: what comes of them is stored nowhere. */
template <typename T, bool kMn> class run_loader
{
  public:
    IRIS_INLINE run_loader(const tile_operand<T> &operand, int32_t thread)
        : address_((uint64_t)uniform((int64_t)reinterpret_cast<uint64_t>(operand.data_))),
          advance_(kMn ? (uint32_t)uniform(operand.stride_k_) * kStageRowBytes : kStageRowBytes)
    {
        for (int32_t i = 0; i < 2; ++i) {
            const int32_t last = operand.count_ - (kMn ? kChunk<T> : 1);
            const int32_t wanted = kMn ? thread % kRuns<T> * kChunk<T> : thread / 4 + 64 * i;
            const int32_t mn = wanted < last ? wanted : last;
            const int64_t at = kMn ? run_k<T>(thread, i) * operand.stride_k_ + mn
                                   : mn * operand.stride_mn_ + thread % 4 * kChunk<T>;
            offset_[i] = (uint32_t)(at * (int64_t)sizeof(T));
        }
    }

    /* Loads a stage and moves on to the next one, if there is one. */
    IRIS_INLINE void load(bool more)
    {
        const char *base = device_pointer<const char>(address_);
        chunks_[0] = load_chunk(base + narrow(offset_[0]));
        chunks_[1] = load_chunk(base + narrow(offset_[1]));
        address_ += more ? advance_ : 0;
    }

    /* At this thread's place in a stage. */
    IRIS_INLINE void store(char *target) const
    {
        store_share<T, kMn>(target, chunks_);
    }

  private:
    uint64_t address_;
    uint32_t advance_;
    uint32_t offset_[2];
    chunk16 chunks_[2];
};

/* Shared memory of the product; the finished tile leaves through it too. */
struct gemm_shared {
    alignas(16) char a[2][kStageBytes]; /* the buffers of one follow each other: multiply_runs */
    alignas(16) char b[2][kStageBytes];
};

/* `steps` >= 1 whole steps of operands that have runs. Leaves the other buffer than the last step's
 * free. */
template <typename T, class Unit, bool kAMn, bool kBMn>
IRIS_INLINE void multiply_runs(work_group wg, typename Unit::accumulator &acc,
                               const tile_operand<T> &operand_a, const tile_operand<T> &operand_b,
                               int32_t steps, gemm_shared *shared)
{
    run_loader<T, kAMn> a(operand_a, wg.thread);
    run_loader<T, kBMn> b(operand_b, wg.thread);
    char *store_a = shared->a[0] + share_offset<T, kAMn>(wg.thread);
    char *store_b = shared->b[0] + share_offset<T, kBMn>(wg.thread);
    const char *read_a = shared->a[0] + Unit::a_offset(wg.thread);
    const char *read_b = shared->b[0] + Unit::b_offset(wg.thread);
    int32_t buffer = 0; /* in bytes */

    a.load(steps > 1);
    b.load(steps > 1);
    group_barrier(wg); /* shared memory still holds the tile before */
    for (; steps > 0; --steps) {
        a.store(store_a + buffer);
        b.store(store_b + buffer);
        /* One barrier a step: a wave that stores the next stage but one has passed the next step's
         * barrier, and with it everybody's reads of this stage. */
        group_barrier(wg);
        a.load(steps > 2); /* the last stage once more rather than a branch */
        b.load(steps > 2);
        Unit::step(acc, read_a + buffer, read_b + buffer);
        buffer ^= kStageBytes;
    }
}

/* The steps from k on, of operands that lie in any way. */
template <typename T, class Unit>
IRIS_INLINE void multiply_any(work_group wg, typename Unit::accumulator &acc, tile_operand<T> &a,
                              tile_operand<T> &b, int64_t k, int64_t K, gemm_shared *shared)
{
    constexpr int32_t kStep = kStageRowBytes / (int32_t)sizeof(T);
    int32_t buffer = 0;

    a.load(wg.thread, k);
    b.load(wg.thread, k);
    group_barrier(wg); /* shared memory still holds what came before */
    for (; k < K; k += kStep) {
        a.store(wg.thread, shared->a[buffer]);
        b.store(wg.thread, shared->b[buffer]);
        group_barrier(wg); /* as in multiply_runs */
        if (k + kStep < K) {
            a.load(wg.thread, k + kStep);
            b.load(wg.thread, k + kStep);
        }
        Unit::step(acc, shared->a[buffer] + Unit::a_offset(wg.thread),
                   shared->b[buffer] + Unit::b_offset(wg.thread));
        buffer ^= 1;
    }
}

/* acc += A[row.., :] @ B[:, at.col..], for the first `inner` of K. */
template <typename T, class Unit>
IRIS_INLINE void block_gemm_add(work_group wg, typename Unit::accumulator &acc,
                                const iris_matrix_args &A, int64_t row, const iris_matrix_args &B,
                                const iris_tile_coord &at, int64_t inner, gemm_shared *shared)
{
    constexpr int32_t kStep = kStageRowBytes / (int32_t)sizeof(T);
    tile_operand<T> a(A, A.stride_row, A.stride_col, row, at.rows, inner);
    tile_operand<T> b(B, B.stride_col, B.stride_row, at.col, at.cols, inner);
    const int64_t K = uniform(inner);
    const bool runs = a.has_runs() && b.has_runs() && K / kStep <= INT32_MAX;
    const int32_t steps = uniform(runs ? (int32_t)(K / kStep) : 0);

    if (steps > 0) {
        if (a.is_mn() && b.is_mn())
            multiply_runs<T, Unit, true, true>(wg, acc, a, b, steps, shared);
        else if (a.is_mn())
            multiply_runs<T, Unit, true, false>(wg, acc, a, b, steps, shared);
        else if (b.is_mn())
            multiply_runs<T, Unit, false, true>(wg, acc, a, b, steps, shared);
        else
            multiply_runs<T, Unit, false, false>(wg, acc, a, b, steps, shared);
    }
    if ((int64_t)steps * kStep < K)
        multiply_any<T, Unit>(wg, acc, a, b, (int64_t)steps * kStep, K, shared);
}

template <typename T, class Unit>
IRIS_INLINE void block_gemm(work_group wg, typename Unit::accumulator &acc,
                            const iris_reduce_args &args, const iris_tile_coord &at,
                            gemm_shared *shared)
{
    Unit::clear(acc);
    block_gemm_add<T, Unit>(wg, acc, args.a, at.row, args.b, at, args.K, shared);
}

/* Adds nothing to a tile. */
struct no_addend {
    IRIS_INLINE float operator()(int32_t, int32_t) const
    {
        return -0.0f; /* leaves 0 and -0 as they are */
    }
};

/* Hands the tile plus addend(row, col), rounded to T, out as chunks: visit(chunk number, chunk),
 * row by row, neighbouring threads with neighbouring chunks. */
template <typename T, class Unit, class Visit, class Addend = no_addend>
IRIS_INLINE void for_each_tile_chunk(work_group wg, const typename Unit::accumulator &acc,
                                     int32_t rows, gemm_shared *shared, Visit visit,
                                     Addend addend = {})
{
    constexpr int32_t kPitch = kGemmBlock * (int32_t)sizeof(T) + 16;
    constexpr int32_t kPassRows = sizeof(T) == 4 ? 64 : 128;
    constexpr int32_t kRowChunks = kGemmBlock / kChunk<T>;
    static_assert(kPassRows * kPitch <= (int32_t)sizeof(gemm_shared), "the tile passes through");
    char *tile = shared->a[0];

    for (int32_t pass = 0; pass < kGemmBlock; pass += kPassRows) {
        group_barrier(wg);
        Unit::for_each(acc, wg.thread, [&](int32_t row, int32_t col, const auto &values) {
            if (row < pass || row >= pass + kPassRows)
                return;
            T *target = reinterpret_cast<T *>(tile + (row - pass) * kPitch) + col;
            constexpr int kCount = sizeof values / sizeof(float);
            float sums[kCount];
            for (int i = 0; i < kCount; ++i)
                sums[i] = values[i] + addend(row, col + i);
            store_values(target, sums);
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
