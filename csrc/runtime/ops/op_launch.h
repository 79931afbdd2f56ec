/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Third step of a call: settle the workspace, prepare, launch, find out how it ended. Shared by all
 * operations.
 */
#ifndef IRIS_OP_LAUNCH_H
#define IRIS_OP_LAUNCH_H

#include "op_desc.h"
#include "runtime/context.h"

struct iris_op_launch;

/* A call of several launches: what goes before the kernel that all ranks take part in, and after
 * it, on the same stream. `begin` also fills in what of the kernel's arguments depends on the
 * storage. The first of the struct that an operation keeps its own affairs in. */
struct iris_op_steps {
    enum iris_status (*begin)(struct iris_op_steps *steps, struct iris_context *ctx,
                              struct iris_storage *storage, const struct iris_op_options *options);
    enum iris_status (*end)(struct iris_op_steps *steps, struct iris_context *ctx,
                            struct iris_storage *storage, const struct iris_op_options *options);
    /* Once the storage is settled, unless a graph is being captured: to allocate what only this
     * rank has. */
    enum iris_status (*prepare)(struct iris_op_steps *steps, struct iris_context *ctx,
                                struct iris_storage *storage,
                                const struct iris_op_options *options);
    const struct iris_op_desc *runs_as; /* whose kernel it is */
};

/* What an operation launches: its kernel arguments, complete but for the call part. */
struct iris_op_launch {
    struct iris_call_args *call; /* the start of the arguments; filled by iris_op_run */
    const void *args;
    size_t args_nbytes;
    uint32_t work_groups;
    uint32_t cluster;             /* work-groups of a cluster; 0: none */
    enum iris_dtype kernel_dtype; /* of the row in instances.def */
    bool only_meets;              /* see iris_op_meet */
    /* NULL, or: fills in what else depends on where the workspace's buffers lie. */
    enum iris_status (*place)(struct iris_context *ctx, const struct iris_op_desc *desc,
                              struct iris_call_args *call);
    struct iris_op_steps *steps; /* NULL: one launch */
};

/* Runs the described operation with the caller's options, or only prepares it. */
enum iris_status iris_op_run(struct iris_context *ctx, const struct iris_op_desc *desc,
                             const struct iris_op_launch *launch,
                             const struct iris_op_options *options);

/* The same for an operation whose result has no elements: it is agreed on and counted as any call,
 * and every rank hears from every peer; nothing else is done. What a collective launches that moves
 * no bytes does that, so no kernel of a product need be made for a product without tiles. */
enum iris_status iris_op_meet(struct iris_context *ctx, const struct iris_op_desc *desc,
                              enum iris_ending ending, const struct iris_op_options *options);

/* Of a step of a call: once more the kernel of `runs_as` with the call's arguments. */
enum iris_status iris_op_launch_again(struct iris_context *ctx, const struct iris_op_desc *runs_as,
                                      const struct iris_op_launch *launch, void *stream);

#endif
