/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A 128 x 128 tile of A @ B by a block of 256 threads, for any strides. Operands go from global
 * memory through registers into shared memory, twice buffered: while a stage of 64 bytes of K is
 * multiplied, the loads of the next are in flight. Both operands lie there as rows of K, whatever
 * way they lie in memory, so that one inner loop serves all. Operands that consist of aligned runs,
 * but for the end of K, have a loop of their own, in which little else happens than loads, stores
 * to LDS and products. The inner loops are the target's (`Unit`):
 *
 *     struct Unit {
 *         struct accumulator;                                  this thread's part of the tile, fp32
 *         static void clear(accumulator &);
 *         static void hold(accumulator &);                     a word to the compiler
 *         template <typename T> static bool needs_care(const accumulator &);   see rounding
 *         static int32_t a_offset(int32_t thread);             where it begins to read in a stage
 *         static int32_t b_offset(int32_t thread);
 *         static void step(accumulator &, const char *a, const char *b);       from there
 *         static constexpr bool kRunsAcrossK;                  whether multiply_runs is there for
 *                                                              operands whose runs are along M or N
 *         template <bool kAMn, bool kBMn> static void multiply_runs(         `steps` >= 1 stages of
 *             work_group, accumulator &, const tile_operand<T> &a,           operands that have
 *             const tile_operand<T> &b, int32_t steps, gemm_shared *);       runs
 *         template <typename T> static int32_t whole_steps(    how many of them it does, if some
 *             int32_t steps, bool mn);                         run lies across K
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
constexpr int32_t kGemmThreads = IRIS_GPU_THREADS;
constexpr int32_t kStageRowBytes = IRIS_GEMM_BLOCK_K_BYTES;

/* Where a row begins in a stage. stage_row(i + j) is stage_row(i) + stage_row(j) where j is less
 * than a power of two up to 32 that i is a multiple of, or is a multiple of 32. */
IRIS_INLINE constexpr int32_t stage_row(int32_t row)
{
    return row * kStageRows.pitch + row / 2 * kStageRows.every_2 + row / 8 * kStageRows.every_8 +
           row / 32 * kStageRows.every_32;
}

constexpr int32_t kStageBytes =
    kGemmBlock * kStageRows.pitch + kGemmBlock / 2 * kStageRows.every_2 +
    kGemmBlock / 8 * kStageRows.every_8 + kGemmBlock / 32 * kStageRows.every_32;

IRIS_INLINE int32_t stage_offset(int32_t row, int32_t byte)
{
    return stage_row(row) + byte;
}

/* How an operand lies in memory. */
enum class operand_order { k_runs, mn_runs, elements };

/* A thread's share of a stage is two chunks: of rows thread / 4 and thread / 4 + 64, the chunk
 * thread mod 4 of K; of an operand whose runs lie along M or N, the run_of-th run of two k, which
 * are its group but for words. */
template <typename T> constexpr int32_t kRuns = kGemmBlock / kChunk<T>;
template <typename T> constexpr int32_t kGroups = kGemmThreads / kRuns<T>;

/* Half a wave stores words of eight runs and four groups of k at a time: kStageRows keeps the rows
 * of eight runs 16 bytes apart, which the groups fill. */
template <typename T> IRIS_INLINE int32_t run_of(int32_t thread)
{
    return thread / 8 / kGroups<T> * 8 + thread % 8;
}

template <typename T> IRIS_INLINE int32_t group_of_k(int32_t thread)
{
    return thread / 8 % kGroups<T>;
}

template <typename T> IRIS_INLINE int32_t run_k(int32_t thread, int32_t i)
{
    return sizeof(T) <= 2 ? group_of_k<T>(thread) * 2 + i : group_of_k<T>(thread) + 8 * i;
}

/* Where the thread's share begins in a stage. */
template <typename T, bool kMn> IRIS_INLINE int32_t share_offset(int32_t thread)
{
    constexpr int32_t kBytes = sizeof(T) == 1 ? 2 : 4; /* of K, in one row */
    return kMn ? stage_offset(run_of<T>(thread) * kChunk<T>, kBytes * group_of_k<T>(thread))
               : stage_offset(thread / 4, thread % 4 * kChunkBytes);
}

/* A share is stored from there on, as rows of K, in so many parts. */
template <bool kMn> constexpr int32_t kShareParts = kMn ? 4 : 2;

template <typename T, bool kMn>
IRIS_INLINE void store_part(char *target, const chunk16 (&chunks)[2], int32_t part)
{
    if constexpr (!kMn) {
        store_chunk(target + part * stage_row(64), chunks[part]);
    } else if constexpr (sizeof(T) == 1) { /* two runs of one k each: pairs along k */
        const uint32_t first = chunks[0].word[part], second = chunks[1].word[part];
        const uint32_t pairs[2] = {low_bytes(first, second), high_bytes(first, second)};
#pragma unroll
        for (int32_t j = 0; j < 4; ++j)
            *reinterpret_cast<uint16_t *>(target + stage_row(4 * part + j)) =
                (uint16_t)(pairs[j / 2] >> 16 * (j % 2));
    } else if constexpr (sizeof(T) == 2) { /* again two runs of one k each */
        const uint32_t first = chunks[0].word[part], second = chunks[1].word[part];
        *reinterpret_cast<uint32_t *>(target + stage_row(2 * part)) = low_halves(first, second);
        *reinterpret_cast<uint32_t *>(target + stage_row(2 * part + 1)) =
            high_halves(first, second);
    } else {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i)
            *reinterpret_cast<uint32_t *>(target + stage_row(part) + 32 * i) = chunks[i].word[part];
    }
}

