/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Workspaces and the storages behind them.
 *
 * A workspace is one rank's handle; a storage is the memory: a block at one offset on all ranks,
 * made and destroyed by agreement of all. A handle may be fresh, stale or cleared on one rank and
 * good on another. Which storage a call uses is settled on the control segment's board, without
 * waiting wherever the rank holds a usable one; docs/protocol.md, "Choosing the storage", has the
 * rules and the reason why no rank can be left alone in a collective.
 */
#ifndef IRIS_WORKSPACE_H
#define IRIS_WORKSPACE_H

#include "runtime/context.h"
#include "runtime/ops/op_desc.h"
#include "storage_layout.h"

/* The storage that all ranks use for the call described by `desc`, which this rank brings
 * `workspace` to. Collective in effect, never a trap: see above. Under ctx->op_lock. IRIS_EINVAL
 * with one text on every rank when the ranks' descriptions differ; the context stays usable. */
enum iris_status iris_workspace_acquire(struct iris_workspace *workspace,
                                        const struct iris_op_desc *desc, bool capturing,
                                        struct iris_storage **out);

/* Whether the handle has room for the call: it will allocate nothing. */
bool iris_workspace_has_room(struct iris_workspace *workspace, const struct iris_op_desc *desc);

/* For a rank whose kernel was ended by IRIS_ABORT_MISMATCH: joins the others in finding out who
 * called what. Returns the IRIS_EINVAL that all ranks return. */
enum iris_status iris_workspace_settle_mismatch(struct iris_context *ctx,
                                                const struct iris_op_desc *desc);

/* The device address, in this process, of the storage's control; the host must not read it. */
struct iris_workspace_control *iris_storage_control(const struct iris_context *ctx,
                                                    const struct iris_storage *storage);

/* Whose it is, and what for. */
struct iris_context *iris_workspace_context(const struct iris_workspace *workspace);
enum iris_operation iris_workspace_operation(const struct iris_workspace *workspace);

/* Frees the context's own workspaces and all storages; when the last reference goes. */
void iris_context_free_workspaces(struct iris_context *ctx);

/* What iris_workspace_info tells of the last call. */
void iris_workspace_note_call(struct iris_workspace *workspace, const struct iris_op_desc *desc);

#endif
