/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Whether all ranks' devices can reach each other's memory.
 */
#ifndef IRIS_TOPOLOGY_H
#define IRIS_TOPOLOGY_H

#include "context.h"

/* Collective. IRIS_EDRIVER on every rank, with the matrix of who reaches whom, if anybody cannot
 * reach somebody. */
enum iris_status iris_topology_check(struct iris_context *ctx);

#endif
