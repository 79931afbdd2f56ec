/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Rows of contiguous elements between accumulators and a storage dtype: what the tile verbs of the
 * host are made of. Vectorised for the instruction set that iris_gemm_isa names.
 */
#ifndef IRIS_ROWS_HOST_H
#define IRIS_ROWS_HOST_H

#include <stdint.h>

#include "kernels/abi/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Accumulators are float for floating point of up to 32 bits, int32_t for bytes, else of the dtype
 * itself. */
struct iris_row_ops {
    /* out[i] = row[i] */
    void (*load)(void *out, const void *row, int64_t n);
    /* out[i] = out[i] op row[i]; enum iris_reduce_op, AVG like SUM */
    void (*reduce)(void *out, const void *row, int64_t n, uint32_t op);
    /* row[i] = in[i], rounded to nearest, ties to even; NaN stays NaN */
    void (*store)(void *row, const void *in, int64_t n);
};

/* dtype: F32, F16, BF16, F64, I8, I32, I64 or U8. */
const struct iris_row_ops *iris_row_ops_for(enum iris_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
