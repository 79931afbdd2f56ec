/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products of 16-bit and float8 operands on sm_90a: a persistent block of three warpgroups with
 * roles, one block on each multiprocessor.
 *
 *   loader   warp 0: asks the tensor copy engine for the stages of A and B; what the engine cannot
 *            read (odd strides, odd alignment) it loads itself, element by element
 *   storer   warp 1: hands finished panels to the bulk copy engine, which writes them to where the
 *            partial goes, on this GPU or a peer; then signals
 *   exchange warps 2 and 3: reduce partials and publish results (gpu_reduction.h) while the
 *            others compute
 *   math     warpgroups 1 and 2: 64 rows of the tile each by wgmma; their results leave through
 *            shared memory, so that the tensor cores never wait for a link
 *
 * The structure is that of ThunderKittens' and CUTLASS's Hopper kernels: a ring of stages between
 * loader and math with full and empty barriers, registers moved from the one to the other.
 *
 * Stages hold operands in the engine's 128-byte swizzle, as one of
 *     K order    rows of 64 k (128 bytes)
 *     MN order   blocks of 64 rows: for each k, 64 neighbouring rows (128 bytes)
 */
#ifndef IRIS_GEMM_SM90_H
#define IRIS_GEMM_SM90_H

#include "kernels/abi/launch_limits.h"
#include "kernels/gpu/tile_gpu.h"
#include "ptx_sm90.h"

namespace iris
{

constexpr int32_t kTileM = IRIS_SM90_BLOCK_M;
/* Columns of a tile. Wide tiles read the operands least; narrow ones let a small product spread
 * over more multiprocessors. */
constexpr int32_t kWide = IRIS_SM90_BLOCK_N, kNarrow = IRIS_SM90_NARROW_BLOCK_N;
/* K of a stage: a line of 16-bit elements; of float8 it has twice as many. */
constexpr int32_t kTileK = IRIS_SM90_BLOCK_K;
template <typename T> constexpr int32_t kStageK = IRIS_SM90_BLOCK_K_BYTES / (int32_t)sizeof(T);
constexpr int32_t kStages = IRIS_SM90_STAGES;
constexpr int32_t kSwizzleCols = 64; /* 16-bit elements of a 128-byte line */
constexpr int32_t kLineBytes = IRIS_SM90_BLOCK_K_BYTES;
constexpr int32_t kGroupThreads = 128; /* of a warpgroup */
constexpr int32_t kElementLoaders = 32;
constexpr int32_t kExchangeThreads = 64;
/* A part of the tile, what one math warpgroup computes, leaves in panels of one line's width. */
constexpr int32_t kPartRows = kTileM / IRIS_SM90_PARTS;
template <int32_t kTileN> constexpr int32_t kPanels = kTileN / kSwizzleCols;
constexpr int32_t kPanelBytes = kPartRows * kLineBytes;
/* Slots of the ring of fetched partials, at most: see fetch_sm90.h. */
constexpr int32_t kFetchSlots = 8;

/* Hardware barriers; 0 is the block's. Two of each between the storer and the math warpgroups, that
 * of warpgroup `part` at + part, so that they take turns. */
enum { kPartFree = 1, kPartFull = 3, kExchangeBarrier = 5 };

/* Dynamic shared memory. */
struct sm90_shared {
    alignas(1024) char a[kStages][kTileM * kLineBytes];
    alignas(1024) char b[kStages][kWide * kLineBytes];
    /* Half of the tile, rounded; or, where partials are fetched, the ring of those. */
    alignas(1024) char part[kPanels<kWide> * kPanelBytes];
    mbarrier full[kStages];
    mbarrier empty[kStages];
    mbarrier fetched[kFetchSlots];
    uint64_t own_partials; /* where they are staged to be fetched */
    uint32_t zero;         /* see thread_found_anew */
    uint32_t half;         /* of flags and staging, for who may outlast the call; see row_scales */
    alignas(16) char exchange[768];
};
static_assert(sizeof(sm90_shared) <= IRIS_SM90_SHARED_NBYTES, "the launch asks for that much");

/* This thread's number. What is made of it the compiler cannot make before this point, and keep: it
 * does not know that what it adds is 0. */
IRIS_INLINE uint32_t thread_found_anew(const sm90_shared *shared)
{
    uint32_t zero;
    asm volatile("ld.shared.u32 %0, [%1];"
                 : "=r"(zero)
                 : "r"(shared_address(&shared->zero))
                 : "memory");
    return threadIdx.x + zero;
}

/* ---- the ring of stages ---- */

struct stage_cursor {
    int32_t stage = 0;
    uint32_t phase = 0;

