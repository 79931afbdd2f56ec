/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Model of products of few rows whose work-groups share the K of tiles (decode_cdna.h), on GPUs that
 * hold fewer work-groups than a launch has.
 *
 * RANKS ranks make CALLS calls. A call is a launch of GROUPS work-groups, which start in the order
 * of their numbers, up to RESIDENT at a time, after the launch before has ended. Each has SHARE
 * rounds; a tile has ROUNDS. A packet holds the number of the call that it was sent in; a call uses
 * half n & 1 of them. Signal values, and their wrap, are in reduce.pml.
 *
 * MUTANT_...: one deliberate fault each; the check must then fail.
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef GROUPS
#define GROUPS 3
#endif
#ifndef RESIDENT
#define RESIDENT GROUPS
#endif
#define SHARE 2
#define ROUNDS 3
#define TILES (GROUPS * SHARE / ROUNDS)

#ifdef MUTANT_NO_PARITY
#define HALF(n) 0
#else
#define HALF(n) ((n) & 1)
#endif
#define PARTIAL(r, n, g) ((r) * 2 + HALF(n)) * GROUPS + (g)
#define WORD(r, n, source, t) (((r) * 2 + HALF(n)) * RANKS + (source)) * TILES + (t)

byte partials[RANKS * 2 * GROUPS];      /* [rank][half][group]: of its last tile */
byte words[RANKS * 2 * RANKS * TILES];  /* [rank][half][source][tile] */
byte calls[RANKS], started[RANKS], ended[RANKS];

/* Rank `to` is sent a packet of call n. It has read what an earlier call left in the slot: it has
 * completed call n - 2, the last one that used this half. */
#define SEND(packet, to, n)                                                                        \
    d_step { assert(packet < (n)); assert(calls[to] + 2 >= (n)); packet = (n) }
/* What is awaited is there, and nothing newer. */
#define RECEIVE(packet, n) d_step { packet >= (n); assert(packet == (n)) }

proctype group(byte r, g)
{
    byte n, other, part;

    do
    :: n == CALLS -> break
    :: n < CALLS ->
        n++;
        atomic {
            calls[r] == n - 1 && started[r] == g && started[r] - ended[r] < RESIDENT;
            started[r]++
        }
        /* The last tile, where others have its end. */
#ifdef MUTANT_FIRST_COLLECTS
        if /* whoever has the beginning of a tile waits for those that have the rest */
        :: g * SHARE % ROUNDS != 0 -> SEND(partials[PARTIAL(r, n, g)], r, n)
        :: else
        fi;
        if
        :: (g + 1) * SHARE % ROUNDS != 0 -> RECEIVE(partials[PARTIAL(r, n, g + 1)], n)
        :: else
        fi;
#else
        if
        :: (g + 1) * SHARE % ROUNDS != 0 -> SEND(partials[PARTIAL(r, n, g)], r, n)
        :: else
        fi;
#endif
        /* The tile whose end this group has. */
        if
        :: (g * SHARE / ROUNDS + 1) * ROUNDS <= (g + 1) * SHARE ->
#ifndef MUTANT_FIRST_COLLECTS
            part = g * SHARE / ROUNDS * ROUNDS / SHARE;
            do
            :: part < g -> RECEIVE(partials[PARTIAL(r, n, part)], n); part++
            :: else -> break
            od;
#endif
            other = 0;
            do
            :: other < RANKS ->
                SEND(words[WORD(other, n, r, g * SHARE / ROUNDS)], other, n);
                other++
            :: else -> break
            od;
            other = 0;
            do
            :: other < RANKS ->
                RECEIVE(words[WORD(r, n, other, g * SHARE / ROUNDS)], n);
                other++
            :: else -> break
            od
        :: else
        fi;
        other = 0;
        part = 0;
        d_step {
            ended[r]++;
            if
            :: ended[r] == GROUPS -> started[r] = 0; ended[r] = 0; calls[r] = n
            :: else
            fi
        }
    od
}

init
{
    byte r, g;

    atomic {
        do
        :: r < RANKS ->
            g = 0;
            do
            :: g < GROUPS -> run group(r, g); g++
            :: else -> break
            od;
            r++
        :: else -> break
        od
    }
}
