/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Float8 values on the host.
 */
#ifndef IRIS_FLOAT8_HOST_H
#define IRIS_FLOAT8_HOST_H

#include <stdint.h>

#include "kernels/abi/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The values of a format that is IRIS_IS_FLOAT8, by their bits: 256 of them. */
const float *iris_float8_values(enum iris_dtype dtype);

/* The largest finite one. */
float iris_float8_largest(enum iris_dtype dtype);

/* out[i] = in[i], rounded to nearest, ties to even; what is too large, infinities too, becomes the
 * largest finite value of its sign, NaN stays NaN. */
void iris_float8_store(enum iris_dtype dtype, uint8_t *out, const float *in, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
