/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Model of bare words (docs/protocol.md, csrc/kernels/protocol/packets.h): a slot is empty until
 * data is there, carries no signal, and is emptied by whoever has read it.
 *
 * One process is one rank. It runs CALLS calls one after the other. A call takes one hop or two,
 * the same on all ranks; every sequence of such calls is checked. A word holds the number of the
 * call that sent it, or 0 if it is empty. The number never wraps here. Memory is sequentially
 * consistent in the model. On a GPU the end of a launch orders its stores before those of the next
 * launch, so a rank has emptied its slots before its next call begins.
 *
 * Checked: a slot is empty when it is written; what is read is of this call; at the end all slots
 * are empty; every rank completes every call.
 *
 * Compile-time choices: RANKS, CALLS; MUTANT_...: one deliberate fault each.
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef CALLS
#define CALLS 5
#endif

#if defined(MUTANT_NO_PARITY)
#define HALF(n) 0
#else
#define HALF(n) ((n) & 1)
#endif

/* Of rank r's half h: what rank p sent for this rank's share, and the sum that owner p sent. */
#define SENT(r, h, p) ((((r) * 2 + (h)) * 2) * RANKS + (p))
#define RESULT(r, h, p) ((((r) * 2 + (h)) * 2 + 1) * RANKS + (p))

byte slot[RANKS * 4 * RANKS];
bool two_hops[CALLS + 1];
byte completed;

inline send(place)
{
    assert(slot[place] == 0);
    slot[place] = i;
}

inline receive(place)
{
    slot[place] != 0;
    assert(slot[place] == i);
#if defined(MUTANT_NO_EMPTYING)
    skip;
#elif defined(MUTANT_EMPTIES_LATE)
    if
    :: late != 0 -> slot[late - 1] = 0
    :: else
    fi;
    late = place + 1;
#else
    slot[place] = 0;
#endif
}

/* For every peer p. */
#define FOR_PEERS(action)                                                                          \
    p = 0;                                                                                         \
    do                                                                                             \
    :: p < RANKS ->                                                                                \
        if                                                                                         \
        :: p != r -> action                                                                        \
        :: else                                                                                    \
        fi;                                                                                        \
        p++                                                                                        \
    :: else -> break                                                                               \
    od

proctype rank(byte r)
{
    byte i = 1, p, h;
#if defined(MUTANT_EMPTIES_LATE)
    byte late = 0;
#endif

    do
    :: i <= CALLS ->
        h = HALF(i);
        FOR_PEERS(send(SENT(p, h, r)));
#if defined(MUTANT_EMPTIES_LATE)
        /* With the words of the call after. */
        if
        :: late != 0 -> slot[late - 1] = 0; late = 0
        :: else
        fi;
#endif
        FOR_PEERS(receive(SENT(r, h, p)));
        if
        :: two_hops[i] ->
#if defined(MUTANT_SILENT_OWNER)
            if
            :: r != 0 -> FOR_PEERS(send(RESULT(p, h, r)))
            :: else
            fi;
#else
            FOR_PEERS(send(RESULT(p, h, r)));
#endif
            FOR_PEERS(receive(RESULT(r, h, p)))
        :: else
        fi;
        i++
    :: else -> break
    od;
#if defined(MUTANT_EMPTIES_LATE)
    if
    :: late != 0 -> slot[late - 1] = 0
    :: else
    fi;
#endif
    completed++
}

init
{
    byte n = 1;

    do
    :: n <= CALLS ->
        if
        :: two_hops[n] = false
        :: two_hops[n] = true
        fi;
        n++
    :: else -> break
    od;
    atomic {
        n = 0;
        do
        :: n < RANKS -> run rank(n); n++
        :: else -> break
        od
    }
    completed == RANKS;
    n = 0;
    do
    :: n < RANKS * 4 * RANKS -> assert(slot[n] == 0); n++
    :: else -> break
    od
}
