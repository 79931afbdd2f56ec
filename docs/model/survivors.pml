/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Model of the roll (docs/protocol.md, "Survivors"): how those who are left of a world agree on who
 * goes on together, while any of them may die between any two steps, or be so slow that the others
 * stop waiting for it.
 *
 * One process is one rank. It says that it goes on, decides or learns the members of the round, and
 * makes a context with them: a meeting that succeeds for a rank only when all members have come to
 * it, and may fail for any rank, the last one to come too, once one of them is dead. Then the
 * outcome is settled; with AGAIN the rank drops the context and goes through the next round. The
 * clock is not modelled: a rank that waits may run out of time whenever SLOW still allows it.
 *
 * DEATHS ranks may die; SLOW times may a rank stop waiting for others that live. A rank's lifeline
 * has ended when it is dead, or has left survivors(), whatever way.
 *
 * Asserted: all ranks that keep a world keep one of the same round, and are its members; a rank that
 * keeps a world knows that every member has made it; without SLOW no rank that lives is left out. No
 * invalid end state: nobody waits for ever.
 *
 * MUTANT_...: one deliberate fault each; the check must then fail.
 */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef SLOW
#define SLOW 0
#endif
#define ROUNDS (DEATHS + SLOW + 2)

#define BIT(r) (1 << (r))
#define ALL ((1 << RANKS) - 1)

#define OPEN 0
#define WHOLE 1
#define AGAIN 2

/* ---- the roll, in the control segment ---- */

byte came[ROUNDS];
byte members[ROUNDS];   /* 0: not decided */
byte ready[ROUNDS];
byte outcome[ROUNDS];

/* ---- lifelines, and the meetings of the new contexts ---- */

byte ended = 0;         /* dead, or out of survivors() */
byte met[ROUNDS];       /* who has come to the round's meeting */

/* ---- ghosts ---- */

byte kept[RANKS];       /* 1 + the round whose world the rank keeps; 0: none */
byte slow = 0;

byte deaths = 0;

#define OTHERS(set) ((set) & ~BIT(rank))
#define ONE_MORE_IS_SLOW slow < SLOW -> slow++
#define DIES deaths < DEATHS -> deaths++; ended = ended | BIT(rank); goto gone
#define SET_ONCE(word, value) d_step { if :: word == 0 -> word = value :: else fi }

proctype survivor(byte rank)
{
    byte round = 0;
    byte candidates = ALL;
    byte seen;
    bit made;

next:
    assert(round < ROUNDS);
    came[round] = came[round] | BIT(rank);

    /* Waits for the candidates. What it sees of the lines and of the words is of two moments. */
    if
    :: members[round] != 0 -> goto decided
    :: atomic { (OTHERS(candidates) & ~came[round] & ~ended) == 0 -> seen = ended }
    :: atomic { ONE_MORE_IS_SLOW; seen = ended }
    :: atomic { DIES }
    fi;
    seen = candidates & came[round] & ~seen;
#ifdef MUTANT_DECIDE_ALONE
    members[round] = seen;
    candidates = seen;
    goto meet;
#else
    SET_ONCE(members[round], seen);
#endif
decided:
    candidates = members[round];
#ifndef MUTANT_LATE_JOINS
    if
    :: (candidates & BIT(rank)) == 0 -> goto late
    :: else
    fi;
#endif

    /* The meeting. It may fail for who sees that a member is lost, or that others have given up. */
meet:
    met[round] = met[round] | BIT(rank);
    if
    :: (met[round] & candidates) == candidates -> made = 1
    :: OTHERS(candidates & ended) != 0
    :: outcome[round] == AGAIN
    :: atomic { ONE_MORE_IS_SLOW }
    :: atomic { DIES }
    fi;
    if
    :: made -> ready[round] = ready[round] | BIT(rank)
    :: else
    fi;
#ifdef MUTANT_KEEP_WHAT_IS_MADE
    if
    :: made -> goto keep
    :: else
    fi;
#endif

    if
    :: outcome[round] != OPEN
    :: ready[round] == candidates ->
#ifdef MUTANT_OUTCOME_SET_TWICE
        outcome[round] = WHOLE
#else
        SET_ONCE(outcome[round], WHOLE)
#endif
    :: ready[round] != candidates && OTHERS(candidates & ended) != 0 ->
#ifdef MUTANT_OUTCOME_SET_TWICE
        outcome[round] = AGAIN
#else
        SET_ONCE(outcome[round], AGAIN)
#endif
    :: made == 0 -> /* it has waited long enough already */
        SET_ONCE(outcome[round], AGAIN)
    :: atomic { ONE_MORE_IS_SLOW } ->
        SET_ONCE(outcome[round], AGAIN)
    :: atomic { DIES }
    fi;
    if
    :: outcome[round] == WHOLE -> goto keep
    :: else
    fi;
    d_step {
        round++;
        made = 0
    }
    goto next;

keep:
    skip;
    d_step {
        kept[rank] = round + 1;
        assert((candidates & BIT(rank)) != 0);
        assert((ready[round] & candidates) == candidates);
        /* One world, whatever rank one asks. */
        seen = 0;
        do
        :: seen < RANKS ->
            assert(kept[seen] == 0 || kept[seen] == round + 1);
            seen++
        :: else -> break
        od
    }
    goto out;
late:
    assert(slow > 0);
out:
    ended = ended | BIT(rank);
gone:
    skip
}

init
{
    byte r = 0;
    atomic {
        do
        :: r < RANKS ->
            run survivor(r);
            r++
        :: else -> break
        od
    }
}
