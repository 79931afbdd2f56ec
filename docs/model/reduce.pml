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
 *   TILES, and the operations: ONE_SHOT, TWO_SHOT, SCATTER, FETCH, RING, ACCUMULATE.
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

mtype = { one_shot, two_shot, scatter, fetch, ring, accumulate };

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
byte barriers[RANKS];                  /* the device barrier's own block: its last signal value */
byte barrier_arrived[RANKS * RANKS];
#endif

/* ---- ghosts ---- */

#define CELL(i, r) ((i) * RANKS + (r))

mtype operation[2];    /* what call i is, at i & 1: ranks are never more than one call apart */
byte tiles[2];         /* and how many tiles its shape has */
#define OP (operation[i & 1])
#define COUNT (tiles[i & 1])
byte chosen;           /* calls whose operation is chosen */
byte running[RANKS];   /* the call that the rank's kernel is in, 0 between kernels */
byte finished[RANKS];  /* calls whose results are complete on the rank */
byte launched[RANKS];  /* kernels that the stream has started */
byte running_groups[RANKS]; /* work-groups of the last of them that have not ended */

/* Rank r keeps its output in the heap, or has it staged: both kinds in every configuration. */
#define STAGED(r) ((r) % 2 == 1)
#define OWNER(t) ((t) % RANKS)
#define MINE(t) ((t) % GROUPS == group) /* tiles that this work-group works on */
#ifdef MUTANT_FIRST_DELIVERS
#define LAST_TO_PUSH 1
#else
#define LAST_TO_PUSH GROUPS
#endif

/* The word in which a partial tile is announced. It depends on the operation on purpose, so that
 * one word is written by different ranks, or by none, in successive calls. */
#define WORD(t, r) ((t) * RANKS + ((operation[i & 1] == one_shot) -> (r) : ((r) + 1) % RANKS))
#define RING_PARTIAL(t) ((t) * RANKS)
#define RING_RESULT(t) ((t) * RANKS + 1)

/* ---- steps ----
 * One atomic block is one step that others see as a whole. What is joined, and why nothing is lost:
 *   a store of data and the store of its flag: stores never block, so whatever a reader could see
 *     between the two it can also see, as far as the data goes, after both;
 *   a wait for several words: a word that has come stays until the waiter's call ends, because no
 *     rank is two calls ahead (asserted at every store into a peer's memory);
 *   the reads after a wait: overwritten data stays wrong, so the latest read sees the most.
 * A wait and the reads that it guards are never joined, nor are two stores to different peers.
 * Macros where spin's inline would not do: it takes no array name as an argument. */

/* What this rank may write in a peer's workspace: the peer has completed call i - 2. */
#define REUSE_IS_SAFE(p) assert(launched[p] + 1 >= i)

#if RANKS == 2
#define ALL_PEERS(words) REACHED(words[AT(rank, 1 - rank)], v)
#define ALL_PARTIALS(t) \
    (flag[SLOT(rank, h, WORD(t, 0))] == v && flag[SLOT(rank, h, WORD(t, 1))] == v)
#else
#define ALL_PEERS(words) \
    (REACHED(words[AT(rank, (rank + 1) % 3)], v) && REACHED(words[AT(rank, (rank + 2) % 3)], v))
#define ALL_PARTIALS(t) \
    (flag[SLOT(rank, h, WORD(t, 0))] == v && flag[SLOT(rank, h, WORD(t, 1))] == v && \
     flag[SLOT(rank, h, WORD(t, 2))] == v)
#endif

/* Goes through `statement` for every rank p, each time one step. */
#define FOR_EACH_RANK(statement) \
    do \
    :: atomic { p < RANKS -> statement; p++ } \
    :: atomic { p == RANKS -> p = 0; break } \
    od
#define FOR_EACH_PEER(statement) \
    do \
    :: atomic { p < RANKS && p != rank -> statement; p++ } \
    :: atomic { p == rank -> p++ } \
    :: atomic { p == RANKS -> p = 0; break } \
    od
#define FOR_EACH_TILE(statement) \
    do \
    :: t < COUNT -> statement; t++ \
    :: t == COUNT -> t = 0; break \
    od

/* Writes the call's signal into `words` of all peers, one store after the other. */
#define SIGNAL_PEERS(words) FOR_EACH_PEER(REUSE_IS_SAFE(p); words[AT(p, rank)] = v)

/* A partial tile into rank p's staging, then its flag. */
#define PUSH_PARTIAL(w) \
    REUSE_IS_SAFE(p); \
    staging[SLOT(p, h, w)] = CELL(i, rank); \
    flag[SLOT(p, h, w)] = v

