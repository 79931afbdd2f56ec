/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * bfloat16 products on the tile unit (Intel AMX) of processors that have one: packing and
 * multiplying of one block of K, for gemm_host.cpp.
 *
 * Packed A: panels of 32 rows; of each, for every 32 of k, two tiles of 16 rows x 32 k. Packed B:
 * panels of 32 columns; of each, for every 32 of k, two tiles of 16 pairs of k x 16 columns, the
 * elements of a pair side by side. Missing rows, columns and k are zeros.
 *
 * The unit adds in fp32, in order of k, and takes subnormal bfloat16 numbers for zeros.
 */
#ifndef IRIS_GEMM_HOST_AMX_H
#define IRIS_GEMM_HOST_AMX_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Extents of packed panels are multiples of this, in every direction. */
enum { IRIS_AMX_EXTENT = 32 };

/* Whether processor and kernel let this process use the unit. Asks the kernel the first time. */
bool iris_amx_usable(void);

/* Strides in elements of two bytes; `out` has room for the extents rounded up. */
void iris_amx_pack_a(const char *address, int64_t stride_row, int64_t stride_col, int32_t rows,
                     int64_t kc, uint16_t *out);
void iris_amx_pack_b(const char *address, int64_t stride_row, int64_t stride_col, int32_t cols,
                     int64_t kc, uint16_t *out);

/* out = (or += if add_to_out) packed A times packed B. */
void iris_amx_multiply(const uint16_t *a, const uint16_t *b, int32_t rows, int32_t cols, int64_t kc,
                       float *out, int64_t ld, bool add_to_out);

#ifdef __cplusplus
}
#endif

#endif
