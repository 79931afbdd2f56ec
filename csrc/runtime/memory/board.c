/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A claim word holds the low 16 bits of the call's number, the storage's id, and the signature of
 * the call. Its slot serves every 256th call, so the number tells this call's claim from an old
 * one; ranks are never more than IRIS_BOARD_LEAD plus IRIS_BOARD_CHECK calls apart.
 */
#include "board.h"

#include <time.h>

#include "base/wait.h"

/* How often the slowest rank's progress is looked at, in calls. */
enum { IRIS_BOARD_CHECK = 64 };
/* The first sleep of a wait; the longest is 64 times as long. */
enum { IRIS_BOARD_NAP_NS = 20000 };
/* How long an exchange looks before it sleeps. */
enum { IRIS_BOARD_SPIN_NS = 20000 };
_Static_assert(IRIS_BOARD_LEAD + IRIS_BOARD_CHECK < IRIS_BOARD_SLOTS,
               "a slot must not be overwritten while a slow rank still needs it");

static uint64_t claim_make(uint64_t number, uint32_t id, uint32_t signature)
{
    return number << 48 | (uint64_t)id << 32 | signature;
}

static bool claim_is_of(uint64_t claim, uint64_t number)
{
    return claim >> 48 == (number & 0xffff) && (claim >> 32 & 0xffff) != 0;
}

static uint32_t claim_storage(uint64_t claim)
{
    return (uint32_t)(claim >> 32 & 0xffff);
}

struct board_wait {
    uint64_t started_ns, asked_ns;
    uint32_t round;
};

static struct board_wait begin_wait(void)
{
    return (struct board_wait){.started_ns = iris_clock_ns()};
}

/* One pause of a waiting host: a sleep, longer from round to round. (A yield would cost a time
 * slice where another process has use for the core.) Ends with IRIS_EPEER when waiting has become
 * pointless; iris_op_run says in which call. */
static enum iris_status pause_for(struct iris_context *ctx, struct board_wait *wait, int missing)
{
    enum iris_departure departure;
    const int gone = iris_bootstrap_departed_rank(ctx->bootstrap, &departure);
    uint64_t now;

    if (gone >= 0) {
        IRIS_FAIL(IRIS_EPEER, "rank %d %s", gone, iris_bootstrap_departure_text(departure));
        iris_error_last()->rank = gone;
        return IRIS_EPEER;
    }
    now = iris_clock_ns();
    if (iris_wait_is_over(now, &wait->asked_ns) || atomic_load(&ctx->interrupted))
        return IRIS_FAIL(IRIS_EINTERRUPTED, "this rank was interrupted");
    if (now - wait->started_ns > ctx->timeout_ns) {
        iris_control_give_up(ctx->control, ctx->rank, missing);
        IRIS_FAIL(
            IRIS_EPEER,
            "rank %d did not come to the same call, number %llu of this context, within %g s; "
            "it has come to number %llu",
            missing, (unsigned long long)ctx->op_number, (double)ctx->timeout_ns * 1e-9,
            (unsigned long long)iris_control_posted(ctx->control, missing));
        iris_error_last()->rank = missing;
        return IRIS_EPEER;
    }
    const struct timespec nap = {0, IRIS_BOARD_NAP_NS << (wait->round < 6 ? wait->round : 6)};
    (void)nanosleep(&nap, NULL);
    ++wait->round;
    return IRIS_OK;
}

/* The lowest rank that has not described call `number` yet, or -1. */
static int missing_rank(const struct iris_context *ctx, uint64_t number)
{
    for (int rank = 0; rank < ctx->world_size; ++rank)
        if (iris_control_posted(ctx->control, rank) < number)
            return rank;
    return -1;
}

static enum iris_status wait_posted(struct iris_context *ctx, uint64_t number)
{
    struct board_wait wait = begin_wait();
    int missing;

    while ((missing = missing_rank(ctx, number)) >= 0)
        IRIS_TRY(pause_for(ctx, &wait, missing));
    return IRIS_OK;
}

