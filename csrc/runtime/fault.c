/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * From an abort word and the fault recorded beside it to the error that the user sees.
 */
#include "fault.h"

#include <stdio.h>

#include "runtime/memory/workspace.h"

static const char *const signals[] = {
    [IRIS_SIGNAL_NONE] = "nothing",
    [IRIS_SIGNAL_ARRIVED] = "its arrival",
    [IRIS_SIGNAL_PARTIAL] = "a partial tile",
    [IRIS_SIGNAL_RESULT] = "a finished tile",
    [IRIS_SIGNAL_DELIVERED] = "the end of its deliveries",
    [IRIS_SIGNAL_DONE] = "its completion",
    [IRIS_SIGNAL_LOCK] = "the release of a tile's lock",
    [IRIS_SIGNAL_BARRIER] = "its arrival at the barrier",
    [IRIS_SIGNAL_CHUNK] = "a piece of its message",
    [IRIS_SIGNAL_ROOM] = "the receipt of a piece of a message",
    [IRIS_SIGNAL_SIZE] = "the size of its message",
    [IRIS_SIGNAL_WORD] = "the value of a word",
    [IRIS_SIGNAL_UNIT] = "a piece of its shard",
    [IRIS_SIGNAL_CLOCK] = "its clock",
};

/* The ranks of a message gave it different sizes. Whatever has been received is not to be used. */
static enum iris_status sizes_differ(int sender, int receiver, const struct iris_fault *fault)
{
    return IRIS_FAIL(
        IRIS_EINVAL,
        "%s: expected one size at both ends of a message, got %u bytes sent by rank %d and %u "
        "bytes to be received by rank %d",
        iris_operation_name((enum iris_operation)fault->operation), fault->seen, sender,
        fault->wanted, receiver);
}

static enum iris_status timed_out(const struct iris_context *ctx)
{
    const struct iris_fault *fault = &ctx->control->faults[ctx->rank];
    const char *name = iris_operation_name((enum iris_operation)fault->operation);
    const double seconds = (double)ctx->timeout_ns * 1e-9;
    char tile[32] = "";
    struct iris_error *error;

    if (fault->signal == IRIS_SIGNAL_SIZE)
        return sizes_differ(fault->rank, ctx->rank, fault);
    if (fault->tile >= 0)
        (void)snprintf(tile, sizeof tile, ", tile %d", fault->tile);
    if (fault->signal == IRIS_SIGNAL_WORD)
        IRIS_FAIL(IRIS_ETIMEDOUT, "%s: the word did not become as asked within %g s (seen %d)",
                  name, seconds, (int)fault->seen);
    else
        IRIS_FAIL(IRIS_ETIMEDOUT,
                  "%s, call %u: rank %d did not signal %s%s within %g s (wanted %u, seen %u)", name,
                  fault->call, fault->rank, signals[fault->signal], tile, seconds, fault->wanted,
                  fault->seen);
    error = iris_error_last();
    error->rank = fault->rank;
    error->tile = fault->tile;
    error->call = fault->call;
    error->wanted = fault->wanted;
    error->seen = fault->seen;
    return IRIS_ETIMEDOUT;
}

static enum iris_status gave_up(const struct iris_context *ctx, const char *name, int culprit)
{
    const struct iris_fault *fault = &ctx->control->faults[culprit];
    struct iris_error *error;

    if (fault->signal == IRIS_SIGNAL_SIZE)
        return sizes_differ(fault->rank, culprit, fault);
    if (fault->signal == IRIS_SIGNAL_WORD)
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d gave up waiting for a word (after %g s)", name, culprit,
                  (double)ctx->timeout_ns * 1e-9);
    else if (fault->rank == ctx->rank)
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d gave up waiting for this rank (%s, after %g s)", name,
                  culprit, signals[fault->signal], (double)ctx->timeout_ns * 1e-9);
    else
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d gave up waiting for rank %d (%s, after %g s)", name,
                  culprit, fault->rank, signals[fault->signal], (double)ctx->timeout_ns * 1e-9);
    error = iris_error_last();
    error->rank = fault->rank == ctx->rank ? culprit : fault->rank;
    error->call = fault->call;
    return IRIS_EPEER;
}

enum iris_status iris_context_abort_status(struct iris_context *ctx, enum iris_operation operation)
{
    const uint32_t word = iris_control_aborted(ctx->control, ctx->rank);
    const int culprit = IRIS_ABORT_CULPRIT(word);
    const char *name = iris_operation_name(operation);

    switch (IRIS_ABORT_REASON(word)) {
    case IRIS_ABORT_NONE:
        return IRIS_FAIL(IRIS_EDRIVER, "%s: the kernel ended without completing the call", name);
    case IRIS_ABORT_TIMEOUT:
        return timed_out(ctx);
    case IRIS_ABORT_PEER_GAVE_UP:
        return gave_up(ctx, name, culprit);
    case IRIS_ABORT_PEER_LEFT:
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d closed its context", name, culprit);
        break;
    case IRIS_ABORT_WENT_ON:
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d called survivors()", name, culprit);
        break;
    case IRIS_ABORT_INTERRUPTED:
        if (culprit == ctx->rank)
            return IRIS_FAIL(IRIS_ESTATE, "%s: this rank was interrupted", name);
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d was interrupted", name, culprit);
        break;
    case IRIS_ABORT_PEER_DIED:
        IRIS_FAIL(IRIS_EPEER, "%s: rank %d died", name, culprit);
        break;
    default:
        return IRIS_FAIL(IRIS_EINVAL, "%s: rank %d called something else", name, culprit);
    }
    iris_error_last()->rank = culprit;
    return IRIS_EPEER;
}

enum iris_status iris_context_poll(struct iris_context *ctx, enum iris_operation operation)
{
    const uint32_t reason = IRIS_ABORT_REASON(iris_control_aborted(ctx->control, ctx->rank));

    if (reason == IRIS_ABORT_NONE)
        return IRIS_OK;
    if (reason != IRIS_ABORT_MISMATCH)
        return iris_context_abort_status(ctx, operation);
    /* A synchronous device's call settles it itself, before it returns. */
    return iris_device_traits(ctx->device)->is_gpu
               ? iris_workspace_settle_mismatch(ctx, &ctx->last_op)
               : IRIS_OK;
}
