/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Float8 operands of products, and the scales that they have. A part of abi.h, whose enum
 * iris_dtype has the formats.
 */
#ifndef IRIS_SCALING_H
#define IRIS_SCALING_H

#include <stdint.h>

/* What stands for products of float8 operands whose result has this dtype, F32, F16 or BF16. */
#define IRIS_SCALED_DTYPE(result) ((enum iris_dtype)(IRIS_DTYPE_SCALED_F32 + (result)))

/* The four formats that products take with scales: a byte, of which E4M3 has four bits of exponent
 * and E5M2 five. FN and E5M2 are the Open Compute Project's, FNUZ have no negative zero. */
#define IRIS_IS_FLOAT8(dtype) ((dtype) >= IRIS_DTYPE_F8_E4M3FN && (dtype) <= IRIS_DTYPE_F8_E5M2FNUZ)
/* Of an element of an operand. */
#define IRIS_OPERAND_NBYTES(dtype) ((dtype) == IRIS_DTYPE_F32 ? 4 : IRIS_IS_FLOAT8(dtype) ? 1 : 2)
/* Sets of them: bits of a word. */
#define IRIS_FLOAT8_BIT(dtype) (1u << ((dtype) - IRIS_DTYPE_F8_E4M3FN))
#define IRIS_FLOAT8_OCP                                                                            \
    (IRIS_FLOAT8_BIT(IRIS_DTYPE_F8_E4M3FN) | IRIS_FLOAT8_BIT(IRIS_DTYPE_F8_E5M2))
#define IRIS_FLOAT8_FNUZ                                                                           \
    (IRIS_FLOAT8_BIT(IRIS_DTYPE_F8_E4M3FNUZ) | IRIS_FLOAT8_BIT(IRIS_DTYPE_F8_E5M2FNUZ))

/* How many scales a float8 operand has. A row of A is a column of B. */
enum iris_scale_kind {
    IRIS_SCALE_NONE = 0,   /* it is no float8 operand */
    IRIS_SCALE_TENSOR = 1, /* one; stride_mn and stride_k are 0 */
    IRIS_SCALE_ROW = 2,    /* one for each row; stride_k is 0 */
    IRIS_SCALE_LINE = 3,   /* one for each row and IRIS_SCALE_BLOCK of K */
    IRIS_SCALE_SQUARE = 4  /* one for IRIS_SCALE_BLOCK rows and IRIS_SCALE_BLOCK of K */
};
#define IRIS_SCALE_BLOCK_LOG2 7
#define IRIS_SCALE_BLOCK (1 << IRIS_SCALE_BLOCK_LOG2)
/* Whether an operand's scales change along K; if one's do, K is added up block by block. */
#define IRIS_SCALES_BY_BLOCKS(kind) ((kind) >= IRIS_SCALE_LINE)
#define IRIS_ANY_SCALES_BY_BLOCKS(kind_of_a, kind_of_b)                                            \
    (IRIS_SCALES_BY_BLOCKS(kind_of_a) || IRIS_SCALES_BY_BLOCKS(kind_of_b))

/* The scale of element (mn, k), mn a row of A or a column of B, is the float with the index
 * (kind SQUARE ? mn / 128 : mn) * stride_mn + (k / 128) * stride_k. Blocks are counted from the
 * beginning of the operand that the kernel is given; of a gathered operand, from each shard's. */
struct iris_scale_args {
    uint64_t address; /* of floats */
    int64_t stride_mn, stride_k;
    uint32_t kind; /* enum iris_scale_kind */
    uint32_t pad;
};

/* How float8 operands are multiplied: with s = the sum of a[m, k] * b[k, n] in fp32 over a block of
 * K, or over all of K where neither has scales by blocks, the product is the sum of
 * (s * scale_a) * scale_b. It is rounded, and added up over ranks, as one of the result's dtype is.
 */
struct iris_scaling {
    struct iris_scale_args a, b;
    uint32_t a_dtype, b_dtype; /* enum iris_dtype, IRIS_IS_FLOAT8; they may differ */
};

#endif
