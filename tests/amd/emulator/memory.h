/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Memory as waves see it. Addresses are this process's; only registered regions exist.
 *
 * Plain mode: every access happens at once, in program order.
 *
 * Adversarial mode delays and caches whatever the architecture allows, as late and as stale as it
 * can:
 *
 *   stores      wait in their wave until `s_waitcnt vmcnt` asks for them, or until luck lets them
 * go. Then they are in the L2 cache of the wave's die, dirty. System-scope stores (sc0 sc1) go past
 * L2 into memory; on gfx90a, whose stores carry no scope, each store goes either way by chance.
 *   write-back  (buffer_wbl2 at system scope) takes its wave's own stores along and is complete at
 *               the next vmcnt(0), no sooner. Dirty bytes are also evicted now and then.
 *   loads       may hit a copy in the work-group's L1 or the die's L2 that an earlier load left,
 *               however old: also of a line that only an earlier launch has read, as if another
 *               stream or a prefetch had. Loads that bypass (sc0 sc1; glc on gfx90a) read memory,
 *               and what this die itself has stored.
 *   invalidate  drops the copies: of L2 and of this work-group's L1 at system scope; of L1 alone at
 *               agent scope (on gfx90a buffer_invl2 and buffer_wbinvl1_vol each drop one).
 *   atomics     at system scope act on memory, others on the die's L2.
 *   a launch    begins without older copies and ends, not at once, with everything written. A wave
 *               pauses after a signal that has gone ahead of other stores.
 *
 * Work-groups are dealt to the dies in turn. Accesses of one work-group to one line stay in order.
 */
#ifndef EMULATOR_MEMORY_H
#define EMULATOR_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine.h"

struct device;

/* ---- regions: what may be addressed ---- */

bool region_add(const void *data, size_t nbytes);
bool region_remove(const void *data);
/* Whether [address, address + nbytes) lies in one region. */
bool region_has(uint64_t address, uint64_t nbytes);

/* ---- accesses of one lane; nbytes <= 16 ---- */

void memory_load(struct wave *w, uint64_t address, void *to, uint32_t nbytes, uint32_t bits);
void memory_store(struct wave *w, uint64_t address, const void *from, uint32_t nbytes,
                  uint32_t bits);
/* Constant memory: kernel arguments and packets. */
void memory_load_scalar(struct wave *w, uint64_t address, void *to, uint32_t nbytes);

enum atomic { ATOMIC_ADD, ATOMIC_SWAP, ATOMIC_COMPARE_SWAP, ATOMIC_OR };
/* The value before. Four or eight bytes. */
uint64_t memory_atomic(struct wave *w, enum atomic kind, uint64_t address, uint64_t value,
                       uint64_t expected, uint32_t nbytes, uint32_t bits);

/* ---- order ---- */

/* One more memory instruction has been issued. */
void memory_issued(struct wave *w);
/* All but the last `outstanding` memory instructions of the wave are complete. */
void memory_wait(struct wave *w, uint32_t outstanding);
void memory_write_back(struct wave *w);
void memory_invalidate_l1(struct wave *w);
void memory_invalidate_l2(struct wave *w);
/* Called now and then: evicts some dirty bytes and lets some stores go, those of a wave that has
 * ended or stands at a barrier too: no store is withheld for ever. */
void memory_stir(struct wave *w);
/* Called when all waves wait: what is dirty must not stay so for ever. */
void memory_idle(struct device *device);

/* ---- launches ---- */

bool memory_begin(struct work_group *group);
void memory_end(struct work_group *group);

/* ---- the device's caches ---- */

enum { MAX_DIES = 8 };
bool memory_open(struct device *device);
void memory_close(struct device *device);
/* At the begin of a launch, without the copies that were there, and at its end. */
void memory_acquire(struct device *device);
void memory_release(struct device *device);

#endif
