/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Peer access between the ranks' devices.
 */
#include "topology.h"

#include <stdio.h>
#include <string.h>

struct device_name {
    char text[32];
};

/* One line per rank: "rank 0: 1 1 0 1". */
static void format_matrix(const uint32_t *reaches, int world_size, char *text, size_t nbytes)
{
    size_t used = 0;

    for (int rank = 0; rank < world_size && used + 80 < nbytes; ++rank) {
        used += (size_t)snprintf(text + used, nbytes - used, "\n  rank %d:", rank);
        for (int peer = 0; peer < world_size; ++peer)
            used += (size_t)snprintf(text + used, nbytes - used, " %u", reaches[rank] >> peer & 1u);
    }
}

enum iris_status iris_topology_check(struct iris_context *ctx)
{
    struct device_name own, names[IRIS_MAX_RANKS];
    const uint32_t everybody = (uint32_t)((UINT64_C(1) << ctx->world_size) - 1);
    uint32_t mine = 0, reaches[IRIS_MAX_RANKS];
    bool complete = true;
    char matrix[512];

    memset(&own, 0, sizeof own);
    ctx->ops->identify(ctx->device, own.text);
    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "devices", &own, sizeof own, names));
    for (int peer = 0; peer < ctx->world_size; ++peer)
        if (peer == ctx->rank || ctx->ops->can_reach(ctx->device, names[peer].text))
            mine |= UINT32_C(1) << peer;
    IRIS_TRY(iris_bootstrap_all_gather(ctx->bootstrap, "peer access", &mine, sizeof mine, reaches));
    for (int rank = 0; rank < ctx->world_size; ++rank)
        complete = complete && reaches[rank] == everybody;
    if (complete)
        return IRIS_OK;
    format_matrix(reaches, ctx->world_size, matrix, sizeof matrix);
    return IRIS_FAIL(IRIS_EDRIVER,
                     "peer access: expected every device to reach every other's memory (1), got%s",
                     matrix);
}
