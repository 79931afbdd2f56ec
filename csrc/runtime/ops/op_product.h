/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A product of one rank by itself, a step of a call in the form "plain": by the library of the
 * device's vendor where all ranks have it and it can take the operands, else by the package's own
 * kernel, as a call of a world of one rank.
 */
#ifndef IRIS_OP_PRODUCT_H
#define IRIS_OP_PRODUCT_H

#include "op_desc.h"
#include "runtime/memory/storage_layout.h"

/* D = A @ B + bias; `batch` of them with one A, whose B and D lie so many elements apart. 2-D. */
struct iris_product_step {
    struct iris_tensor D, A, B;
    struct iris_matrix_args bias; /* address 0: none */
    struct iris_scaling scaling;  /* of float8 operands, A and the first B */
    int batch;
    int64_t step_B, step_D;
    const struct iris_op_desc *desc; /* iris_op_desc_product of the call */
    const struct iris_config *config;
    const struct iris_call_args *call; /* of the call's collective, filled */
    uint32_t work_groups;
    void *stream;
};

/* Launches it. On a synchronous device it is done on return, unless *completed is false: then the
 * rank's abort word is set. */
enum iris_status iris_product_run(struct iris_context *ctx, struct iris_storage *storage,
                                  const struct iris_product_step *step, bool *completed);

/* By the library alone, if it can. */
enum iris_status iris_product_try(struct iris_context *ctx, const struct iris_storage *storage,
                                  const struct iris_product_step *step);

/* Allocates what the vendor's library would like to work in. Want of memory is no error: the
 * library does without. Not while a graph is captured. */
void iris_product_prepare(struct iris_context *ctx, struct iris_storage *storage);

#endif
