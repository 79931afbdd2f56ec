/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What rank 0 does besides for all ranks: see bootstrap_hub.c. Everything here is under the state's
 * lock.
 */
#ifndef IRIS_BOOTSTRAP_HUB_H
#define IRIS_BOOTSTRAP_HUB_H

#include <stdint.h>

#include "bootstrap_state.h"
#include "bootstrap_wire.h"

/* A part of `rank` has come; takes over `fd`. */
void iris_bootstrap_hub_contribute(struct iris_bootstrap *b, int rank,
                                   const struct iris_wire_header *header, const void *bytes,
                                   int fd);
/* A message from `peer`, its payload in the receive buffer. */
void iris_bootstrap_hub_received(struct iris_bootstrap *b, int peer,
                                 struct iris_wire_message *message);
/* The connection to `peer` has ended. */
void iris_bootstrap_hub_lost(struct iris_bootstrap *b, int peer);
/* Breaks the bootstrap when the open collective has been open for too long. */
void iris_bootstrap_hub_check_timeout(struct iris_bootstrap *b);
/* Forgets the open collective's parts. */
void iris_bootstrap_hub_close_parts(struct iris_bootstrap *b);

#endif
