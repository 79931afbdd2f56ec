/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The checks of a caller's config that need no call.
 */
#include "base/status.h"
#include "runtime/iris.h"

enum { BLOCK_LIMIT = 1 << 20 };

static enum iris_status check_block(const char *field, int32_t value)
{
    if (value >= 0 && value <= BLOCK_LIMIT)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected 1 to %d, got %d", field, BLOCK_LIMIT, value);
}

enum iris_status iris_config_validate(const struct iris_config *config, int world_size)
{
    (void)world_size; /* no variant of today depends on it */
    IRIS_TRY(check_block("block_size_m", config->block_size_m));
    IRIS_TRY(check_block("block_size_n", config->block_size_n));
    IRIS_TRY(check_block("block_size_k", config->block_size_k));
    IRIS_TRY(check_block("group_size_m", config->group_size_m));
    IRIS_TRY(check_block("num_sms", config->num_sms));
    IRIS_TRY(check_block("num_xcds", config->num_xcds));
    IRIS_TRY(check_block("num_fetch_sms", config->num_fetch_sms));
    IRIS_TRY(check_block("k_per_flag", config->k_per_flag));
    if ((int64_t)config->block_size_m * config->block_size_n > (int64_t)1 << 26)
        return IRIS_FAIL(
            IRIS_EINVAL,
            "block_size_m * block_size_n: expected at most 2**26 elements, got %d * %d",
            config->block_size_m, config->block_size_n);
    return IRIS_OK;
}
