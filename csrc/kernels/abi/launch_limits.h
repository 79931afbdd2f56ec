/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The shape of GPU launches, for the host that launches and for the kernels: threads of a block,
 * dynamic shared memory, and the tile of a matrix product, which a GPU kernel has built in.
 */
#ifndef IRIS_LAUNCH_LIMITS_H
#define IRIS_LAUNCH_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"

/* Most kernels; the tensor-core products of sm_90a, and the rows of all_reduce_rmsnorm, where a
 * thread has few words to wait for, have more. */
#define IRIS_GPU_THREADS 256
#define IRIS_ROW_THREADS 512

/* An owner's run of a plain reduction is reduced by so many work-groups: a rank owns only one run
 * in world_size. */
#define IRIS_RUN_PIECES 4

/* Words of a call by packets that go together: a wave's, or two warps'. A small call has a
 * work-group for each. */
#define IRIS_PACKET_RUN 64

/* Products by plain threads (sm_90a, fp32) or by the matrix units of gfx: 128 x 128 outputs, 64
 * bytes of K at a time. */
#define IRIS_GEMM_BLOCK_M 128
#define IRIS_GEMM_BLOCK_N 128
#define IRIS_GEMM_BLOCK_K_BYTES 64

/* float8, fp16 and bf16 products on sm_90a: see gemm_sm90.h. BLOCK_K is of 16-bit elements. */
#define IRIS_SM90_THREADS 384
#define IRIS_SM90_BLOCK_M 128
#define IRIS_SM90_BLOCK_N 256
#define IRIS_SM90_NARROW_BLOCK_N 128
#define IRIS_SM90_BLOCK_K_BYTES 128
#define IRIS_SM90_BLOCK_K (IRIS_SM90_BLOCK_K_BYTES / 2)
#define IRIS_SM90_STAGES 4
#define IRIS_SM90_PARTS 2
#define IRIS_SM90_SHARED_NBYTES                                                                    \
    (IRIS_SM90_STAGES * (IRIS_SM90_BLOCK_M + IRIS_SM90_BLOCK_N) * IRIS_SM90_BLOCK_K_BYTES +        \
     IRIS_SM90_BLOCK_M * IRIS_SM90_BLOCK_N + 1024)

/* Products of few rows on sm_90a, see decode_sm90.h: all the shared memory that a block can have.
 */
#define IRIS_DECODE_SHARED_NBYTES 232448
/* Blocks that share a tile's K, and rows of a product up to which they can: their partial sums take
 * shared memory from the ring of stages. */
#define IRIS_DECODE_MAX_SPLITS 4
#define IRIS_DECODE_MAX_SPLIT_ROWS 128

/* Gathered products of sm_90a: where narrow tiles are so few that two work-groups are there for
 * each, and K is long, the two share a tile's K, steps of it in turn. The first hands its sums over
 * in memory, behind the staged shards: fp32, those of each math warpgroup apart, with a flag each
 * behind the units'. */
#define IRIS_K_SPLITS 2
#define IRIS_K_SPLIT_MAX_TILES 66
#define IRIS_K_SPLIT_MIN_STEPS 32
#define IRIS_K_SPLIT_FLAGS(tiles) ((tiles) * IRIS_SM90_PARTS)
#define IRIS_K_SPLIT_NBYTES(tiles) ((tiles) * IRIS_SM90_BLOCK_M * IRIS_SM90_NARROW_BLOCK_N * 4)

/* The tile of a product on a GPU; narrow_n is n where there is one width only. */
struct iris_gpu_tiles {
    int32_t m, n, narrow_n, k;
};

/* As expressions, for compile time too, where a kernel can call no function of the host. */
#define IRIS_IS_TENSOR_CORE_PRODUCT(sm90, operation, dtype)                                        \
    ((sm90) && IRIS_IS_PRODUCT(operation) && (dtype) != IRIS_DTYPE_F32)
/* Threads of a kernel's group, and of its block, in which a tensor-core product has more groups. */
#define IRIS_GROUP_THREADS(operation)                                                              \
    ((operation) == IRIS_OP_ALL_REDUCE_RMSNORM ? IRIS_ROW_THREADS : IRIS_GPU_THREADS)
#define IRIS_BLOCK_THREADS(sm90, operation, dtype)                                                 \
    (IRIS_IS_TENSOR_CORE_PRODUCT(sm90, operation, dtype) ? IRIS_SM90_THREADS                       \
                                                         : IRIS_GROUP_THREADS(operation))

/* Kernels that are all latency, which on sm_90a are put in place while the one before them on the
 * stream still runs (programmatic dependent launch). They touch no memory before it is complete,
 * and let the next one come as soon as that is so. */
#define IRIS_BEGINS_EARLY(sm90, variant)                                                           \
    ((sm90) && ((variant) == IRIS_VARIANT_LL || (variant) == IRIS_VARIANT_LL_TWO_SHOT))

static inline bool iris_is_tensor_core_product(bool sm90, uint32_t operation, enum iris_dtype dtype)
{
    return IRIS_IS_TENSOR_CORE_PRODUCT(sm90, operation, dtype);
}

/* See struct iris_reduce_layout. */
static inline int32_t iris_gpu_parts_of(bool sm90, uint32_t operation, enum iris_dtype dtype)
{
    return iris_is_tensor_core_product(sm90, operation, dtype) ? IRIS_SM90_PARTS : 1;
}

static inline struct iris_gpu_tiles iris_gpu_tiles_of(bool sm90, uint32_t operation,
                                                      enum iris_dtype dtype)
{
    const int32_t element = IRIS_OPERAND_NBYTES(dtype);
    struct iris_gpu_tiles tiles = {IRIS_GEMM_BLOCK_M, IRIS_GEMM_BLOCK_N, IRIS_GEMM_BLOCK_N,
                                   IRIS_GEMM_BLOCK_K_BYTES / element};

    if (iris_is_tensor_core_product(sm90, operation, dtype)) {
        tiles.m = IRIS_SM90_BLOCK_M;
        tiles.n = IRIS_SM90_BLOCK_N;
        tiles.narrow_n = IRIS_SM90_NARROW_BLOCK_N;
        tiles.k = IRIS_SM90_BLOCK_K_BYTES / element;
    }
    return tiles;
}

#endif
