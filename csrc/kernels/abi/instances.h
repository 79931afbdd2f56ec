/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a kernel is named between host and device: by a number made of its operation, variant and
 * dtype, the key of a row of instances.def.
 */
#ifndef IRIS_INSTANCES_H
#define IRIS_INSTANCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

#define IRIS_KERNEL_ID(operation, variant, dtype)                                                  \
    (((uint32_t)(operation) * IRIS_VARIANT_COUNT + (uint32_t)(variant)) * IRIS_ROW_DTYPE_COUNT +   \
     (uint32_t)(dtype))
#define IRIS_KERNEL_COUNT IRIS_KERNEL_ID(IRIS_OP_COUNT, 0, 0)

/* The form DECODE of all products of a dtype: see instances.def. */
static inline uint32_t iris_decode_kernel(enum iris_dtype dtype)
{
    return IRIS_KERNEL_ID(IRIS_OP_MATMUL_ALL_REDUCE, IRIS_VARIANT_LL, dtype);
}

#ifdef __cplusplus
extern "C" {
#endif

/* A kernel compiled for the host: runs one work-group on the calling thread. */
typedef void (*iris_host_kernel)(const void *args, int32_t index, int32_t count, char *scratch);

/* NULL: instances.def has no such row, or for the second none that has a traced twin. */
iris_host_kernel iris_host_kernel_find(uint32_t kernel_id);
iris_host_kernel iris_host_traced_kernel_find(uint32_t kernel_id);

/* Scratch bytes that a work-group of a host kernel needs; K 0 for kernels without a product.
 * scaled: of float8 operands. */
size_t iris_host_scratch_nbytes(int32_t block_m, int32_t block_n, int64_t K, bool scaled);

#ifdef __cplusplus
}
#endif

#endif
