/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Model of the doorbell (csrc/kernels/cpu/sync_doorbell.h, NOTE [doorbell]): how waits on the host
 * sleep without losing a wake-up, although who signals makes no system call while nobody sleeps.
 *
 * Two ranks of GROUPS work-groups. In each of CALLS calls work-group g of a rank signals to
 * work-group g of the other and waits for its signal. A processor's stores go through a buffer, from
 * which each leaves at any later time, in any order; a fence waits until its own are gone. A sleep
 * has no end here but a wake-up: one that is lost is an invalid end state.
 *
 * MUTANT_...: one deliberate fault each; the check must then fail.
 */
#ifndef GROUPS
#define GROUPS 1
#endif
#ifndef CALLS
#define CALLS 3
#endif
#define ALL (2 * GROUPS)

#define RANK(i) ((i) / GROUPS)
#define PEER(i) (((i) + GROUPS) % ALL) /* the work-group of the same index on the other rank */

byte flag[ALL];         /* [i]: the call that work-group i's peer has signalled to it */
byte sleepers[2];       /* of a rank */
byte rings[2];
bit asleep[ALL];        /* in the futex */

/* What has been stored but is not visible yet, by who has stored it. */
byte stored_flag[ALL];  /* 0: nothing */
bit stored_sleeper[ALL];

#define FENCE(i) (stored_flag[i] == 0 && stored_sleeper[i] == 0)

proctype buffer(byte i)
{
end:
    do
    :: d_step { stored_flag[i] != 0 -> flag[PEER(i)] = stored_flag[i]; stored_flag[i] = 0 }
    :: d_step { stored_sleeper[i] != 0 -> sleepers[RANK(i)]++; stored_sleeper[i] = 0 }
    od
}

inline wake(first)
{
#ifdef MUTANT_WAKE_ONE
    if
    :: asleep[first] -> asleep[first] = 0
    :: else -> asleep[first + GROUPS - 1] = 0
    fi
#else
    d_step {
        k = 0;
        do
        :: k < GROUPS -> asleep[first + k] = 0; k++
        :: else -> break
        od;
        k = 0
    }
#endif
}

inline signal()
{
    stored_flag[i] == 0; /* stores to one word leave in order */
    stored_flag[i] = call;
#ifndef MUTANT_NO_SIGNAL_FENCE
    FENCE(i);
#endif
    if
    :: sleepers[1 - RANK(i)] != 0 ->
#ifndef MUTANT_NO_RING
        rings[1 - RANK(i)]++;
#endif
        wake(RANK(PEER(i)) * GROUPS)
    :: else
    fi
}

inline leave()
{
    atomic { stored_sleeper[i] == 0 -> sleepers[RANK(i)]-- }
}

inline wait()
{
    do
    :: flag[i] >= call -> break
    :: else ->
#ifndef MUTANT_SEEN_LATE
        seen = rings[RANK(i)];
#endif
        stored_sleeper[i] = 1;
#ifndef MUTANT_NO_SLEEP_FENCE
        FENCE(i);
#endif
#ifndef MUTANT_NO_LAST_LOOK
        if
        :: flag[i] >= call -> leave(); break
        :: else
        fi;
#endif
#ifdef MUTANT_SEEN_LATE
        seen = rings[RANK(i)];
#endif
        atomic {
            if
            :: rings[RANK(i)] == seen -> asleep[i] = 1
            :: else
            fi
        }
        asleep[i] == 0;
        leave()
    od
}

proctype work_group(byte i)
{
    byte call = 1, seen, k;
    do
    :: call <= CALLS -> signal(); wait(); call++
    :: else -> break
    od
}

init
{
    byte i;
    atomic {
        i = 0;
        do
        :: i < ALL -> run buffer(i); run work_group(i); i++
        :: else -> break
        od
    }
}
