/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Products in the form "plain": a product and a collective, one after the other, in one call.
 */
#ifndef IRIS_OP_PLAIN_H
#define IRIS_OP_PLAIN_H

#include "op_desc.h"
#include "runtime/context.h"

/* Of a fused product, checked against each other; of a gathered one A is the shard. */
struct iris_plain_tensors {
    const struct iris_tensor *C, *A, *B;
    const struct iris_tensor *joined; /* where the gathered operand is wanted; NULL: nowhere */
    struct iris_matrix_args bias;     /* address 0: none; strides 0 broadcast */
    struct iris_scaling scaling;      /* of float8 operands */
};

/* Runs the call, or prepares it; `desc` and `work_groups` as iris_op_select has filled them. */
enum iris_status iris_plain_run(struct iris_context *ctx, struct iris_op_desc *desc,
                                const struct iris_plain_tensors *tensors, uint32_t work_groups,
                                const struct iris_op_options *options);

#endif
