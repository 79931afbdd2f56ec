/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What a context's end has to do with messages.
 */
#ifndef IRIS_OP_EXCHANGE_H
#define IRIS_OP_EXCHANGE_H

#include "context.h"

/* Waits, within the context's timeout, until the peers have taken what was sent to them: who leaves
 * first ends their calls. The device is idle. */
void iris_exchange_drain(const struct iris_context *ctx);

#endif
