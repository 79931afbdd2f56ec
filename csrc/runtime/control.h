/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The control segment: host memory that all ranks of a context map, holding what their hosts tell
 * each other without messages.
 *
 * `faults`  one abort word per rank, which ends the rank's waits; see abi.h.
 * `doorbells` on which the rank's waits sleep, if they are the host's.
 * The board, on which the ranks settle which workspace storage a call uses:
 * `posted`  the number of the last call that the rank has described.
 * `entries` the descriptions, by call number modulo IRIS_BOARD_SLOTS; written by the rank before it
 *           advances `posted` (release), read by peers after they have seen that (acquire).
 * `claims`  one word per slot, set once per call by compare-and-swap: the storage that everybody
 *           uses. The first rank that has a usable one decides.
 * `gave_up` for which peer the rank's host waited in vain, before its first error says so.
 * `roll`    on which those who are left agree, when a rank is lost, who goes on; see roll.h.
 */
#ifndef IRIS_CONTROL_H
#define IRIS_CONTROL_H

#include <stdint.h>

#include "base/status.h"
#include "kernels/abi/abi.h"
#include "runtime/bootstrap/bootstrap.h"
#include "runtime/bootstrap/roll.h"

enum {
    IRIS_BOARD_SLOTS = 256,
    /* No rank describes a call this far ahead of the slowest, so no slot is overwritten in use. */
    IRIS_BOARD_LEAD = 128,
};

struct iris_board_entry {
    uint32_t signature; /* of the call's description */
    uint32_t storage;   /* one that the rank can use, 0: none */
    uint32_t claims;    /* 1: and it will claim it, as that has room for any rank */
    uint32_t stages;    /* 1: the rank's results are staged: it needs that room */
    int64_t value;      /* what an exchange tells */
};

struct iris_control {
    struct iris_fault faults[IRIS_MAX_RANKS];
    struct iris_doorbell doorbells[IRIS_MAX_RANKS];
    struct {
        uint64_t value;
        uint64_t pad[15];
    } posted[IRIS_MAX_RANKS];
    struct iris_board_entry entries[IRIS_MAX_RANKS][IRIS_BOARD_SLOTS];
    uint64_t claims[IRIS_BOARD_SLOTS];
    uint32_t gave_up[IRIS_MAX_RANKS]; /* 1 + the peer; 0: it has not given up */
    struct iris_roll roll;
};

/* Collective: rank 0 creates it, all map it. */
enum iris_status iris_control_create(struct iris_bootstrap *bootstrap, int rank, int world_size,
                                     struct iris_control **out);
void iris_control_destroy(struct iris_control *control); /* NULL is fine */

/* Ends the waits of `rank` for the reason in `word`, an IRIS_ABORT_WORD, unless something else
 * already has. */
void iris_control_abort(struct iris_control *control, int rank, uint32_t word);
/* The rank's abort word. */
uint32_t iris_control_aborted(const struct iris_control *control, int rank);
/* The number of the last call that `rank` has described. Of a rank that has left it is the last
 * that the rank took part in. */
uint64_t iris_control_posted(const struct iris_control *control, int rank);
/* Tells the peers that this rank's host no longer waits for `awaited`. The first time counts. */
void iris_control_give_up(struct iris_control *control, int rank, int awaited);
/* The peer for which `rank` has waited in vain, its host or a kernel of it, or -1. Of a rank that
 * has left since it may be the reason. */
int iris_control_given_up(const struct iris_control *control, int rank);
/* Takes the abort back. Only while all ranks' hosts have agreed that no wait is under way. */
void iris_control_clear_abort(struct iris_control *control, int rank);

#endif
