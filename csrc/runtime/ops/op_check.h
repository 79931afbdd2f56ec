/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Checks of callers' tensors. All return IRIS_EINVAL with a message that names the argument, what
 * it was and what was expected.
 */
#ifndef IRIS_OP_CHECK_H
#define IRIS_OP_CHECK_H

#include "runtime/context.h"

int64_t iris_tensor_numel(const struct iris_tensor *tensor);

/* In the memory that the context's kernels address. */
enum iris_status iris_check_device(const struct iris_context *ctx, const char *name,
                                   const struct iris_tensor *tensor);
enum iris_status iris_check_dtype(const char *name, const struct iris_tensor *tensor,
                                  enum iris_dtype expected, const char *expected_by);
/* One of the dtypes that kernels compute in. */
enum iris_status iris_check_reducible(const char *name, const struct iris_tensor *tensor);
enum iris_status iris_check_computable(const char *name, const struct iris_tensor *tensor);
/* 2-D; `meaning` is for the message: "(M, K)". */
enum iris_status iris_check_matrix(const char *name, const char *meaning,
                                   const struct iris_tensor *tensor);
bool iris_tensor_is_contiguous(const struct iris_tensor *tensor);
enum iris_status iris_check_contiguous(const char *name, const struct iris_tensor *tensor);
/* Writable, and no two of its elements share memory. */
enum iris_status iris_check_output(const char *name, const struct iris_tensor *tensor);
/* No element of `output` shares memory with one of `input`. */
enum iris_status iris_check_disjoint(const char *output_name, const struct iris_tensor *output,
                                     const char *input_name, const struct iris_tensor *input);

/* So many elements; `why` is for the message: "as many as input". */
enum iris_status iris_check_numel(const char *name, const struct iris_tensor *tensor,
                                  int64_t expected, const char *why);
/* What is asked of the two tensors of an operation that copies or reduces: an open context, its
 * device, one dtype, contiguous, the first one an output. One that is NULL is on other ranks. */
enum iris_status iris_check_pair(const struct iris_context *ctx, const char *output_name,
                                 const struct iris_tensor *output, const char *input_name,
                                 const struct iris_tensor *input);

/* Where `tensor` starts in this rank's heap, from the heap base; IRIS_STAGED when not all of it
 * lies where peers can write: for results that they push once they have been told the offset. */
uint64_t iris_tensor_reachable_offset(const struct iris_context *ctx,
                                      const struct iris_tensor *tensor);
/* Whether results for `tensor` may have to be staged: they are, at this offset of the above; or it
 * lies in the local arena and calls can be captured. Then the next result of its kind, in a graph
 * perhaps, which makes no room, may be one for which the arena had none. */
bool iris_may_stage(const struct iris_context *ctx, const struct iris_tensor *tensor,
                    uint64_t offset);
/* The same as the first, and IRIS_STAGED also when it is not in the symmetric heap: for what means
 * the same offset on other ranks. */
uint64_t iris_tensor_symmetric_offset(const struct iris_context *ctx,
                                      const struct iris_tensor *tensor);

#endif
