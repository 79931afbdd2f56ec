/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Model of the protocol between the ranks' kernels (docs/protocol.md): versioned signals in a
 * workspace that is double-buffered by the call's parity and never reset between calls.
 *
 * One process is one work-group of one rank. It runs CALLS calls; a rank's call starts when all
 * its work-groups have left the call before it (stream order). What a call does is chosen when its
 * first work-group starts it, among the operations compiled in, so every sequence of operations is
 * explored and a flag word gets different writers, or none for a long time.
 *
 * Memory is sequentially consistent here: order and scope are the business of other tests.
 *
 * Two kinds of variables:
 *   shared words   what the C has; they hold signal values v(n), 0 or 1 .. PERIOD
 *   ghosts         what only the model knows: the true number of the call, `i` in a work-group.
 *                  Data cells hold who wrote them in which true call; the assertions compare.
 * Waits are blocking expressions and every loop is bounded, so each execution is finite, and "no
 * invalid end state" means that every work-group completes every call.
 *
 * Compile-time choices (tests/protocol/test_model.py lists the checked ones):
 *   RANKS 2 | 3, GROUPS work-groups per rank, PERIOD odd and >= 3 (the C has INT32_MAX), CALLS,
 *   TILES, and the operations: ONE_SHOT, TWO_SHOT, SCATTER, RING, ACCUMULATE.
 *   MUTANT_...: one deliberate fault each; the check must then fail.
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef GROUPS
#define GROUPS 1
#endif
#ifndef PERIOD
#define PERIOD 3
#endif
#ifndef CALLS
#define CALLS 8
#endif
#ifndef TILES
#define TILES 1
#endif

/* Flag words of one half: per tile, one from every rank. */
#define FLAGS (TILES * RANKS)

mtype = { one_shot, two_shot, scatter, ring, accumulate };

/* ---- signal values: v(n), its successor, the half of call n ---- */

#define SIGNAL(n) (1 + ((n) - 1) % PERIOD)
#define NEXT(v) (1 + (v) % PERIOD)

#if defined(MUTANT_NO_PARITY)
#define HALF(n) 0
#elif defined(MUTANT_PARITY_OF_SIGNAL)
#define HALF(n) (SIGNAL(n) & 1)
#else
#define HALF(n) ((n) & 1)
#endif

/* A peer's word: the peer may be one call ahead. */
#if defined(MUTANT_EQUAL_WAIT)
#define REACHED(word, v) ((word) == (v))
#elif defined(MUTANT_GREATER_WAIT)
#define REACHED(word, v) ((word) >= (v))
#else
#define REACHED(word, v) ((word) == (v) || (word) == NEXT(v))
#endif

/* ---- a workspace per rank; the first index is the rank in whose memory the word lies ---- */

#define AT(r, p) ((r) * RANKS + (p))                       /* word of peer p */
#define SLOT(r, h, w) (((r) * 2 + (h)) * FLAGS + (w))      /* flag or staging cell w of half h */
#define RESULT(r, h, t) (((r) * 2 + (h)) * TILES + (t))    /* result staging */
#define RECORD(r, h, p) (((r) * 2 + (h)) * RANKS + (p))

byte calls[RANKS];                     /* completed calls; stands for the 64-bit counter */
byte pushed[RANKS];                    /* work_groups_pushed */
byte left[RANKS];                      /* work_groups_done */
byte arrived[RANKS * RANKS];
byte delivered[RANKS * RANKS];
byte done[RANKS * RANKS];
byte record[RANKS * 2 * RANKS];        /* holds the true call that published it (ghost value) */
byte flag[RANKS * 2 * FLAGS];
byte staging[RANKS * 2 * FLAGS];       /* holds CELL(i, writer) */
byte staged_result[RANKS * 2 * TILES]; /* holds the true call */
byte output[RANKS * TILES];            /* in the heap, one buffer; holds the true call */
#ifdef ACCUMULATE
byte accumulator[RANKS];               /* one per rank, not double-buffered: contributions added */
byte barriers[RANKS];                  /* the device barrier's own block: completed barriers */
byte barrier_arrived[RANKS * RANKS];
#endif

