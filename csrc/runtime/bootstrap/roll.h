/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The roll: how those who are left of a world agree on who goes on together. It lies in memory that
 * all ranks map, which outlives every one of them, so no rank leads and none is missed.
 *
 * The ranks go through rounds. In each, whoever wants to go on says so (`came`), and waits until
 * every candidate has, or has died, or the time is up. Then `members` is set, once, by a compare-
 * and-swap: whoever is first decides, for all. The members make a context together; when all have
 * (`ready`), or one of them is lost, `outcome` is set, once, in the same way: all keep the context,
 * or all drop it and go through the next round, whose candidates are this one's members. So no two
 * ranks keep different worlds, and none keeps one that another has dropped. Rounds that are over
 * stay as they are: a rank that comes late reads in them that the others have gone on without it.
 * The model is docs/model/survivors.pml.
 *
 * The words are changed and read by all ranks' hosts, sequentially consistent.
 */
#ifndef IRIS_ROLL_H
#define IRIS_ROLL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/abi/abi.h"
#include "lifelines.h"

/* A round is over for the loss of a member at least, or because one was too slow. */
enum { IRIS_ROLL_ROUNDS = 2 * IRIS_MAX_RANKS };

enum iris_roll_outcome {
    IRIS_ROLL_OPEN = 0,
    IRIS_ROLL_WHOLE = 1, /* every member has the context */
    IRIS_ROLL_AGAIN = 2, /* a member was lost: nobody keeps the context */
};

struct iris_roll {
    uint64_t
        nonce; /* tells this world's rounds from any other's; set by rank 0 before all map it */
    struct iris_roll_round {
        uint32_t came;    /* bit per rank */
        uint32_t members; /* bit per rank; 0: not decided. Set once */
        uint32_t ready;   /* bit per rank */
        uint32_t outcome; /* enum iris_roll_outcome. Set once */
    } rounds[IRIS_ROLL_ROUNDS];
};

/* How a member's making of the context went. */
enum iris_roll_made {
    IRIS_ROLL_MADE,   /* it has one */
    IRIS_ROLL_MISSED, /* it has none for want of a peer */
    IRIS_ROLL_FAILED, /* it has none for a reason of its own, or so it seems */
};

/* A rank's way through the roll. */
struct iris_roll_call {
    struct iris_roll *roll;
    struct iris_lifelines *lines;
    int rank, round;
    uint32_t members; /* of the round, once decided; before: the candidates */
};

/* In zeroed memory. */
void iris_roll_init(struct iris_roll *roll);

/* The ranks, a bit each, that have asked to go on. */
uint32_t iris_roll_came(const struct iris_roll *roll);

/* Says that this rank goes on, and waits until the round's members are decided: at the latest at
 * `deadline` (of iris_clock_ns). IRIS_EPEER: this rank is not among them, it came too late.
 * IRIS_EINTERRUPTED. */
enum iris_status iris_roll_decide(struct iris_roll_call *call, uint64_t deadline);

/* Whether the members' making of the context can come to nothing but AGAIN. */
bool iris_roll_is_hopeless(const struct iris_roll_call *call);

/* Waits for the round's outcome. At `deadline` MADE and MISSED make it AGAIN; FAILED leaves it
 * OPEN: the reason was this rank's own, and it is for the caller to leave. IRIS_EINTERRUPTED. */
enum iris_status iris_roll_settle(const struct iris_roll_call *call, enum iris_roll_made made,
                                  uint64_t deadline, enum iris_roll_outcome *outcome);

#endif
