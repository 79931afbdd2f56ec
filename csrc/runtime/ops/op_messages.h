/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What other parts of the runtime have to do with messages.
 */
#ifndef IRIS_OP_MESSAGES_H
#define IRIS_OP_MESSAGES_H

#include "runtime/context.h"

/* iris_all_to_all with sizes. */
enum iris_status iris_messages_all_to_all(struct iris_context *ctx,
                                          const struct iris_tensor *output,
                                          const struct iris_tensor *input,
                                          const struct iris_op_options *options);

/* Waits, within the context's timeout, until the peers have taken what was sent to them: who leaves
 * first ends their calls. The device is idle. */
void iris_messages_drain(struct iris_context *ctx);

#endif
