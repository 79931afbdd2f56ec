/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What has gone wrong on the device, as a status with a message.
 */
#ifndef IRIS_FAULT_H
#define IRIS_FAULT_H

#include "base/status.h"
#include "context.h"
#include "kernels/abi/abi.h"

/* What the device has found out since the last look: IRIS_OK, or why the context is broken. On a
 * GPU a mismatch of the call before is settled here, together with the peers. Under
 * op_lock. `operation` names what was under way. */
enum iris_status iris_context_poll(struct iris_context *ctx, enum iris_operation operation);

/* What an abort word and its fault mean, as a status with a message. `operation` names what was
 * under way. */
enum iris_status iris_context_abort_status(struct iris_context *ctx, enum iris_operation operation);

#endif
