/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Stages that go from memory to LDS without registers between, where 16 bytes a lane can (gfx950):
 * of operands whose runs lie along K. A stage is 128 bytes of K of both operands; four of them lie
 * in LDS, of which one is multiplied while three are on their way.
 *
 * One load of a wave fills 1024 bytes of LDS in the order of its lanes: eight rows of a stage,
 * which leaves no room for padding. So that reading 16 bytes of 32 rows meets no bank twice, the
 * chunks of a row are exchanged among themselves: chunk c of row r lies in place c ^ (r / 2 mod 8).
 * A lane loads the chunk that belongs into its place.
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

IRIS_INLINE constexpr int32_t exchanged(int32_t row, int32_t chunk)
{
    return chunk ^ (row / 2 & 7);
}

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

/* All of this wave's accesses to LDS are complete. A word that the compiler knows, so that it waits
 * for none of them again. */
IRIS_INLINE void wait_for_lds()
{
    constexpr int32_t kOfLdsAlone = 0xc07f; /* vmcnt(63) expcnt(7) lgkmcnt(0) */
    __builtin_amdgcn_s_waitcnt(kOfLdsAlone);
}

/* Loads stage after stage of one operand. Rows that the tile lacks are copies of its last. */
template <typename T> class direct_loader
{
  public:
    IRIS_INLINE direct_loader(const tile_operand<T> &operand, int32_t thread)
        : address_(operand.run_address())
    {
        const int32_t row = thread / 8;
        for (int32_t i = 0; i < kDirectLoads; ++i)
            offset_[i] = operand.run_offset(row + kGemmThreads / 8 * i) +
                         (uint32_t)(exchanged(row, thread % 8) * kChunkBytes);
    }

    /* The i-th part of the operand, whose first one lies at `place` of a stage, for this wave. */
    IRIS_INLINE void load(uint32_t stage, uint32_t place, int32_t i) const
    {
        load_to_lds(stage, place + (uint32_t)(i * kGemmThreads * kChunkBytes), address_,
                    offset_[i]);
    }

    IRIS_INLINE void advance(bool more)
    {
        address_ += more ? kDirectRowBytes : 0;
    }

  private:
    uint64_t address_;
    uint32_t offset_[kDirectLoads];
};

/* acc += `stages` >= 1 stages of both operands. Unit::multiply_half(acc, half, m) is the m-th of
 * Unit::kHalfProducts that multiply half of a stage. */
template <typename T, class Unit>
IRIS_INLINE void multiply_direct(work_group wg, typename Unit::accumulator &acc,
                                 const tile_operand<T> &operand_a, const tile_operand<T> &operand_b,
                                 int32_t stages, gemm_shared *shared)
{
    constexpr int32_t kHalves = 2, kReads = kDirectRowBytes / 32 / kHalves;
    constexpr uint32_t kRing = kDirectStages * kDirectStageBytes;
    constexpr int32_t kProducts = Unit::kHalfProducts;
    static_assert(2 * kDirectLoads % kProducts == 0 && kReads <= kProducts, "shares of loads");
    typedef typename Unit::fragments fragments;
    const int32_t lane = wg.thread % 64;
    direct_loader<T> a(operand_a, wg.thread), b(operand_b, wg.thread);
    const uint32_t wave_part = (uint32_t)uniform(lds_offset(shared->direct) +
                                                 (uint32_t)(wg.thread / 64 * 64 * kChunkBytes));
    uint32_t filled = 0;                      /* the ring's place that is loaded next */
    int32_t to_other = 2 * kDirectStageBytes; /* from the pair of stages that is read */
    const char *read_a[2 * kReads], *read_b[2 * kReads];
    fragments first[kReads], second[kReads];

    for (int32_t k = 0; k < 2 * kReads; ++k) {
        const int32_t chunk = exchanged(lane % 32, 2 * k + lane / 32) * kChunkBytes;
        read_a[k] =
            shared->direct + (Unit::wave_row(wg.thread) + lane % 32) * kDirectRowBytes + chunk;
        read_b[k] = shared->direct + kDirectOperandBytes +
                    (Unit::wave_col(wg.thread) + lane % 32) * kDirectRowBytes + chunk;
    }
    const auto load_one = [&](int32_t i) {
        if (i < kDirectLoads)
            a.load(filled, wave_part, i);
        else
            b.load(filled, wave_part + kDirectOperandBytes, i - kDirectLoads);
    };
    /* The m-th of as many shares of a stage's loads as a half has products. */
    const auto load_share = [&](int32_t m) {
#pragma unroll
        for (int32_t i = 0; i < 2 * kDirectLoads / kProducts; ++i)
            load_one(m * (2 * kDirectLoads / kProducts) + i);
    };
    /* Past the last stage, the last one once more rather than a branch. */
    const auto loaded = [&](bool more) {
        a.advance(more);
        b.advance(more);
        filled = (filled + kDirectStageBytes) & (kRing - 1);
    };
    const auto read = [&](fragments &to, int32_t k, int32_t from) {
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
            to.x[i] =
                *reinterpret_cast<const chunk16 *>(read_a[k] + from + 32 * i * kDirectRowBytes);
            to.y[i] =
                *reinterpret_cast<const chunk16 *>(read_b[k] + from + 32 * i * kDirectRowBytes);
        }
    };

    group_barrier(wg); /* shared memory still holds the tile before */
    for (int32_t s = 0; s < kDirectStages - 1; ++s) {
#pragma unroll
        for (int32_t i = 0; i < 2 * kDirectLoads; ++i)
            load_one(i);
        loaded(stages > s + 1);
    }
    wait_for_loads<2 * (2 * kDirectLoads)>();
    group_barrier(wg);
#pragma unroll
    for (int32_t k = 0; k < kReads; ++k)
        read(first[k], k, 0);
    Unit::hold(acc);

    /* While a half of a stage is multiplied, the other half, or the first one of the next stage, is
     * read, and the stage three on is loaded. `here`: of the two stages that the addresses reach.
     */
    const auto stage = [&](const int32_t here) {
        keep_order();
        wait_for_lds(); /* for the first half, once */
#pragma unroll
        for (int32_t m = 0; m < kProducts; ++m) {
            keep_order();
            Unit::multiply_half(acc, first, m);
            keep_order();
            if (m < kReads)
                read(second[m], kReads + m, here * kDirectStageBytes);
            load_share(m);
        }
        loaded(stages > kDirectStages);
        keep_order();
        /* The next stage is in LDS, and of this one everybody has read all. */
        wait_for_loads<2 * (2 * kDirectLoads)>();
        group_barrier(wg);
        if (here == 1)
            for (int32_t k = 0; k < 2 * kReads; ++k) {
                read_a[k] += to_other;
                read_b[k] += to_other;
            }
        to_other = here == 1 ? -to_other : to_other;
#pragma unroll
        for (int32_t m = 0; m < kProducts; ++m) {
            keep_order();
            Unit::multiply_half(acc, second, m);
            keep_order();
            if (m < kReads)
                read(first[m], m, (here ^ 1) * kDirectStageBytes);
        }
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