/* The parts [first, end) of it. */
template <typename T, bool kMn>
IRIS_INLINE void store_parts(char *target, const chunk16 (&chunks)[2], int32_t first, int32_t end)
{
#pragma unroll
    for (int32_t part = first; part < end; ++part)
        store_part<T, kMn>(target, chunks, part);
}

template <typename T, bool kMn>
IRIS_INLINE void store_share(char *target, const chunk16 (&chunks)[2])
{
    store_parts<T, kMn>(target, chunks, 0, kShareParts<kMn>);
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
                mn = run_of<T>(thread) * kChunk<T>;
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

    /* Of whole runs: a uniform address; how far behind it the one of row or column mn, or of the
     * last there is, and of k begins; and how far it is to what lies so many bytes of K on. */
    IRIS_INLINE uint64_t run_address() const
    {
        return (uint64_t)uniform((int64_t)reinterpret_cast<uint64_t>(data_));
    }

    template <bool kMn> IRIS_INLINE uint32_t run_offset(int32_t mn, int32_t k) const
    {
        const int32_t last = count_ - (kMn ? kChunk<T> : 1);
        const int64_t there = mn < last ? mn : last;
        const int64_t at = kMn ? k * stride_k_ + there : there * stride_mn_ + k;
        return (uint32_t)(at * (int64_t)sizeof(T));
    }

    template <bool kMn> IRIS_INLINE uint32_t run_advance(int32_t nbytes) const
    {
        return kMn ? (uint32_t)uniform(stride_k_) * (uint32_t)nbytes : (uint32_t)nbytes;
    }

  private:
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
        : address_(operand.run_address()),
          advance_(operand.template run_advance<kMn>(kStageRowBytes))
    {
        for (int32_t i = 0; i < 2; ++i)
            offset_[i] = operand.template run_offset<kMn>(
                kMn ? run_of<T>(thread) * kChunk<T> : thread / 4 + 64 * i,
                kMn ? run_k<T>(thread, i) : thread % 4 * kChunk<T>);
    }

    /* Loads a stage and moves on to the next one, if there is one. */
    IRIS_INLINE void load(bool more)
    {
        load(chunks_, more);
    }

    IRIS_INLINE void load(chunk16 (&chunks)[2], bool more)
    {
        load_stage(chunks);
        advance(more);
    }

    IRIS_INLINE void load_stage(chunk16 (&chunks)[2])
    {
        const char *base = device_pointer<const char>(address_);
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
            offset_[i] = narrow(offset_[i]); /* no copy, which would cost a move */
            chunks[i] = load_chunk(base + offset_[i]);
        }
    }

    IRIS_INLINE void advance(bool more)
    {
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
union gemm_shared {
    struct {
        alignas(16) char a[2][kStageBytes]; /* the buffers of one follow each other */
        alignas(16) char b[2][kStageBytes];
    };
    alignas(16) char direct[kDirectBytes]; /* where stages need no registers on their way */
};

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
        /* One barrier a step: a wave that stores the next stage but one has passed the next step's
         * barrier, and with it everybody's reads of this stage. */
        group_barrier(wg);
        if (k + kStep < K) {
            a.load(wg.thread, k + kStep);
            b.load(wg.thread, k + kStep);
        }
        Unit::step(acc, shared->a[buffer] + Unit::a_offset(wg.thread),
                   shared->b[buffer] + Unit::b_offset(wg.thread));
        buffer ^= 1;
    }
}

