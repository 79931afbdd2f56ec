/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the choice for a call is made of: for whom it is made, and a step for each kind of thing
 * that is left open. Depends only on values that are equal on all ranks, except for the number of
 * work-groups, which is each rank's own business.
 */
#ifndef IRIS_SELECT_PARTS_H
#define IRIS_SELECT_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "chips.h"
#include "runtime/iris.h"
#include "runtime/ops/op_desc.h"

/* What the choice depends on besides the call. */
struct iris_select_target {
    const struct iris_chip *chip;
    const char *backend; /* for messages */
    int world_size;
    int xcds, compute_units, max_work_groups; /* of the device that is there, or the chip's */
    bool has_blas;    /* all ranks have the vendor's library of products in their processes */
    bool has_packets; /* all ranks' memory shows packets without fences; see iris_memory_kind */
    int cores; /* of the cpu: no more work-groups than these, whatever was asked; 0: no bound */
    struct iris_explanation *explanation; /* NULL, or: gets what was weighed */
};

/* What the peers after the first add to the start of a call by packets. */
static inline double iris_hop_peers_seconds(const struct iris_select_target *on)
{
    return (on->world_size - 2) * on->chip->hop_peer_seconds;
}

/* Whether a product can run in this form. */
bool iris_form_available(const struct iris_select_target *on, const struct iris_op_desc *desc,
                         enum iris_form form);

/* The steps, for extents of at least 1. The form of a product, `empty` if there is nothing to
 * multiply, `invariant` if rows must not depend on each other; the variant; the tiles, of products
 * and of tensors; what a gathered operand needs besides. */
enum iris_status iris_select_form(const struct iris_select_target *on,
                                  const struct iris_config *config, bool invariant, bool empty,
                                  struct iris_op_desc *desc);
enum iris_status iris_select_variant(const struct iris_select_target *on,
                                     const struct iris_config *config, struct iris_op_desc *desc);
enum iris_status iris_select_tiles(const struct iris_select_target *on,
                                   const struct iris_config *config, struct iris_op_desc *desc);
enum iris_status iris_select_gather(const struct iris_select_target *on,
                                    const struct iris_config *config, uint32_t work_groups,
                                    struct iris_op_desc *desc);

/* The time of a product in each form, on a GPU that has figures for it: its start, the product, and
 * what goes on between ranks that nothing hides. Of DECODE false: it cannot be had. */
enum { IRIS_FORM_TERMS = 3 };
void iris_tiles_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        double terms[IRIS_FORM_TERMS]);
bool iris_decode_seconds(const struct iris_select_target *on, const struct iris_config *config,
                         const struct iris_op_desc *desc, double terms[IRIS_FORM_TERMS]);
/* Hopper: what this rank's product takes in the form DECODE if `size` blocks share a tile's K, and
 * `clusters` of so many blocks are resident. */
double iris_decode_product_seconds(const struct iris_chip *chip, int64_t rows, int64_t N, int64_t K,
                                   int64_t size, int64_t clusters);

/* Whether so many blocks may share it. */
bool iris_decode_may_split(int64_t rows, int64_t K, int64_t size);

/* gfx: how many work-groups share the tiles of a product in that form, whose K is then divided
 * where a tile's rounds are; 0: each has whole tiles. */
int32_t iris_decode_k_groups(const struct iris_select_target *on, int64_t rows, int64_t N,
                             int64_t K);
void iris_plain_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        double terms[IRIS_FORM_TERMS]);
/* Whether the form PLAIN has the operand gathered by copy engines, see op_plain.c. */
bool iris_plain_pulls(const struct iris_select_target *on, const struct iris_op_desc *desc);

/* The start of an all_reduce of `nbytes` of desc->dtype, and what the links take for it; with
 * barriers they carry so many bytes a second. */
void iris_all_reduce_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                             double nbytes, enum iris_variant variant, double link_rate,
                             double terms[2]);
/* The same of a reduce_scatter of inputs of `nbytes`: LL, or any other variant with barriers. */
void iris_reduce_scatter_seconds(const struct iris_select_target *on, double nbytes,
                                 enum iris_variant variant, double link_rate, double terms[2]);
/* The same of an all_gather of `share_nbytes` from each rank: LL, or any other variant by copies.
 */
void iris_all_gather_seconds(const struct iris_select_target *on, double share_nbytes,
                             enum iris_variant variant, double terms[2]);

/* Of a block: no more than there is, and at least 1. */
static inline int32_t iris_at_most(int32_t value, int64_t limit)
{
    if (limit < 1)
        return 1;
    return value < limit ? value : (int32_t)limit;
}

#endif
