/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Whose a workspace or a piece of memory is; iris_workspace_check is in iris.h.
 */
#ifndef IRIS_OWNERSHIP_H
#define IRIS_OWNERSHIP_H

#include "runtime/context.h"

/* Bytes of a run's key that messages show, its last ones: there a group's has its ranks. */
enum { IRIS_RUN_KEY_SHOWN = 80, IRIS_CONTEXT_TEXT_NBYTES = 240 };

/* Numbers a context that has its heap, and lets its memory be recognised until it is delisted,
 * which may be asked for one that was never enlisted. */
void iris_context_enlist(struct iris_context *ctx);
void iris_context_delist(struct iris_context *ctx);

/* The number, from 1 to `most`, by which the context is found until it is delisted; the first one
 * that no other has. IRIS_ENOMEM: they all have one. */
enum iris_status iris_context_number_pool(struct iris_context *ctx, int most, int *out);
/* The context of a number, with a reference; NULL: none has it. From any thread. */
struct iris_context *iris_context_of_pool(int number);

/* What tells a context from the others of this process and of other runs. */
void iris_context_describe(const struct iris_context *ctx, char text[IRIS_CONTEXT_TEXT_NBYTES]);

/* Describes the context of this process in whose heap [data, data + nbytes) lies; false: none. */
bool iris_context_describe_owner(const void *data, size_t nbytes,
                                 char text[IRIS_CONTEXT_TEXT_NBYTES]);

/* Fails with IRIS_EINVAL: `tensor`, of `nbytes` contiguous bytes, is not in the heap of `ctx`. */
enum iris_status iris_fail_elsewhere(const struct iris_context *ctx, const char *name,
                                     const struct iris_tensor *tensor, size_t nbytes);

#endif
