/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Stages that go from memory to LDS without registers between, where 16 bytes a lane can (gfx950).
 * A stage is 128 bytes of K of both operands; four of them lie in LDS, of which one is multiplied
 * while three are on their way.
 *
 * One load of a wave fills 1024 bytes of LDS in the order of its lanes, which leaves no room for
 * padding. So that reading meets no bank twice, the chunks of a row are exchanged among themselves
 * (`exchanged`); a lane loads the chunk that belongs into its place. An operand lies in LDS as it
 * does in memory:
 *
 * Of runs along K a row is 128 bytes of K, and a lane reads 16 bytes of its row.
 *
 * Of runs along M or N a row is one k, and LDS transposes as it is read: each of 16 lanes gives the
 * address of 8 bytes, so that together they name some rows of 16 elements, and receives a column of
 * those. Elements of 16 bits are four rows, elements of 8 bits eight.
 */
#ifndef IRIS_DIRECT_CDNA_H
#define IRIS_DIRECT_CDNA_H

#include "kernels/gpu/gemm_block.h"

namespace iris
{

constexpr int32_t kDirectRowBytes = 128;
constexpr int32_t kDirectOperandBytes = kGemmBlock * kDirectRowBytes;
constexpr int32_t kDirectStageBytes = 2 * kDirectOperandBytes;
constexpr int32_t kDirectStages = 4;
/* Loads of a wave for one operand of a stage. */
constexpr int32_t kDirectLoads = kDirectOperandBytes / (kGemmThreads * kChunkBytes);
static_assert(kDirectStages * kDirectStageBytes == kDirectBytes, "what gemm_shared has room for");

/* How the rows of an operand lie in a stage. */
template <typename T, bool kMn> struct direct_rows {
    static constexpr int32_t kBytes = kMn ? kGemmBlock * (int32_t)sizeof(T) : kDirectRowBytes;
    static constexpr int32_t kChunks = kBytes / kChunkBytes;

    /* The place of a row's chunk, and the chunk of a place. */
    static IRIS_INLINE constexpr int32_t exchanged(int32_t row, int32_t chunk)
    {
        return chunk ^ (kMn ? row * (int32_t)sizeof(T) / 2 % 4 * (kChunks / 4) : row / 2 % 8);
    }
};

/* Where LDS has a pointer's byte. */
IRIS_INLINE uint32_t lds_offset(const char *place)
{
    return (uint32_t)reinterpret_cast<uintptr_t>(
        (const __attribute__((address_space(3))) char *)place);
}

/* 16 bytes of each lane, from `offset` bytes behind a uniform address, to LDS from ring + part on.
 * The compiler does not know the instruction, so that it does not wait for it; and uses m0 for
 * nothing else here. */
IRIS_INLINE void load_to_lds(uint32_t ring, uint32_t part, uint64_t base, uint32_t offset)
{
    asm volatile("s_add_u32 m0, %0, %1\n\ts_nop 0\n\tglobal_load_lds_dwordx4 %2, %3" ::"s"(ring),
                 "s"(part), "v"(offset), "s"(base)
                 : "scc");
}

/* At most kCount of this wave's accesses to memory are under way. */
template <int kCount> IRIS_INLINE void wait_for_loads()
{
    asm volatile("s_waitcnt vmcnt(%0)" ::"n"(kCount) : "memory");
}

/* 8 bytes of each lane, transposed among each 16. */
template <typename T> IRIS_INLINE uint64_t read_transposed(const char *place)
{
    if constexpr (sizeof(T) == 2) {
        typedef short shorts4 __attribute__((ext_vector_type(4)));
        const auto from = (__attribute__((address_space(3))) shorts4 *)place;
        return __builtin_bit_cast(uint64_t, __builtin_amdgcn_ds_read_tr16_b64_v4i16(from));
    } else {
        typedef int ints2 __attribute__((ext_vector_type(2)));
        const auto from = (__attribute__((address_space(3))) ints2 *)place;
        return __builtin_bit_cast(uint64_t, __builtin_amdgcn_ds_read_tr8_b64_v2i32(from));
    }
}

/* One operand: loads its stages, and reads of them what the lanes multiply. Rows or columns that
 * the tile lacks are copies of its last ones. */
template <typename T, bool kMn> class direct_operand
{
    using rows = direct_rows<T, kMn>;

  public:
    /* `place`: of the operand in the first stage; the wave multiplies 64 rows or columns from
     * `first` on. */
    IRIS_INLINE direct_operand(const tile_operand<T> &operand, const char *place, int32_t first,
                               int32_t thread)
        : address_(operand.run_address()),
          advance_(operand.template run_advance<kMn>(kDirectRowBytes)),
          wave_place_(
              (uint32_t)uniform(lds_offset(place) + (uint32_t)(thread / 64 * 64 * kChunkBytes)))
    {
        const int32_t row = thread / rows::kChunks;
        const int32_t chunk = rows::exchanged(row, thread % rows::kChunks) * kChunk<T>;
#pragma unroll
        for (int32_t i = 0; i < kDirectLoads; ++i) {
            const int32_t row_i = row + kGemmThreads / rows::kChunks * i;
            offset_[i] = operand.template run_offset<kMn>(kMn ? chunk : row_i, kMn ? row_i : chunk);
        }
#pragma unroll
        for (int32_t i = 0; i < kReads; ++i)
            read_[i] = place + (kMn ? across(first + 32 * i, thread % 64)
                                    : along(first, 2 * i, thread % 64));
        /* What accesses memory needs 5 wait states behind a vector instruction that writes its
         * scalar base; the compiler, which does not know the loads, leaves them out. */
        asm volatile("s_nop 4" : "+s"(address_));
    }

    /* The i-th part of a stage, for the stage that begins at `stage` of the ring. */
    IRIS_INLINE void load(uint32_t stage, int32_t i) const
    {
        load_to_lds(stage, wave_place_ + (uint32_t)(i * kGemmThreads * kChunkBytes), address_,
                    offset_[i]);
    }

    IRIS_INLINE void advance(bool more)
    {
        address_ += more ? advance_ : 0;
    }

    /* Two times 32 rows or columns, by the k-th 32 bytes of K of the stage `from` bytes behind the
     * one that is reached: each half of the wave has 16 bytes of them. */
    IRIS_INLINE void read(chunk16 (&to)[2], int32_t k, int32_t from) const
    {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
            if constexpr (kMn) {
                struct pair {
                    uint64_t half[2];
                };
                const char *place = read_[i] + from + k * (kDirectOperandBytes / 4);
                to[i] = __builtin_bit_cast(chunk16,
                                           pair{{read_transposed<T>(place),
                                                 read_transposed<T>(place + kTransposedBytes)}});
            } else {
                to[i] = read_chunk(read_[k] + from + 32 * i * kDirectRowBytes);
            }
        }
    }

