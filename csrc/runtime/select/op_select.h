/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Second step of a call: choosing what the caller left open.
 */
#ifndef IRIS_OP_SELECT_H
#define IRIS_OP_SELECT_H

#include "runtime/context.h"
#include "select_parts.h"

/* The context's device, as the choice sees it. */
struct iris_select_target iris_select_target_of(const struct iris_context *ctx);

/* The choice for such a target, of what `config` leaves open. */
enum iris_status iris_select_for(const struct iris_select_target *on,
                                 const struct iris_config *config, struct iris_op_desc *desc,
                                 uint32_t *work_groups);

/* Fills the variant and the block sizes of `desc` from `config` (may be NULL) and the shape, and
 * tells how many work-groups to launch. IRIS_EINVAL for a config that does not fit. */
enum iris_status iris_op_select(const struct iris_context *ctx, const struct iris_config *config,
                                struct iris_op_desc *desc, uint32_t *work_groups);

/* XCDs that work-groups are dealt to in turn: the config's, or the device's. */
int32_t iris_op_select_xcds(const struct iris_context *ctx, const struct iris_config *config);

#endif
