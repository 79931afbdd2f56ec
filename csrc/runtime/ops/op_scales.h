/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Dtypes of products, and the scales of float8 operands: checks, and how kernels are told of them.
 */
#ifndef IRIS_OP_SCALES_H
#define IRIS_OP_SCALES_H

#include "op_desc.h"
#include "runtime/context.h"

/* The dtypes of C = A @ B: one for all; or float8 formats that the chip's products take for A and
 * B, and another for C. */
enum iris_status iris_check_product_dtypes(const struct iris_context *ctx, const char *name_of_A,
                                           const struct iris_tensor *C, const struct iris_tensor *A,
                                           const struct iris_tensor *B);

/* Fills in the dtypes of `desc`, whose shapes are known, and the kinds of the scales, which are
 * checked; of other operands that there are none. */
enum iris_status iris_describe_scales(const struct iris_context *ctx, const char *name_of_A,
                                      const struct iris_tensor *C, const struct iris_tensor *A,
                                      const struct iris_tensor *B,
                                      const struct iris_op_options *options,
                                      struct iris_op_desc *desc);

/* What kernels are told of them; after iris_product_depth. */
struct iris_scaling iris_scaling_of(const struct iris_context *ctx,
                                    const struct iris_op_options *options,
                                    const struct iris_op_desc *desc);

#endif
