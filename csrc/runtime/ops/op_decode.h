/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Fused products in the form DECODE.
 */
#ifndef IRIS_OP_DECODE_H
#define IRIS_OP_DECODE_H

#include "op_desc.h"
#include "runtime/context.h"

/* Runs a product that has been found to have the form DECODE, on up to `work_groups`. `product` has
 * its bias and scales. */
enum iris_status iris_run_decode(struct iris_context *ctx, const struct iris_op_desc *desc,
                                 const struct iris_tensor *C, const struct iris_tensor *A,
                                 const struct iris_tensor *B,
                                 const struct iris_product_args *product, uint32_t work_groups,
                                 const struct iris_op_options *options);

#endif