/* A partial tile in this rank's own staging, then its flag on rank p, who will fetch it. */
#define LEAVE_PARTIAL(w) \
    REUSE_IS_SAFE(p); \
    staging[SLOT(rank, h, w)] = CELL(i, rank); \
    flag[SLOT(p, h, w)] = v

/* A finished tile to rank p: into its output, or its result staging, as its record says. */
inline push_result()
{
#ifdef MUTANT_NO_ARRIVED
    true;
#else
    (p == rank || REACHED(arrived[AT(rank, p)], v));
#endif
    /* The record is this call's, and the output is written inside its rank's call only. */
    assert(p == rank || record[RECORD(rank, h, p)] == i);
    assert(running[p] == i);
    if
    :: STAGED(p) -> staged_result[RESULT(p, h, t)] = i
    :: else -> output[p * TILES + t] = i
    fi
}

#define HAS_RESULT(r, t) \
    ((STAGED(r) && staged_result[RESULT(r, h, t)] == i) || \
     (!STAGED(r) && output[(r) * TILES + (t)] == i))

/* Waits for the partial tiles of tile t from all ranks, then reads them, here or, fetched, where
 * they were left: exactly this call's. Rank p's half reads as old once p has ended the call. */
inline reduce_partials()
{
    ALL_PARTIALS(t);
    d_step {
        do
        :: p < RANKS ->
            assert(staging[SLOT((OP == fetch -> p : rank), h, WORD(t, p))] == CELL(i, p));
            p++
        :: else -> break
        od;
        p = 0
    }
}

/* Ghost: what this call left in its half's data reads as "old" from now on. It would anyway, since
 * later calls expect their own number; one value for everything old keeps the state space small.
 * Signals are not touched: their old values are what the protocol has to live with. */