    /* Reaches stages that lie so far behind. */
    IRIS_INLINE void reach(int32_t distance)
    {
#pragma unroll
        for (int32_t i = 0; i < kReads; ++i)
            read_[i] += distance;
    }

  private:
    static constexpr int32_t kReads = kMn ? 2 : 4; /* addresses */
    /* The rows that 16 lanes transpose at once. */
    static constexpr int32_t kTransposedRows = 8 / (int32_t)sizeof(T);
    static constexpr int32_t kTransposedBytes = kTransposedRows * rows::kBytes;

    static IRIS_INLINE int32_t along(int32_t first, int32_t chunk, int32_t lane)
    {
        return (first + lane % 32) * rows::kBytes +
               rows::exchanged(lane % 32, chunk + lane / 32) * kChunkBytes;
    }

    /* Lanes 16 to 31 have the columns behind those of 0 to 15; the second half of the wave has the
     * k of its 16 bytes. */
    static IRIS_INLINE int32_t across(int32_t first, int32_t lane)
    {
        constexpr int32_t kLanes = 16 / kTransposedRows; /* for a row */
        const int32_t row = lane / 32 * kChunk<T> + lane % 16 / kLanes;
        const int32_t byte = (first + lane % 32 / 16 * 16) * (int32_t)sizeof(T) + lane % kLanes * 8;
        return row * rows::kBytes + rows::exchanged(row, byte / kChunkBytes) * kChunkBytes +
               byte % kChunkBytes;
    }

    uint64_t address_;
    uint32_t advance_, wave_place_;
    uint32_t offset_[kDirectLoads];
    const char *read_[kReads];
};