/* Sets the call's claim unless a peer has; returns what stands there. */
static uint64_t claim(struct iris_context *ctx, uint64_t number, uint64_t wanted)
{
    uint64_t *word = &ctx->control->claims[number % IRIS_BOARD_SLOTS];
    uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

    while (!claim_is_of(seen, number))
        if (__atomic_compare_exchange_n(word, &seen, wanted, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return wanted;
    return seen;
}

/* What is known once all ranks have described a call. */
struct board_view {
    bool claims; /* somebody will claim */
    bool differ, stages;
    uint32_t storage_id; /* of the lowest rank that has one; 0: none has */
};

static struct board_view view_of(const struct iris_context *ctx, uint64_t number,
                                 uint32_t signature)
{
    struct board_view view = {false, false, false, 0};

    for (int rank = 0; rank < ctx->world_size; ++rank) {
        const struct iris_board_entry *entry =
            &ctx->control->entries[rank][number % IRIS_BOARD_SLOTS];
        view.claims = view.claims || entry->claims != 0;
        view.differ = view.differ || entry->signature != signature;
        view.stages = view.stages || entry->stages != 0;
        if (view.storage_id == 0)
            view.storage_id = entry->storage;
    }
    return view;
}

/* For a rank that may not claim. A peer that announced a claim will make it: only when all have
 * described the call and none has do all decide by what they see, which is the same. */
static enum iris_status wait_for_claim(struct iris_context *ctx, uint64_t number,
                                       uint32_t signature, struct iris_board_verdict *out)
{
    const uint64_t *word = &ctx->control->claims[number % IRIS_BOARD_SLOTS];
    struct board_wait wait = begin_wait();

    for (;;) {
        const uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        const int missing = missing_rank(ctx, number);

        if (claim_is_of(seen, number)) {
            out->kind = (uint32_t)seen == signature ? IRIS_BOARD_USE : IRIS_BOARD_DIFFER;
            out->storage_id = claim_storage(seen);
            return IRIS_OK;
        }
        if (IRIS_ABORT_REASON(iris_control_aborted(ctx->control, ctx->rank)) ==
            IRIS_ABORT_MISMATCH) {
            out->kind = IRIS_BOARD_DIFFER;
            return IRIS_OK;
        }
        if (missing < 0) {
            const struct board_view view = view_of(ctx, number, signature);
            if (!view.claims) {
                out->kind = view.differ                           ? IRIS_BOARD_DIFFER
                            : view.stages || view.storage_id == 0 ? IRIS_BOARD_MAKE
                                                                  : IRIS_BOARD_USE;
                out->storage_id = view.storage_id;
                if (out->kind == IRIS_BOARD_USE)
                    (void)claim(ctx, number, claim_make(number, view.storage_id, signature));
                return IRIS_OK;
            }
        }
        IRIS_TRY(pause_for(ctx, &wait, missing));
    }
}

/* Begins this rank's next call: numbers and describes it. *equal: no difference is known yet. */
static enum iris_status post(struct iris_context *ctx, const struct iris_board_entry *description,
                             bool *equal)
{
    const uint64_t number = ++ctx->op_number;
    struct iris_control *control = ctx->control;

    *equal = true;
    if (number % IRIS_BOARD_CHECK == 0 && number > IRIS_BOARD_LEAD)
        IRIS_TRY(wait_posted(ctx, number - IRIS_BOARD_LEAD));
    control->entries[ctx->rank][number % IRIS_BOARD_SLOTS] = *description;
    __atomic_store_n(&control->posted[ctx->rank].value, number, __ATOMIC_RELEASE);
    if (ctx->debug)
        IRIS_TRY(iris_bootstrap_agree(ctx->bootstrap, "debug", &description->signature,
                                      sizeof description->signature, 0, equal, NULL));
    if (IRIS_ABORT_REASON(iris_control_aborted(control, ctx->rank)) == IRIS_ABORT_MISMATCH)
        *equal = false;
    return IRIS_OK;
}

enum iris_status iris_board_settle(struct iris_context *ctx, const struct iris_board_offer *offer,
                                   struct iris_board_verdict *out)
{
    const uint32_t signature = offer->signature;
    const struct iris_board_entry description = {
        .signature = signature,
        .storage = offer->storage_id,
        .claims = offer->storage_id != 0 && offer->suits_all,
        .stages = offer->stages,
    };
    uint64_t seen;
    bool equal;

    if (ctx->world_size == 1) {
        out->kind = offer->storage_id != 0 ? IRIS_BOARD_USE : IRIS_BOARD_MAKE;
        out->storage_id = offer->storage_id;
        return IRIS_OK;
    }
    IRIS_TRY(post(ctx, &description, &equal));
    if (!equal) {
        out->kind = IRIS_BOARD_DIFFER;
        return IRIS_OK;
    }
    if (!description.claims)
        return wait_for_claim(ctx, ctx->op_number, signature, out);
    seen = claim(ctx, ctx->op_number, claim_make(ctx->op_number, offer->storage_id, signature));
    out->kind = (uint32_t)seen == signature ? IRIS_BOARD_USE : IRIS_BOARD_DIFFER;
    out->storage_id = claim_storage(seen);
    return IRIS_OK;
}

/* Looks at the board again and again for a moment: hosts that are in step meet so. */
static void spin_posted(const struct iris_context *ctx, uint64_t number)
{
    const uint64_t end = iris_clock_ns() + IRIS_BOARD_SPIN_NS;

    while (missing_rank(ctx, number) >= 0 && iris_clock_ns() < end)
        ;
}

enum iris_status iris_board_exchange(struct iris_context *ctx, uint32_t signature, int64_t value,
                                     int64_t *out, enum iris_board_kind *kind)
{
    const struct iris_board_entry description = {.signature = signature, .value = value};
    uint64_t number, seen;
    bool equal;

    *kind = IRIS_BOARD_USE;
    if (ctx->world_size == 1) {
        out[0] = value;
        return IRIS_OK;
    }
    IRIS_TRY(post(ctx, &description, &equal));
    number = ctx->op_number;
    /* The claim names no storage that there can be. It tells a rank that brings another call, and
     * leaves no old claim in the slot. */
    seen = claim(ctx, number, claim_make(number, IRIS_MAX_STORAGE_ID, signature));
    if (!equal || (uint32_t)seen != signature) {
        *kind = IRIS_BOARD_DIFFER;
        return IRIS_OK;
    }
    spin_posted(ctx, number);
    IRIS_TRY(wait_posted(ctx, number));
    for (int rank = 0; rank < ctx->world_size; ++rank) {
        const struct iris_board_entry *entry =
            &ctx->control->entries[rank][number % IRIS_BOARD_SLOTS];

        if (entry->signature != signature)
            *kind = IRIS_BOARD_DIFFER;
        out[rank] = entry->value;
    }
    return IRIS_OK;
}

uint32_t iris_board_claimed(const struct iris_context *ctx)
{
    const uint64_t *word = &ctx->control->claims[ctx->op_number % IRIS_BOARD_SLOTS];
    const uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

    return claim_is_of(seen, ctx->op_number) ? claim_storage(seen) : 0;
}

void iris_board_claim_made(struct iris_context *ctx, uint32_t signature, uint32_t storage_id)
{
    if (ctx->world_size > 1)
        (void)claim(ctx, ctx->op_number, claim_make(ctx->op_number, storage_id, signature));
}

enum iris_status iris_board_wait_all(struct iris_context *ctx)
{
    return wait_posted(ctx, ctx->op_number);
}