inline forget_data()
{
    do
    :: t < FLAGS -> staging[SLOT(rank, h, t)] = 0; t++
    :: else -> break
    od;
    t = 0;
    do
    :: t < TILES ->
        staged_result[RESULT(rank, h, t)] = 0;
        output[rank * TILES + t] = 0;
        t++
    :: else -> break
    od;
    t = 0;
    do
    :: p < RANKS -> record[RECORD(rank, h, p)] = 0; p++
    :: else -> break
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
#ifdef FETCH
    :: operation[i & 1] = fetch
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

proctype work_group(byte rank; byte group)
{
    byte i = 1; /* ghost: the true number of the call */
    byte v;     /* the signal value as the kernel knows it */
    bit h;      /* the half as the kernel knows it */
    byte t, p;

    do
    :: i > CALLS -> break
    :: else ->
        /* Stream order: the kernel starts when all work-groups of the one before have ended. */
        atomic {
            (launched[rank] == i || (launched[rank] == i - 1 && running_groups[rank] == 0));
            if
            :: launched[rank] == i
            :: else ->
                if
                :: chosen < i -> choose_operation()
                :: else
                fi;
                launched[rank] = i;
                running_groups[rank] = GROUPS;
                running[rank] = i
            fi
        }

#ifdef ACCUMULATE
        /* Before the kernel, on the stream: zero the accumulator, then the device barrier. */
        if
        :: OP == accumulate ->
            atomic {
                accumulator[rank] = 0;
                v = NEXT(barriers[rank]);
                barriers[rank] = v
            }
            SIGNAL_PEERS(barrier_arrived);
#ifdef MUTANT_NO_BARRIER
            skip
#else
            ALL_PEERS(barrier_arrived)
#endif
        :: else
        fi;
#endif

        /* Every work-group reads the counter for itself. */
        d_step {
            v = SIGNAL(calls[rank] + 1);
            h = HALF(calls[rank] + 1)
        }

        /* (0) The first work-group publishes where the output is, then ARRIVED. */
        if
        :: group == 0 ->
            FOR_EACH_PEER(
                REUSE_IS_SAFE(p);
                record[RECORD(p, h, rank)] = i;
                arrived[AT(p, rank)] = v)
        :: else
        fi;

        /* (1) Partial tiles to whoever reduces them, itself included. */
        FOR_EACH_TILE(
            if
            :: MINE(t) && OP == one_shot -> FOR_EACH_RANK(PUSH_PARTIAL(WORD(t, rank)))
            :: MINE(t) && (OP == two_shot || OP == scatter) ->
                atomic {
                    p = OWNER(t);
                    PUSH_PARTIAL(WORD(t, rank));
                    p = 0
                }
            :: MINE(t) && OP == fetch ->
                atomic {
                    p = OWNER(t);
                    LEAVE_PARTIAL(WORD(t, rank));
                    p = 0
                }
            :: else
            fi);

        /* (2) What this rank reduces or forwards, and pushes. */
        FOR_EACH_TILE(
            if
            :: MINE(t) && OP == two_shot && OWNER(t) == rank ->
                reduce_partials();
                FOR_EACH_RANK(push_result())
#ifndef MUTANT_FETCHED_LATE
            :: MINE(t) && OP == fetch && OWNER(t) == rank ->
                reduce_partials();
                atomic {
                    p = rank;
                    push_result();
                    p = 0
                }
#endif
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
                    atomic {
                        p = rank + 1;
                        PUSH_PARTIAL(RING_PARTIAL(t));
                        p = 0
                    }
                    /* ... and results RANKS-1 -> 0 -> 1 -> ... -> RANKS-2. */
                    flag[SLOT(rank, h, RING_RESULT(t))] == v;
                    assert(HAS_RESULT(rank, t))
                :: else ->
                    atomic {
                        p = rank;
                        push_result();
                        p = 0
                    }
                fi;
                if
                :: rank != RANKS - 2 ->
                    atomic {
                        p = (rank + 1) % RANKS;
                        push_result();
                        REUSE_IS_SAFE(p);
                        flag[SLOT(p, h, RING_RESULT(t))] = v;
                        p = 0
                    }
                :: else
                fi
#ifdef ACCUMULATE
            :: MINE(t) && OP == accumulate && t == 0 -> FOR_EACH_RANK(accumulator[p]++)
#endif
            :: else
            fi);

        /* (3) The last work-group to finish pushing signals DELIVERED. */
        if
        :: d_step { (pushed[rank] + 1 == LAST_TO_PUSH) -> pushed[rank]++ };
            SIGNAL_PEERS(delivered)
        :: d_step { (pushed[rank] + 1 != LAST_TO_PUSH) -> pushed[rank]++ }
        fi;

        /* What a rank reduces for itself alone comes after. */
        FOR_EACH_TILE(
            if
#ifdef MUTANT_FETCHED_LATE
            :: MINE(t) && OP == fetch && OWNER(t) == rank ->
                reduce_partials();
                output[rank * TILES + t] = i
#endif
            :: MINE(t) && (OP == one_shot || (OP == scatter && OWNER(t) == rank)) ->
                reduce_partials();
                atomic {
                    p = rank;
                    push_result();
                    p = 0
                }
            :: else
            fi);

        /* (4) Everything that the peers owe this rank is here: copy staged results out. */
#ifdef MUTANT_SILENT_RANK
        /* A rank that owns no tile is owed nothing, so it waits for nobody. */
        (((OP == scatter || OP == fetch) && rank >= COUNT) || ALL_PEERS(delivered));
#else
        ALL_PEERS(delivered);
#endif
        d_step {
            do
            :: t < COUNT ->
                if
                :: MINE(t) && OP != accumulate &&
                   ((OP != scatter && OP != fetch) || OWNER(t) == rank) ->
                    assert(HAS_RESULT(rank, t));
                    output[rank * TILES + t] = i
#ifdef ACCUMULATE
                :: MINE(t) && OP == accumulate && t == 0 -> assert(accumulator[rank] == RANKS)
#endif
                :: else
                fi;
                t++
            :: else -> break
            od;
            t = 0
        }

        /* (5) The last work-group to leave ends the call. */
        if
        :: d_step { (left[rank] + 1 == GROUPS) -> left[rank]++; finished[rank] = i };
#ifdef MUTANT_FIRST_ADVANCES
            calls[rank] = (GROUPS == 1 -> calls[rank] + 1 : calls[rank]);
#endif
            SIGNAL_PEERS(done);
            if
            :: ALL_PEERS(done) -> /* the call is not async */
                d_step {
                    do
                    :: p < RANKS ->
                        assert(finished[p] >= i);
                        p++
                    :: else -> break
                    od;
                    p = 0
                }
            :: true /* async */
            fi;
            d_step {
                /* NOTE [wrap]: once per period each half's flags go back to "never signalled". */
#ifndef MUTANT_NO_ZEROING
                if
                :: v >= PERIOD - 1 ->
                    do
                    :: t < FLAGS ->
                        flag[SLOT(rank, h, t)] = 0;
                        t++
                    :: else -> break
                    od;
                    t = 0
                :: else
                fi;
#endif
                pushed[rank] = 0;
                left[rank] = 0;
                running[rank] = 0;
                forget_data();
#ifndef MUTANT_FIRST_ADVANCES
                calls[rank]++; /* (6) */
#endif
                running_groups[rank]--;
                v = 0;
                h = 0;
                i++
            }
        :: d_step {
            (left[rank] + 1 != GROUPS) ->
                left[rank]++;
#ifdef MUTANT_FIRST_ADVANCES
                calls[rank]++;
#endif
                running_groups[rank]--;
                v = 0;
                h = 0;
                i++
            }
        fi
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