/* acc += `stages` >= 1 stages of both operands. Unit::multiply_half(acc, half, m) is the m-th of
 * Unit::kHalfProducts that multiply half of a stage. */
template <typename T, bool kAMn, bool kBMn, class Unit>
IRIS_INLINE void multiply_direct(work_group wg, typename Unit::accumulator &acc,
                                 const tile_operand<T> &operand_a, const tile_operand<T> &operand_b,
                                 int32_t stages, gemm_shared *shared)
{
    constexpr int32_t kReads = kDirectRowBytes / 32 / 2; /* of half a stage */
    constexpr uint32_t kRing = kDirectStages * kDirectStageBytes;
    constexpr int32_t kProducts = Unit::kHalfProducts;
    static_assert(kProducts % kDirectLoads == 0 && kReads <= kProducts, "shares of loads");
    typedef typename Unit::fragments fragments;
    direct_operand<T, kAMn> a(operand_a, shared->direct, Unit::wave_row(wg.thread), wg.thread);
    direct_operand<T, kBMn> b(operand_b, shared->direct + kDirectOperandBytes,
                              Unit::wave_col(wg.thread), wg.thread);
    uint32_t filled = 0;                      /* the ring's place that is loaded next */
    int32_t to_other = 2 * kDirectStageBytes; /* from the pair of stages that is read */
    fragments first[kReads], second[kReads];

    /* Past the last stage, the last one once more rather than a branch. */
    const auto load_all = [&](auto &operand, bool more) {
#pragma unroll
        for (int32_t i = 0; i < kDirectLoads; ++i)
            operand.load(filled, i);
        operand.advance(more);
    };
    const auto fill_next = [&] { filled = (filled + kDirectStageBytes) & (kRing - 1); };
    const auto read = [&](fragments &to, int32_t k, int32_t from) {
        a.read(to.x, k, from);
        b.read(to.y, k, from);
    };
    /* Multiplies half a stage while another half, from its k on, is read, and one operand of the
     * stage that is loaded next comes. */
    const auto half = [&](const fragments(&multiplied)[kReads], fragments(&wanted)[kReads],
                          int32_t k, int32_t from, const auto &operand) {
#pragma unroll
        for (int32_t m = 0; m < kProducts; ++m) {
            keep_order();
            Unit::multiply_half(acc, multiplied, m);
            keep_order();
            if (m < kReads)
                read(wanted[m], k + m, from);
            if (m % (kProducts / kDirectLoads) == 0)
                operand.load(filled, m / (kProducts / kDirectLoads));
        }
    };

    group_barrier(wg); /* shared memory still holds the tile before */
    for (int32_t s = 0; s < kDirectStages - 1; ++s) {
        load_all(a, stages > s + 1);
        load_all(b, stages > s + 1);
        fill_next();
    }
    load_all(a, stages > kDirectStages);
    wait_for_loads<5 * kDirectLoads>();
    group_barrier(wg);
#pragma unroll
    for (int32_t k = 0; k < kReads; ++k)
        read(first[k], k, 0);
    Unit::hold(acc);

    /* While the first half of a stage is multiplied, its second half is read, and B of the stage
     * three on is loaded; while the second half is, the first half of the next stage is read, and A
     * of the stage four on is loaded, which takes this one's place. `here`: of the two stages that
     * the addresses reach. */
    const auto stage = [&](const int32_t here) {
        keep_order();
        wait_for_lds(); /* for the first half, once */
        half(first, second, kReads, here * kDirectStageBytes, b);
        b.advance(stages > kDirectStages);
        fill_next();
        keep_order();
        /* The next stage is in LDS, and of this one everybody has read all. */
        wait_for_loads<2 * (2 * kDirectLoads)>();
        group_barrier(wg);
        if (here == 1) {
            a.reach(to_other);
            b.reach(to_other);
            to_other = -to_other;
        }
        half(second, first, 0, (here ^ 1) * kDirectStageBytes, a);
        a.advance(stages > kDirectStages + 1);
        --stages;
    };
    IRIS_NO_UNROLL
    while (stages >= 2) {
        stage(0);
        stage(1);
    }
    if (stages > 0)
        stage(0);
    wait_for_loads<0>(); /* what comes next uses the same memory */
}

} // namespace iris

#endif