/* `steps` >= 1 stages of operands for which the target has a loop. */
template <typename T, class Unit>
IRIS_INLINE void multiply_all_runs(work_group wg, typename Unit::accumulator &acc,
                                   const tile_operand<T> &a, const tile_operand<T> &b,
                                   int32_t steps, gemm_shared *shared)
{
    if constexpr (Unit::kRunsAcrossK) {
        if (a.is_mn() && b.is_mn())
            return Unit::template multiply_runs<true, true>(wg, acc, a, b, steps, shared);
        if (a.is_mn())
            return Unit::template multiply_runs<true, false>(wg, acc, a, b, steps, shared);
        if (b.is_mn())
            return Unit::template multiply_runs<false, true>(wg, acc, a, b, steps, shared);
    }
    Unit::template multiply_runs<false, false>(wg, acc, a, b, steps, shared);
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
    const bool runs = a.has_runs() && b.has_runs() && K / kStep <= INT32_MAX &&
                      (Unit::kRunsAcrossK || !(a.is_mn() || b.is_mn()));
    const int32_t steps = uniform(
        runs ? Unit::template whole_steps<T>((int32_t)(K / kStep), a.is_mn() || b.is_mn()) : 0);

    if (steps > 0)
        multiply_all_runs<T, Unit>(wg, acc, a, b, steps, shared);
    else
        Unit::hold(acc);
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

/* How a finished tile passes through shared memory: so many of its rows at a time. */
template <typename T> struct tile_passage {
    static constexpr int32_t kRows = sizeof(T) == 4 ? 64 : 128;
    static constexpr int32_t kPitch = kGemmBlock * (int32_t)sizeof(T) + 16;
    static constexpr int32_t kRowChunks = kGemmBlock / kChunk<T>;
    static_assert(kRows * kPitch <= (int32_t)sizeof(gemm_shared), "the tile passes through");
};

/* The rows of the tile from `pass` on, rounded to T, into shared memory. */
template <class Rounding, typename T, class Unit, class Addend>
IRIS_INLINE void write_tile(work_group wg, const typename Unit::accumulator &acc, int32_t pass,
                            char *tile, Addend addend)
{
    using passage = tile_passage<T>;

    Unit::for_each(acc, wg.thread, [&](int32_t row, int32_t col, const auto &values) {
        if (passage::kRows < kGemmBlock && (row < pass || row >= pass + passage::kRows))
            return;
        T *target = reinterpret_cast<T *>(tile + (row - pass) * passage::kPitch) + col;
        constexpr int kCount = sizeof values / sizeof(float);
        float sums[kCount];
        for (int i = 0; i < kCount; ++i)
            sums[i] = values[i] + addend(row, col + i);
        store_values<Rounding>(target, sums);
    });
}

/* Hands out the first `rows` rows of them; kWhole: all. The number of rounds is known before, and
 * so is how far apart a thread's chunks lie. */
template <bool kWhole, typename T, class Visit>
IRIS_INLINE void read_tile(work_group wg, int32_t rows, int32_t pass, const char *tile, Visit visit)
{
    using passage = tile_passage<T>;
    constexpr int32_t kRounds = passage::kRows * passage::kRowChunks / kGemmThreads;
    constexpr int32_t kRoundRows = kGemmThreads / passage::kRowChunks;
    const int32_t row = wg.thread / passage::kRowChunks;
    const char *source =
        tile + row * passage::kPitch + wg.thread % passage::kRowChunks * kChunkBytes;
    chunk16 chunks[kRounds];

#pragma unroll
    for (int32_t round = 0; round < kRounds; ++round)
        chunks[round] =
            *reinterpret_cast<const chunk16 *>(source + round * kRoundRows * passage::kPitch);
#pragma unroll
    for (int32_t round = 0; round < kRounds; ++round)
        if (kWhole || row + round * kRoundRows < rows)
            visit(pass * passage::kRowChunks + wg.thread + round * kGemmThreads, chunks[round]);
}

/* Hands the tile plus addend(row, col), rounded to T, out as chunks, `times` times: to(time) gives
 * what takes them, visit(chunk number, chunk), row by row, neighbouring threads with neighbouring
 * chunks. */
template <typename T, class Unit, class To, class Addend = no_addend>
IRIS_INLINE void hand_out_tile(work_group wg, const typename Unit::accumulator &acc, int32_t rows,
                               gemm_shared *shared, int32_t times, To to, Addend addend = {})
{
    using passage = tile_passage<T>;
    char *tile = shared->a[0];

    IRIS_NO_UNROLL
    for (int32_t pass = 0; pass < kGemmBlock; pass += passage::kRows) {
        group_barrier(wg);
        if (Unit::template needs_care<T>(acc))
            write_tile<careful, T, Unit>(wg, acc, pass, tile, addend);
        else
            write_tile<finite, T, Unit>(wg, acc, pass, tile, addend);
        group_barrier(wg);
        IRIS_NO_UNROLL
        for (int32_t time = 0; time < times; ++time) {
            const auto visit = to(time);
            if (rows >= pass + passage::kRows)
                read_tile<true, T>(wg, passage::kRows, pass, tile, visit);
            else
                read_tile<false, T>(wg, rows - pass, pass, tile, visit);
        }
    }
}

/* The same, once. */
template <typename T, class Unit, class Visit, class Addend = no_addend>
IRIS_INLINE void for_each_tile_chunk(work_group wg, const typename Unit::accumulator &acc,
                                     int32_t rows, gemm_shared *shared, Visit visit,
                                     Addend addend = {})
{
    hand_out_tile<T, Unit>(wg, acc, rows, shared, 1, [&](int32_t) { return visit; }, addend);
}

} // namespace iris

#endif
