/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Loads from memory to LDS without registers between (global_load_lds_*): when they arrive, and
 * what waits for them. Half of them arrive at once, the others as late as the wave's waits allow.
 */
#ifndef EMULATOR_DIRECT_H
#define EMULATOR_DIRECT_H

#include <stdint.h>

#include "machine.h"

/* s_waitcnt vmcnt(outstanding). */
void direct_wait(struct wave *w, uint32_t outstanding);
/* All that is still under way arrives. */
void direct_end(struct work_group *group);

#endif