/* ---- ghosts ---- */

#define CELL(i, r) ((i) * RANKS + (r))

mtype operation[2];    /* what call i is, at i & 1: ranks are never more than one call apart */
byte tiles[2];         /* and how many tiles its shape has */
byte chosen;           /* calls whose operation is chosen */
byte running[RANKS];   /* the call that the rank's kernel is in, 0 between kernels */
byte finished[RANKS];  /* calls whose results are complete on the rank */
byte exits[RANKS];     /* work-groups that have ended, all calls together, modulo GROUPS per call */
byte launched[RANKS];  /* kernels that the stream has started */

/* Rank r keeps its output in the heap, or has it staged: both kinds in every configuration. */
#define STAGED(r) ((r) % 2 == 1)
#define OWNER(t) ((t) % RANKS)
#define MINE(t) ((t) % GROUPS == group) /* tiles that this work-group works on */

/* The word in which a partial tile is announced. It depends on the operation on purpose, so that
 * one word is written by different ranks, or by none, in successive calls. */
#define WORD(t, r) ((t) * RANKS + ((operation[i & 1] == one_shot) -> (r) : ((r) + 1) % RANKS))
#define RING_PARTIAL(t) ((t) * RANKS)
#define RING_RESULT(t) ((t) * RANKS + 1)

/* Macros where spin's inline would not do: it takes no array name as an argument. */

/* Waits until all peers' words in `words` have reached this call. */
#define WAIT_PEERS(words) \
    p = 0; \
    do \
    :: p < RANKS -> \
        if \
        :: p == rank \
        :: p != rank -> REACHED(words[AT(rank, p)], v) \
        fi; \
        p++ \
    :: p == RANKS -> break \
    od; \
    p = 0

/* Writes the call's signal into `words` of all peers, one store after the other. */
#define SIGNAL_PEERS(words) \
    p = 0; \
    do \
    :: p < RANKS -> \
        if \
        :: p == rank \
        :: p != rank -> words[AT(p, rank)] = v \
        fi; \
        p++ \
    :: p == RANKS -> break \
    od; \
    p = 0

/* A partial tile into rank p's staging, then its flag. */
#define PUSH_PARTIAL(w) \
    staging[SLOT(p, h, w)] = CELL(i, rank); \
    flag[SLOT(p, h, w)] = v

/* A finished tile to rank p: into its output, or its result staging, as its record says. */
inline push_result()
{
    if
    :: p == rank
    :: p != rank ->
#ifndef MUTANT_NO_ARRIVED
        REACHED(arrived[AT(rank, p)], v);
#endif
        /* The record is this call's, and nobody touches the output outside the owner's call. */
        assert(record[RECORD(rank, h, p)] == i);
        assert(running[p] == i)
    fi;
    if
    :: STAGED(p) -> staged_result[RESULT(p, h, t)] = i
    :: else -> output[p * TILES + t] = i
    fi
}

#define HAS_RESULT(r, t) \
    ((STAGED(r) && staged_result[RESULT(r, h, t)] == i) || \
     (!STAGED(r) && output[(r) * TILES + (t)] == i))

/* Waits for the partial tiles of tile t from all ranks and reads them: exactly this call's. */
inline reduce_partials()
{
    p = 0;
    do
    :: p < RANKS ->
        flag[SLOT(rank, h, WORD(t, p))] == v;
        p++
    :: p == RANKS -> break
    od;
    p = 0;
    do
    :: p < RANKS ->
        assert(staging[SLOT(rank, h, WORD(t, p))] == CELL(i, p));
        p++
    :: p == RANKS -> break
    od;
    p = 0
}

