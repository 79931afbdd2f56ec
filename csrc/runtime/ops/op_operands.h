/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the host side of all fused products shares: checks, the bias, descriptions of operands.
 */
#ifndef IRIS_OP_OPERANDS_H
#define IRIS_OP_OPERANDS_H

#include "op_desc.h"
#include "runtime/context.h"

struct iris_matrix_args iris_matrix_args_of(const struct iris_tensor *tensor);

/* C = A @ B: kinds, dtypes, devices and aliasing, but not yet the shapes against each other. */
enum iris_status iris_check_product(const struct iris_context *ctx, const char *name_of_A,
                                    const struct iris_tensor *C, const struct iris_tensor *A,
                                    const struct iris_tensor *B);

/* The bias as a matrix of num_rows rows and C's columns, with stride 0 where it broadcasts. */
enum iris_status iris_broadcast_bias(const struct iris_context *ctx, const struct iris_tensor *bias,
                                     const struct iris_tensor *C, int64_t num_rows,
                                     struct iris_matrix_args *out);

/* A sum over no K is one over a K of zeros, which every kernel can do: gives `desc` as many columns
 * as its operand has shards along K, and says so. iris_product_args_fill then has every element of
 * A and B be one zero. For a result with elements. */
void iris_product_depth(const struct iris_context *ctx, struct iris_op_desc *desc);

/* What the kernels of all fused products are told alike: operands, shape, tiles. */
void iris_product_args_fill(const struct iris_context *ctx, const struct iris_op_desc *desc,
                            const struct iris_config *config, const struct iris_tensor *C,
                            const struct iris_tensor *A, const struct iris_tensor *B,
                            struct iris_reduce_args *out);

/* An operand, (mn, k), or a stack of `depth` of them; sizes and strides in elements. */
struct iris_mapped_operand {
    void *data;
    enum iris_dtype dtype;
    int64_t mn, k;
    int64_t stride_mn, stride_k;
    int64_t depth, stride_depth; /* 0: no stack */
    int64_t share_mn;            /* tiles begin at multiples of the block behind those of this */
};

/* The matrix whose dimensions mn and k those are. */
struct iris_mapped_operand iris_mapped_operand_of(const struct iris_tensor *tensor, int mn, int k,
                                                  int64_t share_mn);

/* Describes it to the tensor copy engine as one with this contiguous dimension. false: there is no
 * such engine, or it cannot read the operand. Strides of dimensions of size 1 may be anything.
 * Along its contiguous dimension the engine reads from whole chunks on, else it is an illegal
 * instruction. */
bool iris_map_operand_as(const struct iris_context *ctx, const struct iris_mapped_operand *operand,
                         enum iris_tensor_map_kind kind, int32_t block_mn,
                         struct iris_tensor_map *out);

/* The same with whatever dimension is contiguous; IRIS_TENSOR_MAP_NONE: none will do. */
enum iris_tensor_map_kind iris_map_operand(const struct iris_context *ctx,
                                           const struct iris_mapped_operand *operand,
                                           int32_t block_mn, struct iris_tensor_map *out);

/* The same of a tensor's dimensions `mn` and `k`; tiles begin at multiples behind those of
 * share_mn. */
enum iris_tensor_map_kind iris_map_matrix(const struct iris_context *ctx,
                                          const struct iris_tensor *tensor, int mn, int k,
                                          int32_t block_mn, int64_t share_mn,
                                          struct iris_tensor_map *out);

#endif