    IRIS_INLINE void advance(int32_t stages = kStages)
    {
        if (++stage == stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* ---- loader ---- */

/* Asks for rows [mn, mn + kRows) of an operand, and of K what a stage has, from k on. */
template <int32_t kRows>
IRIS_INLINE void load_operand(char *stage, const iris_tensor_map *map, uint32_t kind, int32_t mn,
                              int32_t k, mbarrier *full)
{
    if (kind == IRIS_TENSOR_MAP_K) {
        copy_tensor(stage, map, k, mn, full);
        return;
    }
#pragma unroll
    for (int32_t block = 0; block < kRows / kSwizzleCols; ++block)
        copy_tensor(stage + block * kTileK * kLineBytes, map, mn + block * kSwizzleCols, k, full);
}

/* The same in a stack of matrices. */
template <int32_t kRows>
IRIS_INLINE void load_operand(char *stage, const iris_tensor_map *map, uint32_t kind, int32_t mn,
                              int32_t k, int32_t depth, mbarrier *full)
{
    if (kind == IRIS_TENSOR_MAP_K) {
        copy_tensor(stage, map, k, mn, depth, full);
        return;
    }
#pragma unroll
    for (int32_t block = 0; block < kRows / kSwizzleCols; ++block)
        copy_tensor(stage + block * kTileK * kLineBytes, map, mn + block * kSwizzleCols, k, depth,
                    full);
}

/* The same by threads, for any strides: in K order, zeros where the matrix has no element. */
template <typename T, int32_t kRows>
IRIS_INLINE void load_operand_elements(char *stage, const T *data, int64_t stride_mn,
                                       int64_t stride_k, int64_t mn_left, int64_t k_left,
                                       uint32_t thread)
{
    for (int32_t i = thread; i < kRows * 8; i += kElementLoaders) {
        const int32_t row = i / 8, chunk = i % 8;
        const int64_t left = k_left - chunk * kChunk<T>;
        const T *source = data + row * stride_mn + chunk * kChunk<T> * stride_k;
        const int32_t count = row < mn_left ? (left < kChunk<T> ? (int32_t)left : kChunk<T>) : 0;
        store_chunk(stage + row * kLineBytes + (chunk ^ (row & 7)) * kChunkBytes,
                    load_run(source, stride_k, count, false));
    }
}

/* ---- math ---- */

/* Where wgmma finds an operand: address, distance of 64-row blocks (MN order), distance of groups
 * of 8 lines, and that lines are swizzled over 128 bytes. All in units of 16 bytes. */
IRIS_INLINE uint64_t operand_descriptor(uint32_t address, uint32_t block_distance)
{
    constexpr uint64_t kGroupDistance = 8 * kLineBytes / 16, kSwizzle128 = 1;
    return (uint64_t)(address >> 4 & 0x3fff) | (uint64_t)(block_distance >> 4) << 16 |
           kGroupDistance << 32 | kSwizzle128 << 62;
}

/* 16 of K in an operand's stage, in its order. */
template <bool kMnOrder> constexpr uint32_t kSixteen = kMnOrder ? 16 * kLineBytes : 32;

#define IRIS_4_OPERANDS "%0, %1, %2, %3"
#define IRIS_8_OPERANDS "%0, %1, %2, %3, %4, %5, %6, %7"
#define IRIS_16_OPERANDS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define IRIS_32_OPERANDS                                                                           \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "        \
    "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define IRIS_48_OPERANDS                                                                           \
    IRIS_32_OPERANDS ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "    \
                     "%46, %47"
#define IRIS_4_ACCUMULATORS "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define IRIS_8_ACCUMULATORS                                                                        \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define IRIS_16_ACCUMULATORS                                                                       \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),            \
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),    \
        "+f"(d[14]), "+f"(d[15])
#define IRIS_32_ACCUMULATORS                                                                       \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),            \
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),    \
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), \
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), \
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define IRIS_48_ACCUMULATORS                                                                       \
    IRIS_32_ACCUMULATORS, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),         \
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), \
        "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define IRIS_64_OPERANDS                                                                           \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define IRIS_128_OPERANDS                                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "   \
    "%127"
