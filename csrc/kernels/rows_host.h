/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Rows of contiguous elements between fp32 and a storage dtype: what the tile verbs of the host
 * are made of. Vectorised for the instruction set that iris_gemm_isa names.
 */
#ifndef IRIS_ROWS_HOST_H
#define IRIS_ROWS_HOST_H

#include <stdint.h>

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

struct iris_row_ops {
    /* out[i] = row[i] */
    void (*load)(float *out, const void *row, int64_t n);
    /* out[i] += row[i] */
    void (*add)(float *out, const void *row, int64_t n);
    /* row[i] = in[i], rounded to nearest, ties to even; NaN stays NaN */
    void (*store)(void *row, const float *in, int64_t n);
};

/* dtype: F32, F16 or BF16. */
const struct iris_row_ops *iris_row_ops_for(enum iris_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
