/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Model of the board (docs/protocol.md, "Choosing the storage"): how the ranks' hosts settle, call
 * by call, which workspace storage all of them use, although each knows only what it holds itself.
 *
 * One process is the host of one rank. In each of CALLS calls it has a storage that suits all ranks,
 * any of those that exist, or, with SMALL, one that has no room for staged results, or needs one,
 * maybe because its results are staged; the choice is free, so every combination is explored.
 * Storages are only made by all ranks together and are never freed here: freeing is settled by the heap,
 * inside such a making.
 *
 * Asserted: in every call all ranks use the same storage, every rank holds it, and a small one is used
 * only if no rank stages results. No invalid end state: nobody waits for ever. A rank with a storage
 * that suits all waits for nobody but, for the slots' sake, for ranks more than LEAD calls behind.
 *
 * MISMATCH adds kernels and one rank that, in the last call, calls something else. All ranks then must
 * raise in that call and in no other. The kernel is reduced to its last exchange: a signal to each
 * peer, one store after the other, and a wait for all of them that an abort word ends; the launch
 * returns when the kernel has ended, as it does on the cpu.
 *
 * ALL_USABLE leaves out the needing ranks, so that RANKS 4 can be checked with kernels: an abort
 * that comes too early takes two ranks that are ahead, one that is between its stores, and a
 * fourth that waits for the second of them.
 *
 * MUTANT_...: one deliberate fault each; the check must then fail.
 */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef CALLS
#define CALLS 4
#endif
#define SLOTS 2 /* the C has 256 */
#define LEAD 1  /* the C has up to 191; any LEAD < SLOTS does */

#define SLOT(k) ((k) % SLOTS)
#define ENTRY(k, r) (SLOT(k) * RANKS + (r))

/* ---- the control segment ---- */

byte posted[RANKS];                /* the last call that the rank has described */
bit claims[SLOTS * RANKS];         /* the rank will claim */
#ifdef SMALL
byte holds[SLOTS * RANKS];         /* a storage that the rank can use, 0: none */
bit stages[SLOTS * RANKS];         /* the rank's results are staged */
#endif
bit signature[SLOTS * RANKS];
byte claim_call[SLOTS];            /* the claim word's three parts; written by one CAS */
byte claim_storage[SLOTS];
bit claim_signature[SLOTS];
bit aborted[RANKS];                /* abort words, here for a mismatch only */

/* ---- messages: collectives of the hosts ---- */

byte making[RANKS];                /* the last call in which the rank came to make a storage */
byte storages[RANKS];              /* storages the rank holds: 1 .. this */

/* ---- kernels, for MISMATCH ---- */

byte delivered[RANKS * RANKS];     /* [at][from]: signals that really carry the call */

/* ---- ghosts ---- */

bit claim_small[SLOTS];            /* the claimed storage does not suit all */
byte used[CALLS + 1];              /* the storage that the first rank took in the call */
byte bad_call = 0, bad_rank = 0;   /* who calls something else, and when; 0: never */

#if RANKS == 3
#define ALL(condition) (condition(0) && condition(1) && condition(2))
#else
#define ALL(condition) (condition(0) && condition(1) && condition(2) && condition(3))
#endif
/* In these, `k` is the call, `rank` this rank, as in the process below. */
#define HAS_POSTED(r) (posted[r] >= k)
#define HAS_POSTED_EARLIER(r) (posted[r] + LEAD >= k)
#define WAITS(r) (posted[r] >= k && !claims[ENTRY(k, r)])
#ifdef SMALL
#define STAGES_NOTHING(r) (!stages[ENTRY(k, r)])
#endif
#define AGREES(r) (signature[ENTRY(k, r)] == own_signature)
#define IS_MAKING(r) (making[r] >= k)
#define HAS_DELIVERED(r) (delivered[rank * RANKS + (r)] >= k)
#define CLAIMED(k) (claim_call[SLOT(k)] == (k))