/* The next operation and its number of tiles; all ranks call the same. */
inline choose_operation()
{
    if
#ifdef ONE_SHOT
    :: operation[i & 1] = one_shot
#endif
#ifdef TWO_SHOT
    :: operation[i & 1] = two_shot
#endif
#ifdef SCATTER
    :: operation[i & 1] = scatter
#endif
#ifdef RING
    :: operation[i & 1] = ring
#endif
#ifdef ACCUMULATE
    :: operation[i & 1] = accumulate
#endif
    fi;
    if
    :: tiles[i & 1] = TILES
#if TILES > 1
    :: tiles[i & 1] = 1
#endif
    fi;
    chosen = i
}

#define OP (operation[i & 1])
#define COUNT (tiles[i & 1])

proctype work_group(byte rank; byte group)
{
    byte i = 1; /* ghost: the true number of the call */
    byte n;     /* the call's number as the kernel knows it */
    byte v;     /* its signal value */
    byte h;     /* its half */
    byte t, p;
    bit last;

    do
    :: i > CALLS -> break
    :: else ->
        /* Stream order: the kernel starts when all work-groups of the one before have ended. */
        atomic {
            (launched[rank] == i || (launched[rank] == i - 1 && exits[rank] == 0));
            if
            :: launched[rank] == i
            :: else ->
                /* Between the calls the output is the user's: complete and nobody writes it. */
                t = 0;
                do
                :: t < TILES ->
                    assert(STAGED(rank) || output[rank * TILES + t] <= i - 1);
                    t++
                :: else -> break
                od;
                t = 0;
                if
                :: chosen < i -> choose_operation()
                :: else
                fi;
                launched[rank] = i;
                exits[rank] = GROUPS;
                running[rank] = i
            fi
        }

#ifdef ACCUMULATE
        /* Before the kernel, on the stream: zero the accumulator, then the device barrier. */
        if
        :: OP == accumulate ->
            accumulator[rank] = 0;
            barriers[rank]++;
            n = barriers[rank];
            v = SIGNAL(n);
            SIGNAL_PEERS(barrier_arrived);
#ifndef MUTANT_NO_BARRIER
            WAIT_PEERS(barrier_arrived)
#endif
        :: else
        fi;
#endif

        /* Every work-group reads the counter for itself. */
        d_step {
            n = calls[rank] + 1;
            v = SIGNAL(n);
            h = HALF(n)
        }

        /* (0) The first work-group publishes where the output is, then ARRIVED. */
        if
        :: group == 0 ->
            do
            :: p < RANKS ->
                if
                :: p == rank
                :: p != rank ->
                    record[RECORD(p, h, rank)] = i;
                    arrived[AT(p, rank)] = v
                fi;
                p++
            :: p == RANKS -> break
            od;
            p = 0
        :: else
        fi;

        /* (1) Partial tiles to whoever reduces them, itself included. */
        do
        :: t < COUNT ->
            if
            :: MINE(t) && OP == one_shot ->
                do
                :: p < RANKS ->
                    PUSH_PARTIAL(WORD(t, rank));
                    p++
                :: p == RANKS -> break
                od;
                p = 0
            :: MINE(t) && (OP == two_shot || OP == scatter) ->
                p = OWNER(t);
                PUSH_PARTIAL(WORD(t, rank));
                p = 0
            :: else
            fi;
            t++
        :: t == COUNT -> break
        od;
        t = 0;

        /* (2) What this rank reduces or forwards, and pushes. */
        do
        :: t < COUNT ->
            if
            :: MINE(t) && OWNER(t) == rank && OP == two_shot ->
                reduce_partials();
                do
                :: p < RANKS ->
                    push_result();
                    p++
                :: p == RANKS -> break
                od;
                p = 0
#ifdef RING
            :: MINE(t) && OP == ring ->
                /* Sums run 0 -> 1 -> ... -> RANKS-1 ... */
                if
                :: rank > 0 ->
                    flag[SLOT(rank, h, RING_PARTIAL(t))] == v;
                    assert(staging[SLOT(rank, h, RING_PARTIAL(t))] == CELL(i, rank - 1))
                :: else
                fi;
                if
                :: rank < RANKS - 1 ->
                    p = rank + 1;
                    PUSH_PARTIAL(RING_PARTIAL(t));
                    /* ... and results RANKS-1 -> 0 -> 1 -> ... -> RANKS-2. */
                    flag[SLOT(rank, h, RING_RESULT(t))] == v;
                    assert(HAS_RESULT(rank, t))
                :: else ->
                    p = rank;
                    push_result()
                fi;
                if
                :: rank != RANKS - 2 ->
                    p = (rank + 1) % RANKS;
                    push_result();
                    flag[SLOT(p, h, RING_RESULT(t))] = v
                :: else
                fi;
                p = 0
#endif
#ifdef ACCUMULATE
            :: OP == accumulate && t == 0 ->
                do
                :: p < RANKS ->
                    accumulator[p]++;
                    p++
                :: p == RANKS -> break
                od;
                p = 0
#endif
            :: else
            fi;
            t++
        :: t == COUNT -> break
        od;
        t = 0;

        /* (3) The last work-group to finish pushing signals DELIVERED. */
        d_step {
            pushed[rank]++;
#ifdef MUTANT_FIRST_DELIVERS
            last = (pushed[rank] == 1)
#else
            last = (pushed[rank] == GROUPS)
#endif
        }
        if
        :: last -> SIGNAL_PEERS(delivered)
        :: else
        fi;

        /* What a rank reduces for itself alone comes after. */
        do
        :: t < COUNT ->
            if
            :: MINE(t) && (OP == one_shot || (OP == scatter && OWNER(t) == rank)) ->
                reduce_partials();
                p = rank;
                push_result();
                p = 0
            :: else
            fi;
            t++
        :: t == COUNT -> break
        od;
        t = 0;

        /* (4) Everything that the peers owe this rank is here. */
#ifdef MUTANT_SILENT_RANK
        if
        :: OP == scatter && rank >= COUNT /* owns no tile, is owed nothing, waits for nobody */
        :: else -> WAIT_PEERS(delivered)
        fi;
#else
        WAIT_PEERS(delivered);
#endif
        do
        :: t < COUNT ->
            if
            :: MINE(t) && (OP == one_shot || OP == two_shot || OP == ring ||
                           (OP == scatter && OWNER(t) == rank)) ->
                assert(HAS_RESULT(rank, t));
                if
                :: STAGED(rank) -> output[rank * TILES + t] = i
                :: else
                fi
#ifdef ACCUMULATE
            :: OP == accumulate && t == 0 -> assert(accumulator[rank] == RANKS)
#endif
            :: else
            fi;
            t++
        :: t == COUNT -> break
        od;
        t = 0;

        /* (5) The last work-group to leave ends the call. */
        d_step {
            left[rank]++;
            last = (left[rank] == GROUPS)
#ifdef MUTANT_FIRST_ADVANCES
            ;
            calls[rank] = (left[rank] == 1 -> n : calls[rank])
#endif
        }
        if
        :: last ->
            finished[rank] = i;
            SIGNAL_PEERS(done);
            if
            :: true -> /* the call is not async */
                WAIT_PEERS(done);
                do
                :: p < RANKS ->
                    assert(finished[p] >= i);
                    p++
                :: p == RANKS -> break
                od;
                p = 0
            :: true /* async */
            fi;
            /* NOTE [wrap]: once per period each half's flags go back to "never signalled". */
#ifndef MUTANT_NO_ZEROING
            if
            :: v >= PERIOD - 1 ->
                do
                :: t < FLAGS ->
                    flag[SLOT(rank, h, t)] = 0;
                    t++
                :: t == FLAGS -> break
                od;
                t = 0
            :: else
            fi;
#endif
            d_step {
                pushed[rank] = 0;
                left[rank] = 0;
                running[rank] = 0
            }
#ifndef MUTANT_FIRST_ADVANCES
            calls[rank] = n /* (6) */
#endif
        :: else
        fi;
        d_step {
            exits[rank]--;
            last = 0;
            n = 0;
            v = 0;
            h = 0;
            i++
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
            :: g < GROUPS ->
                run work_group(r, g);
                g++
            :: else -> break
            od;
            r++
        :: else -> break
        od
    }
}
