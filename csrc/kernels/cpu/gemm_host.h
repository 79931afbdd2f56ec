/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The matrix product behind tile_gemm on the host: fp32 arithmetic by a register-blocked
 * micro-kernel over packed panels, chosen at run time for AVX-512, AVX2 or plain C. fp16, bf16
 * and float8 operands are widened while they are packed.
 */
#ifndef IRIS_GEMM_HOST_H
#define IRIS_GEMM_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/abi/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Packing buffers, and what they hold: laid over the caller's memory by iris_gemm_scratch_init. */
struct iris_gemm_scratch;

/* Bytes that iris_gemm_scratch_init needs for tiles of block_m x block_n of products with inner
 * dimension K. Multiple of 64. */
size_t iris_gemm_scratch_nbytes(int32_t block_m, int32_t block_n, int64_t K);

/* Prepares `memory` (64-byte aligned). The scratch remembers packed panels of one pair of matrices
 * whose contents must not change meanwhile: initialise it anew for each launch. Fast. */
struct iris_gemm_scratch *iris_gemm_scratch_init(void *memory, int32_t block_m, int32_t block_n,
                                                 int64_t K);

/* One operand: element (i, j) at address + (i * stride_row + j * stride_col) * element size. */
struct iris_gemm_operand {
    const void *address;
    int64_t stride_row;
    int64_t stride_col;
    enum iris_dtype dtype; /* F32, F16, BF16, or one that is IRIS_IS_FLOAT8 */
};

/* out[i * ld + j] = sum over k of A(m0 + i, k) * B(k, n0 + j), for i < rows, j < cols, where
 * rows <= block_m and cols <= block_n of the scratch, and K is at most the scratch's. out is fp32,
 * row-major, ld >= cols; it may have any alignment. Each element is summed over k in an order that
 * depends on K alone, so equal inputs give equal bits whatever the tiling. Consecutive calls on one
 * scratch with equal B and n0 reuse B's packed panel, calls with equal A and m0 A's, with a short K
 * also if there were others in between. */
void iris_gemm_tile(struct iris_gemm_scratch *scratch, const struct iris_gemm_operand *A,
                    const struct iris_gemm_operand *B, int64_t m0, int64_t n0, int32_t rows,
                    int32_t cols, int64_t K, float *out, int64_t ld);

/* The instruction set in use: "avx512", "avx2", "generic". IRIS_C_CPU_ISA overrides (lower only).
 */
const char *iris_gemm_isa(void);

#ifdef __cplusplus
}
#endif

#endif