proctype host(byte rank)
{
    byte k = 1;   /* the call */
    byte mine;    /* the storage this rank would use, 0: it needs one */
    bit small;    /* which does not suit all */
    bit staging;
    byte id;      /* the storage that is settled on */
    byte p;
    bit own_signature, differ;

    do
    :: k > CALLS -> break
    :: else ->
        /* What this rank calls, and what it has for it. */
        atomic {
            own_signature = (k == bad_call && rank == bad_rank);
            if
#ifdef SMALL
            :: mine = 1; small = 1
            :: mine = 0; staging = 1
#else
            :: mine = 1
#endif
#ifndef ALL_USABLE
            :: mine = 0
            :: mine = storages[rank]
#endif
            fi
        }
#ifndef MUTANT_NO_LEAD_BOUND
        ALL(HAS_POSTED_EARLIER);
#endif
        d_step {
            claims[ENTRY(k, rank)] = (mine != 0 && !small);
#ifdef SMALL
            holds[ENTRY(k, rank)] = mine;
            stages[ENTRY(k, rank)] = staging;
#endif
            signature[ENTRY(k, rank)] = own_signature
        }
        posted[rank] = k;

        id = 0;
        if
#ifdef MUTANT_SMALL_CLAIMS
        :: mine != 0 ->
#else
        :: mine != 0 && !small ->
#endif
#ifdef MUTANT_CLAIM_IN_TWO_STEPS
            if
            :: CLAIMED(k)
            :: else ->
                d_step {
                    claim_call[SLOT(k)] = k;
                    claim_storage[SLOT(k)] = mine;
                    claim_signature[SLOT(k)] = own_signature;
                    id = mine
                }
            fi;
#else
            d_step {
                if
                :: CLAIMED(k)
                :: else ->
                    claim_call[SLOT(k)] = k;
                    claim_storage[SLOT(k)] = mine;
                    claim_small[SLOT(k)] = small;
                    claim_signature[SLOT(k)] = own_signature
                fi
            }
#endif
            d_step {
                id = (id == 0 -> claim_storage[SLOT(k)] : id);
                differ = (claim_signature[SLOT(k)] != own_signature)
            }
#ifdef MUTANT_MAKE_ALONE
        /* The hidden collective: whoever needs a storage goes and makes one with the others. */
        :: mine == 0 || small -> goto make;
#else
        :: mine == 0 || small ->
            if
            :: atomic {
                CLAIMED(k) ->
                    assert(!(staging && claim_small[SLOT(k)]));
                    id = claim_storage[SLOT(k)];
                    differ = (claim_signature[SLOT(k)] != own_signature)
                }
            :: atomic { aborted[rank] -> differ = 1 }
#ifdef MUTANT_NEED_FROM_OWN_VIEW
            /* Does not wait for ranks that have not described the call yet. */
            :: (!CLAIMED(k)) -> goto make
#else
            :: atomic { ALL(WAITS) && !ALL(AGREES) -> differ = 1 }
#ifdef SMALL
            :: atomic {
                ALL(WAITS) && ALL(AGREES) ->
                    /* The lowest rank's that has one, unless somebody needs more. */
                    id = (holds[ENTRY(k, 0)] -> holds[ENTRY(k, 0)] :
                         (holds[ENTRY(k, 1)] -> holds[ENTRY(k, 1)] : holds[ENTRY(k, 2)]));
                    if
#ifdef MUTANT_STAGED_IGNORED
                    :: id == 0 -> goto make
#else
                    :: id == 0 || !ALL(STAGES_NOTHING) -> goto make
#endif
                    :: else
                    fi;
                    assert(!staging);
                    if
                    :: CLAIMED(k) -> assert(claim_storage[SLOT(k)] == id)
                    :: else ->
                        claim_call[SLOT(k)] = k;
                        claim_storage[SLOT(k)] = id;
                        claim_small[SLOT(k)] = 1;
                        claim_signature[SLOT(k)] = own_signature
                    fi
                }
#else
            :: ALL(WAITS) && ALL(AGREES) -> goto make
#endif
#endif
            fi
#endif
        fi;
        goto settled;

make:
        making[rank] = k;
        ALL(IS_MAKING);
        d_step {
            storages[rank]++;
            id = storages[rank]
        }

settled:
#ifdef MISMATCH
        if
        :: aborted[rank] -> differ = 1
        :: else
        fi;
#endif
        if
        :: differ -> goto raise
        :: else
        fi;
        d_step {
            assert(id >= 1 && id <= storages[rank]);
            assert(used[k] == 0 || used[k] == id);
            used[k] = id
        }

#ifdef MISMATCH
        /* The kernel: DELIVERED to every peer in turn, then from every peer, or an abort. */
        do
        :: p < RANKS ->
            delivered[p * RANKS + rank] = k;
            p++
        :: p == RANKS -> break
        od;
        p = 0;
        if
        :: ALL(HAS_DELIVERED)
        :: aborted[rank] && !ALL(HAS_DELIVERED) -> goto raise
        fi;
#endif
        d_step {
            assert(k != bad_call);
            mine = 0;
            small = 0;
            staging = 0;
            id = 0;
            k++
        }
    od;
    goto end;

raise:
    assert(k == bad_call);
    /* Only when every rank has come to this call, and so left the one before, may its waits be
     * ended: an abort word does not say which call it means. */
#ifndef MUTANT_ABORT_AT_ONCE
    ALL(HAS_POSTED);
#endif
    do
    :: p < RANKS ->
        aborted[p] = 1;
        p++
    :: p == RANKS -> break
    od;
    /* Then all ranks compare their descriptions, with the same result. */
    making[rank] = k;
    ALL(IS_MAKING);
end:
    skip
}

init
{
    byte r;
    atomic {
#ifdef MISMATCH
        bad_call = CALLS;
        select(bad_rank : 0 .. (RANKS - 1));
#endif
        r = 0;
        do
        :: r < RANKS ->
            storages[r] = 2;
            r++
        :: else -> break
        od;
        r = 0;
        do
        :: r < RANKS ->
            run host(r);
            r++
        :: else -> break
        od
    }
}
