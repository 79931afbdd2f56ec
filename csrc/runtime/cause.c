/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "cause.h"

#include <stdio.h>
#include <string.h>

static void append(struct iris_error *error, const char *link, const char *whom)
{
    const size_t used = strlen(error->message);

    (void)snprintf(error->message + used, sizeof error->message - used,
                   ", %s had waited in vain for %s", link, whom);
}

enum iris_status iris_context_name_cause(const struct iris_context *ctx, enum iris_status status)
{
    struct iris_error *error = iris_error_last();
    const int gone = error->rank;

    if (status != IRIS_EPEER || ctx->control == NULL || gone < 0 || gone == ctx->rank)
        return status;
    /* A rank gives up once: a chain that is longer than there are ranks goes in a circle. */
    for (int step = 1; step < ctx->world_size; ++step) {
        const char *link = step == 1 ? "after it" : "which";
        const int awaited = iris_control_given_up(ctx->control, error->rank);
        char whom[32];

        if (awaited < 0 || awaited == gone)
            return status;
        if (awaited == ctx->rank) { /* it came too late itself; the peer is who was lost */
            append(error, link, "this rank");
            error->rank = gone;
            return status;
        }
        (void)snprintf(whom, sizeof whom, "rank %d", awaited);
        append(error, link, whom);
        error->rank = awaited;
    }
    return status;
}
