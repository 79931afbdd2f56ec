/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The monitor thread of a bootstrap: there is one while a world of several ranks is together.
 */
#ifndef IRIS_BOOTSTRAP_MONITOR_H
#define IRIS_BOOTSTRAP_MONITOR_H

#include "base/status.h"
#include "bootstrap_state.h"

enum iris_status iris_bootstrap_start_monitor(struct iris_bootstrap *b);
/* Waits for its end. Where it has never been started, does nothing. */
void iris_bootstrap_stop_monitor(struct iris_bootstrap *b);

#endif
