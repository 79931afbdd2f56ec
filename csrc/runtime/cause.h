/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Whose fault it is that a peer has gone.
 *
 * A rank that has waited in vain for a peer raises, and most programs leave then. Those who still
 * wait for the same peer see the one that left. It has told in the control segment for whom it
 * waited, so that they can name that rank.
 */
#ifndef IRIS_CAUSE_H
#define IRIS_CAUSE_H

#include "base/status.h"
#include "context.h"

/* Called once with what a call of the context ends with; returns `status`. If the peer that an
 * IRIS_EPEER is about had itself waited in vain for another, the message says so, and the error's
 * rank becomes that other one. */
enum iris_status iris_context_name_cause(const struct iris_context *ctx, enum iris_status status);

#endif
