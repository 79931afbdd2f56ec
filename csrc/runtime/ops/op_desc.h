/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * An operation, described: what all ranks of a call must agree on, and what follows from it. First
 * of the three steps of a call: describe (op_desc.c), choose what the caller left open
 * (op_select.c), launch (op_launch.c).
 */
#ifndef IRIS_OP_DESC_H
#define IRIS_OP_DESC_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/abi/schedule.h"
#include "runtime/iris.h"

/* What all ranks of a call agree on: X(type, name). The signature is a hash of these fields,
 * whatever they are.
 *
 * - form: of a product; every other operation has NONE.
 * - dtype: of the tensors; of a product of float8 operands, of A alone.
 * - b_dtype, c_dtype: of such a product's other two, see iris_op_desc_result_dtype.
 * - scale_a, scale_b: of float8 operands, else NONE.
 * - no_k: the caller's K is 0, and the launch's one for each shard, see iris_product_depth.
 * - dim: along which a scattered result or a gathered operand is divided.
 * - share_m, share_n, share_k, unit_k, m_contiguous: see iris_reduce_args and iris_gather_args.
 * - overlaps: a gathered product begins before everything has arrived.
 * - pulls: in the form PLAIN, copy engines copy the shards of a gathered operand.
 * - may_split_k: a gathered product has room for what IRIS_K_SPLITS needs.
 * - k_groups: of a product in the form DECODE, see iris_decode_layout_make.
 * - prepare: a preamble; it serves every reduction, so its reduce_op is SUM.
 * - root: the rank that alone sends, or gets the result; -1: there is none.
 */
#define IRIS_OP_AGREED(X)                                                                          \
    X(enum iris_operation, operation)                                                              \
    X(enum iris_variant, variant)                                                                  \
    X(enum iris_form, form)                                                                        \
    X(enum iris_dtype, dtype)                                                                      \
    X(enum iris_dtype, b_dtype)                                                                    \
    X(enum iris_dtype, c_dtype)                                                                    \
    X(enum iris_scale_kind, scale_a)                                                               \
    X(enum iris_scale_kind, scale_b)                                                               \
    X(int64_t, M)                                                                                  \
    X(int64_t, N)                                                                                  \
    X(int64_t, K)                                                                                  \
    X(bool, no_k)                                                                                  \
    X(int32_t, dim)                                                                                \
    X(int64_t, share_m)                                                                            \
    X(int64_t, share_n)                                                                            \
    X(int64_t, share_k)                                                                            \
    X(int32_t, unit_k)                                                                             \
    X(bool, m_contiguous)                                                                          \
    X(bool, overlaps)                                                                              \
    X(bool, pulls)                                                                                 \
    X(bool, may_split_k)                                                                           \
    X(int32_t, k_groups)                                                                           \
    X(int32_t, block_m)                                                                            \
    X(int32_t, block_n)                                                                            \
    X(int32_t, block_k)                                                                            \
    X(int32_t, group_size_m)                                                                       \
    X(bool, has_bias)                                                                              \
    X(bool, prepare)                                                                               \
    X(int32_t, root)                                                                               \
    X(enum iris_reduce_op, reduce_op)

/* How a product by itself, of this rank alone, is cut where a call in the form PLAIN multiplies
 * with a kernel of the package. The tiles follow from what all ranks agree on. */
struct iris_own_product {
    int32_t block_m, block_n, block_k, group_size_m;
    int32_t gpu_parts;
    uint32_t work_groups;
};

/* What may differ between the ranks of a call. */
struct iris_op_local {
    int32_t gpu_parts;    /* see iris_reduce_layout; 0 on the cpu */
    int32_t group_rows;   /* see struct iris_gather_layout */
    int32_t fetch_groups; /* see iris_gather_args, as are the next two */
    int32_t idle_senders;
    int32_t k_splits;    /* IRIS_K_SPLITS only if may_split_k */
    bool in_place;       /* the output is the input */
    bool stages_results; /* peers push results for it, and its output may be out of their reach */
    struct iris_own_product product; /* of the form PLAIN */
};

