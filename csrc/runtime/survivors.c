/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * From a context that has lost ranks to one of those that are left.
 *
 * Who they are is agreed on in the old context's control segment (bootstrap/roll.h), which every
 * rank has mapped and which needs nobody in particular to live. Who lives is told by the lifelines.
 * The new context is made as any other, under a run key of the world's nonce and the round, so that
 * nobody who is late, or of another round, can meet the wrong ranks.
 *
 * A rank leaves the old context before it says that it goes on: its waits have ended, its device is
 * idle, and it has unmapped the peers' memory. So once the members are decided none of them can
 * touch the old heaps, and this rank's goes with its last tensor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "context.h"
#include "context_end.h"

/* What fails for want of a peer may be seen before the peer's end is: how long that is waited for.
 */
static const uint64_t GRACE_NS = UINT64_C(1000000000);

static enum iris_status check_meeting(void *arg)
{
    return iris_roll_is_hopeless(arg) ? IRIS_FAIL(IRIS_EPEER, "survivors: a rank was lost again")
                                      : IRIS_OK;
}

/* The first of `missing` is named as the group names it. */
static enum iris_status missed_member(const struct iris_members *members, uint32_t missing,
                                      const char *why)
{
    const int rank = __builtin_popcount(members->ranks & ((missing & -missing) - 1));

    IRIS_FAIL(IRIS_EPEER, "init: rank %d %s", rank, why);
    iris_error_last()->rank = rank;
    return IRIS_EPEER;
}

enum iris_status iris_members_check(void *arg)
{
    const struct iris_members *members = arg;
    struct iris_context *parent = members->parent;
    const uint32_t gone = iris_lifelines_watch(&parent->lifelines, members->ranks, 0);
    const uint32_t going_on = iris_roll_came(&parent->control->roll) & members->ranks;

    if (gone != 0)
        return missed_member(members, gone, "died, or closed its context, before it came");
    if (going_on != 0)
        return missed_member(members, going_on, "called survivors() instead");
    return IRIS_OK;
}

/* One rank of the members makes its context of the round. */
static enum iris_status make_context(const struct iris_context *old, struct iris_roll_call *call,
                                     struct iris_context **out)
{
    const uint32_t lower = (UINT32_C(1) << old->rank) - 1;
    const size_t size = strlen(old->run_key) + 64;
    struct iris_context_options options = {
        .heap_size = old->heap_size,
        .local_size = old->local_size,
        .backend = old->ops->name,
        .rank = __builtin_popcount(call->members & lower),
        .world_size = __builtin_popcount(call->members),
        .local_rank = old->local_rank,
        .timeout = (double)old->timeout_ns * 1e-9,
        .num_threads = old->num_threads,
        .kernel_directory = old->kernel_directory,
        .debug = old->debug,
        .check_meeting = check_meeting,
        .check_meeting_arg = call,
    };
    enum iris_status status;
    char *run_key;

    IRIS_TRY(iris_alloc_zeroed(size, (void **)&run_key));
    (void)snprintf(run_key, size, "%s/survivors of %016llx, round %d", old->run_key,
                   (unsigned long long)call->roll->nonce, call->round);
    options.run_key = run_key;
    status = iris_context_create(&options, out);
    free(run_key);
    return status;
}

static enum iris_roll_made how_it_went(enum iris_status status)
{
    if (status == IRIS_OK)
        return IRIS_ROLL_MADE;
    return status == IRIS_EPEER ? IRIS_ROLL_MISSED : IRIS_ROLL_FAILED;
}

/* Makes the context, and sees whether the members keep it: *out is NULL if not. */
static enum iris_status go_through_round(const struct iris_context *old,
                                         struct iris_roll_call *call, struct iris_context **out)
{
    struct iris_context *made = NULL;
    const enum iris_status status = make_context(old, call, &made);
    const uint64_t patience = status == IRIS_OK ? old->timeout_ns : GRACE_NS;
    struct iris_error saved;
    enum iris_roll_outcome outcome = IRIS_ROLL_OPEN;
    enum iris_status settled = status;

    iris_error_save(&saved);
    if (status != IRIS_EINTERRUPTED)
        settled = iris_roll_settle(call, how_it_went(status), iris_clock_ns() + patience, &outcome);
    if (settled == IRIS_OK && outcome == IRIS_ROLL_WHOLE) {
        *out = made;
        return IRIS_OK;
    }
    if (settled != IRIS_OK)
        iris_error_save(&saved);
    iris_context_release(made);
    *out = NULL;
    if (settled == IRIS_OK && outcome == IRIS_ROLL_AGAIN)
        return IRIS_OK;
    iris_error_restore(&saved);
    return settled != IRIS_OK ? settled : status;
}

static enum iris_status go_on(struct iris_context *old, uint64_t timeout_ns,
                              struct iris_roll_call *call, struct iris_context **out)
{
    for (call->round = 0; call->round < IRIS_ROLL_ROUNDS; ++call->round) {
        IRIS_TRY(iris_roll_decide(call, iris_clock_ns() + timeout_ns));
        IRIS_TRY(go_through_round(old, call, out));
        if (*out != NULL)
            return IRIS_OK;
    }
    return IRIS_FAIL(IRIS_EPEER,
                     "survivors: no world held for %d rounds; ranks stop, or die, "
                     "faster than they meet",
                     IRIS_ROLL_ROUNDS);
}

enum iris_status iris_context_survivors(struct iris_context *ctx, const double *timeout,
                                        struct iris_context **out, int *ranks)
{
    struct iris_roll_call call = {
        .lines = &ctx->lifelines,
        .rank = ctx->rank,
        .members = (UINT32_C(1) << ctx->world_size) - 1,
    };
    const uint64_t timeout_ns = timeout != NULL ? (uint64_t)(*timeout * 1e9) : ctx->timeout_ns;
    enum iris_status status;
    int count = 0;

    IRIS_TRY(iris_context_check_process(ctx));
    if (timeout != NULL && !(*timeout > 0 && *timeout <= 1e9))
        return IRIS_FAIL(IRIS_EINVAL, "timeout: expected seconds in (0, 1e9], got %g", *timeout);
    if (!iris_context_is_closed(ctx))
        IRIS_TRY(iris_context_check(ctx)); /* interrupted: it can only be closed */
    if (!iris_context_depart(ctx, true))
        return IRIS_FAIL(IRIS_ESTATE, "%s",
                         iris_context_is_closed(ctx)
                             ? "survivors: the context is closed, and its rank has left; call it "
                               "instead of close(), and once"
                             : "survivors: this thread is in a call of the context already; let "
                               "it end first");
    call.roll = &ctx->control->roll;
    status = go_on(ctx, timeout_ns, &call, out);
    /* Whoever is left has unmapped this rank's memory, or has been given up. */
    iris_heap_release_memory(ctx->heap);
    iris_lifelines_close(&ctx->lifelines);
    IRIS_TRY(status);
    for (int rank = 0; rank < ctx->world_size; ++rank)
        if ((call.members >> rank & 1u) != 0)
            ranks[count++] = rank;
    return IRIS_OK;
}
