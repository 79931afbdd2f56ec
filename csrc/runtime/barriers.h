/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The two barriers of a context, which are in iris.h.
 */
#ifndef IRIS_BARRIERS_H
#define IRIS_BARRIERS_H

#include "base/status.h"
#include "context.h"

/* Runs the device barrier kernel on `stream`. */
enum iris_status iris_context_launch_barrier(struct iris_context *ctx, void *stream);

#endif