struct iris_op_desc {
#define IRIS_OP_FIELD(type, name) type name;
    IRIS_OP_AGREED(IRIS_OP_FIELD)
#undef IRIS_OP_FIELD
    struct iris_op_local local;
};

enum { IRIS_OP_TEXT_NBYTES = 320 };

/* What callers call `root`: "src" or "dst". */
const char *iris_root_name(enum iris_operation operation);

/* One line for messages: "matmul_all_reduce(M=2, N=3, K=4, float32, two_shot, blocks 2x3x64)". */
void iris_op_desc_format(const struct iris_op_desc *desc, char text[IRIS_OP_TEXT_NBYTES]);

/* A hash of what is agreed on: ranks whose descriptions differ have different ones (nearly always).
 */
uint32_t iris_op_desc_signature(const struct iris_op_desc *desc);

/* K as the caller has it. */
static inline int64_t iris_op_desc_k(const struct iris_op_desc *desc)
{
    return desc->no_k ? 0 : desc->K;
}

static inline bool iris_op_desc_is_scaled(const struct iris_op_desc *desc)
{
    return desc->scale_a != IRIS_SCALE_NONE;
}

/* Of a result, and of what is added up or travels of it. */
static inline enum iris_dtype iris_op_desc_result_dtype(const struct iris_op_desc *desc)
{
    return iris_op_desc_is_scaled(desc) ? desc->c_dtype : desc->dtype;
}

/* Which rows of instances.def run it. */
static inline enum iris_dtype iris_op_desc_row_dtype(const struct iris_op_desc *desc)
{
    return iris_op_desc_is_scaled(desc) ? IRIS_SCALED_DTYPE(desc->c_dtype) : desc->dtype;
}

static inline bool iris_is_by_packets(enum iris_variant variant)
{
    return variant == IRIS_VARIANT_LL || variant == IRIS_VARIANT_LL_TWO_SHOT;
}

/* What a call by packets exchanges. */
struct iris_packet_layout iris_op_desc_packets(const struct iris_op_desc *desc, int world_size);

/* How the gathered operand of an IRIS_IS_GATHERED_PRODUCT is staged. */
struct iris_gather_layout iris_op_desc_gather(const struct iris_op_desc *desc, int world_size);

/* Its tiles. */
struct iris_gather_schedule iris_op_desc_gather_schedule(const struct iris_op_desc *desc,
                                                         int world_size);

/* How the packets of a product in the form DECODE lie. */
struct iris_decode_layout iris_op_desc_decode(const struct iris_op_desc *desc, int world_size);

/* A call in the form PLAIN as the two that it consists of: what goes on between the ranks, and this
 * rank's product, as one in a world of one rank. */
struct iris_op_desc iris_op_desc_collective(const struct iris_op_desc *desc, int world_size);
struct iris_op_desc iris_op_desc_product(const struct iris_op_desc *desc, int world_size);

/* What a workspace must have room for: an exchange between the ranks, which every call has, and
 * what a product by itself and the step after it, or before it, hand on to each other. */
enum { IRIS_PLAIN_BUFFERS = 2 };
struct iris_op_needs {
    uint64_t flags_count; /* of one half */
    uint64_t half_nbytes; /* staging of one half */
    uint64_t packets;     /* of one half */
    uint64_t bare;        /* packets, of one half */
    uint64_t product_flags_count, product_half_nbytes;
    uint64_t buffers[IRIS_PLAIN_BUFFERS]; /* bytes; see op_plain.c */
};
/* `all`: of any rank, wherever its output lies; else of this one. Small results have room in either
 * case: their calls are so short that hosts should not have to ask each other for it. */
struct iris_op_needs iris_op_desc_needs(const struct iris_op_desc *desc, int world_size, bool all);

#endif