#define IRIS_64_ACCUMULATORS                                                                       \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),            \
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),    \
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), \
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), \
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), \
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), \
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), \
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), \
        "+f"(d[63])
#define IRIS_128_ACCUMULATORS                                                                      \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),            \
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),    \
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), \
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), \
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), \
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), \
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), \
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), \
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), \
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), \
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), \
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), \
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]), \
        "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),          \
        "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),        \
        "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),        \
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),        \
        "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
/* Operands after the accumulators: a, b, accumulate, the orders. */
#define IRIS_DEFINE_WGMMA(type, name, n, accumulators, operands, pa, pb, pp, pi, pj)               \
    template <int kAMn, int kBMn>                                                                  \
    IRIS_INLINE void issue_wgmma_##n(type, float (&d)[n / 2], uint64_t a, uint64_t b,              \
                                     bool accumulate)                                              \
    {                                                                                              \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " pp ", 0;\n"                               \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." name "." name " {" operands \
                     "}, " pa ", " pb ", p, 1, 1, " pi ", " pj ";\n}\n"                            \
                     : accumulators                                                                \
                     : "l"(a), "l"(b), "r"((int32_t)accumulate), "n"(kAMn), "n"(kBMn));            \
    }
#define IRIS_DEFINE_WGMMAS(type, name)                                                             \
    IRIS_DEFINE_WGMMA(type, name, 8, IRIS_4_ACCUMULATORS, IRIS_4_OPERANDS, "%4", "%5", "%6", "%7", \
                      "%8")                                                                        \
    IRIS_DEFINE_WGMMA(type, name, 16, IRIS_8_ACCUMULATORS, IRIS_8_OPERANDS, "%8", "%9", "%10",     \
                      "%11", "%12")                                                                \
    IRIS_DEFINE_WGMMA(type, name, 32, IRIS_16_ACCUMULATORS, IRIS_16_OPERANDS, "%16", "%17", "%18", \
                      "%19", "%20")                                                                \
    IRIS_DEFINE_WGMMA(type, name, 64, IRIS_32_ACCUMULATORS, IRIS_32_OPERANDS, "%32", "%33", "%34", \
                      "%35", "%36")                                                                \
    IRIS_DEFINE_WGMMA(type, name, 128, IRIS_64_ACCUMULATORS, IRIS_64_OPERANDS, "%64", "%65",       \
                      "%66", "%67", "%68")                                                         \
    IRIS_DEFINE_WGMMA(type, name, 256, IRIS_128_ACCUMULATORS, IRIS_128_OPERANDS, "%128", "%129",   \
                      "%130", "%131", "%132")
IRIS_DEFINE_WGMMAS(half_t, "f16")
IRIS_DEFINE_WGMMAS(bfloat16_t, "bf16")
#undef IRIS_DEFINE_WGMMAS
#undef IRIS_DEFINE_WGMMA

