/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Launching what concerns two ranks, or one, and is agreed on with nobody: no workspace, no board.
 */
#ifndef IRIS_OP_DIRECT_H
#define IRIS_OP_DIRECT_H

#include "runtime/context.h"

/* A kernel of instances.def without a variant, and what it is to wait for. */
struct iris_direct_launch {
    enum iris_operation operation; /* as messages name it */
    enum iris_operation kernel;
    enum iris_dtype dtype; /* of the row in instances.def */
    uint32_t work_groups;
    struct iris_call_args *call; /* the start of the arguments; filled here */
    const void *args;
    size_t args_nbytes;
    bool sends, receives; /* through channels */
    bool continues;       /* the end of a call that has succeeded so far, whoever has left since */
    bool counts;          /* the kernel calls count_completed: it can fail */
    void *stream;
};

/* On a synchronous device IRIS_OK means done. */
enum iris_status iris_direct_run(struct iris_context *ctx, const struct iris_direct_launch *d);

#endif
