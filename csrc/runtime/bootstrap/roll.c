/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "roll.h"

#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/wait.h"

/* Between two looks at the words; a death ends the nap. */
enum { NAP_MS = 1 };

static uint32_t bit(int rank)
{
    return UINT32_C(1) << rank;
}

static uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

/* Whoever is first decides. */
static void set_once(uint32_t *word, uint32_t value)
{
    uint32_t expected = 0;

    (void)__atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST);
}

static struct iris_roll_round *round_of(const struct iris_roll_call *call)
{
    return &call->roll->rounds[call->round];
}

void iris_roll_init(struct iris_roll *roll)
{
    if (getrandom(&roll->nonce, sizeof roll->nonce, GRND_NONBLOCK) != (ssize_t)sizeof roll->nonce)
        roll->nonce = iris_clock_ns() ^ (uint64_t)getpid() << 40;
}

uint32_t iris_roll_came(const struct iris_roll *roll)
{
    return load(&roll->rounds[0].came);
}

/* "ranks 0 and 2", "rank 1": those whose bit is set. */
static void name_ranks(uint32_t ranks, char *text, size_t size)
{
    const int count = __builtin_popcount(ranks);
    int named = 0;
    size_t used = (size_t)snprintf(text, size, count == 1 ? "rank" : "ranks");

    for (int rank = 0; rank < IRIS_MAX_RANKS && used < size; ++rank) {
        if ((ranks & bit(rank)) == 0)
            continue;
        const char *before = named == 0 ? " " : named == count - 1 ? " and " : ", ";
        used += (size_t)snprintf(text + used, size - used, "%s%d", before, rank);
        ++named;
    }
}

static enum iris_status too_late(const struct iris_roll_call *call, uint32_t members)
{
    char others[96];

    name_ranks(members, others, sizeof others);
    IRIS_FAIL(IRIS_EPEER, "rank %d came too late for survivors(); %s went on without it",
              call->rank, others);
    iris_error_last()->rank = call->rank;
    return IRIS_EPEER;
}

static enum iris_status interrupted(void)
{
    return IRIS_FAIL(IRIS_EINTERRUPTED, "survivors: it was interrupted");
}

enum iris_status iris_roll_decide(struct iris_roll_call *call, uint64_t deadline)
{
    struct iris_roll_round *round = round_of(call);
    const uint32_t candidates = call->members, others = candidates & ~bit(call->rank);
    uint64_t asked = 0;
    uint32_t members;

    (void)__atomic_fetch_or(&round->came, bit(call->rank), __ATOMIC_SEQ_CST);
    for (int nap = 0; (members = load(&round->members)) == 0; nap = NAP_MS) {
        const uint32_t ended = iris_lifelines_watch(call->lines, others, nap);
        const uint32_t came = load(&round->came);

        if (iris_wait_is_over(iris_clock_ns(), &asked))
            return interrupted();
        if ((others & ~came & ~ended) == 0 || iris_clock_ns() >= deadline)
            set_once(&round->members, candidates & came & ~ended);
    }
    if ((members & bit(call->rank)) == 0)
        return too_late(call, members);
    call->members = members;
    return IRIS_OK;
}

bool iris_roll_is_hopeless(const struct iris_roll_call *call)
{
    return load(&round_of(call)->outcome) == IRIS_ROLL_AGAIN ||
           iris_lifelines_watch(call->lines, call->members & ~bit(call->rank), 0) != 0;
}

enum iris_status iris_roll_settle(const struct iris_roll_call *call, enum iris_roll_made made,
                                  uint64_t deadline, enum iris_roll_outcome *out)
{
    struct iris_roll_round *round = round_of(call);
    const uint32_t others = call->members & ~bit(call->rank);
    uint64_t asked = 0;
    uint32_t outcome;

    if (made == IRIS_ROLL_MADE)
        (void)__atomic_fetch_or(&round->ready, bit(call->rank), __ATOMIC_SEQ_CST);
    for (int nap = 0; (outcome = load(&round->outcome)) == IRIS_ROLL_OPEN; nap = NAP_MS) {
        const uint32_t ended = iris_lifelines_watch(call->lines, others, nap);
        const bool late = iris_clock_ns() >= deadline;

        if (iris_wait_is_over(iris_clock_ns(), &asked))
            return interrupted();
        if (load(&round->ready) == call->members)
            set_once(&round->outcome, IRIS_ROLL_WHOLE);
        else if (ended == 0 && late && made == IRIS_ROLL_FAILED)
            break;
        else if (ended != 0 || late)
            set_once(&round->outcome, IRIS_ROLL_AGAIN);
    }
    *out = (enum iris_roll_outcome)outcome;
    return IRIS_OK;
}