/* d (64 x kN, fp32) = a (64 x 16) @ b (16 x kN) + (accumulate ? d : 0). */
template <typename T, int32_t kN, bool kAMn, bool kBMn>
IRIS_INLINE void issue_wgmma(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate)
{
    if constexpr (kN == 8)
        issue_wgmma_8<kAMn, kBMn>(T{}, d, a, b, accumulate);
    else if constexpr (kN == 16)
        issue_wgmma_16<kAMn, kBMn>(T{}, d, a, b, accumulate);
    else if constexpr (kN == 32)
        issue_wgmma_32<kAMn, kBMn>(T{}, d, a, b, accumulate);
    else if constexpr (kN == 64)
        issue_wgmma_64<kAMn, kBMn>(T{}, d, a, b, accumulate);
    else if constexpr (kN == 128)
        issue_wgmma_128<kAMn, kBMn>(T{}, d, a, b, accumulate);
    else
        issue_wgmma_256<kAMn, kBMn>(T{}, d, a, b, accumulate);
}

/* One tile's sum over K by this warpgroup, whose rows begin at 64 `half`. */
template <typename T, int32_t kTileN, bool kAMn, bool kBMn>
IRIS_INLINE void multiply_tile(float (&d)[kTileN / 2], sm90_shared *shared, stage_cursor &cursor,
                               int32_t half, int32_t steps)
{
    const bool elected = threadIdx.x % 128 == 0;
    int32_t previous = 0;

    for (int32_t step = 0; step < steps; ++step) {
        wait_mbarrier(&shared->full[cursor.stage], cursor.phase);
        /* A warpgroup's 64 rows of A are 8 KiB in either order. */
        const uint32_t a = shared_address(shared->a[cursor.stage]) + half * 64 * kLineBytes;
        const uint32_t b = shared_address(shared->b[cursor.stage]);
        wgmma_fence();
#pragma unroll
        for (int32_t k = 0; k < kTileK / 16; ++k)
            issue_wgmma<T, kTileN, kAMn, kBMn>(
                d, operand_descriptor(a + k * kSixteen<kAMn>, 0),
                operand_descriptor(b + k * kSixteen<kBMn>, kTileK * kLineBytes), step > 0 || k > 0);
        wgmma_commit();
        if (step > 0) {
            wgmma_wait<1>(); /* the step before is done with its stage */
            if (elected)
                arrive_mbarrier(&shared->empty[previous]);
        }
        previous = cursor.stage;
        cursor.advance();
    }
    wgmma_wait<0>();
    if (elected)
        arrive_mbarrier(&shared->empty[previous]);
}

/* Brings this warpgroup's part of the tile into shared memory as soon as the storer has done with
 * the other's. Layout: product_geometry with kSwizzled, which is the engines' too. `thread` is this
 * one's number. */
template <typename T, int32_t kTileN>
IRIS_INLINE void hand_over_part(const float (&d)[kTileN / 2], sm90_shared *shared, int32_t part,
                                uint32_t thread)
{
    const int32_t lane = thread % 32, warp = thread / 32 % 4;
    const int32_t row = warp * 16 + lane % 16;
    const uint32_t line = shared_address(shared->part) + row * kLineBytes;

    sync_barrier(kPartFree + part, kGroupThreads + 32);
#pragma unroll
    for (int32_t j = 0; j < kTileN / 8; j += 2) { /* chunks of 8 columns */
        const float *v = d + 4 * j;
        const int32_t chunk = j + lane / 16;
        store_matrices(line + chunk / 8 * kPanelBytes + (chunk % 8 ^ (row & 7)) * kChunkBytes,
                       pack_pair<T>(v[0], v[1]), pack_pair<T>(v[2], v[3]), pack_pair<T>(v[4], v[5]),
                       pack_pair<T>(v[6], v[7]));
    }
    fence_async_shared();
    arrive_barrier(kPartFull + part, kGroupThreads + 32);
}

} // namespace iris

#endif
