/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The rank's trace: a buffer in device memory that traced kernels append to (kernels/trace.h).
 * Allocated by the first traced call, kept until the context closes.
 */
#ifndef IRIS_TRACE_BUFFER_H
#define IRIS_TRACE_BUFFER_H

#include "runtime/context.h"

/* Sees to it that there is a buffer. Under op_lock. IRIS_ESTATE: there is none and a graph is being
 * captured. */
enum iris_status iris_trace_open(struct iris_context *ctx, bool capturing);
/* Points a call's arguments to it. */
void iris_trace_attach(struct iris_context *ctx, struct iris_call_args *call);
/* What it tells besides its records, of one that there is. Waits for the device; under op_lock. */
enum iris_status iris_trace_read_info(struct iris_context *ctx, struct iris_trace_info *out);
/* Frees it; before the device goes. */
void iris_trace_free(struct iris_context *ctx);

#endif
