/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Float8 values on the host.
 */
#ifndef IRIS_FLOAT8_HOST_H
#define IRIS_FLOAT8_HOST_H

#include "kernels/abi/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The values of a format that is IRIS_IS_FLOAT8, by their bits: 256 of them. */
const float *iris_float8_values(enum iris_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
