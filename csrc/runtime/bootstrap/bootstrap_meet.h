/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The meeting: how the ranks find each other and end up with one connection to the hub each.
 *
 * Rank 0 listens on an abstract socket under a name made of the user and a hash of the run key. It
 * listens only while it meets. Contexts of one run key are told
 * apart by their instance, which each rank counts in its own process: a rank that comes early for
 * the next one is asked to come again.
 */
#ifndef IRIS_BOOTSTRAP_MEET_H
#define IRIS_BOOTSTRAP_MEET_H

#include "bootstrap_wire.h"

/* Fills sockets[peer] on rank 0, sockets[0] on the others; -1 elsewhere. On failure none is open.
 * IRIS_EPEER: a rank did not come in time, or who holds the name kept the ranks from meeting;
 * IRIS_EINVAL: they disagree; IRIS_EINTERRUPTED. Everybody who has come hears the reason.
 */
enum iris_status iris_bootstrap_meet(const struct iris_bootstrap_options *options, void *scratch,
                                     int sockets[IRIS_MAX_RANKS]);

#endif
