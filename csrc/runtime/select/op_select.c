/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The choice of all that a call leaves open, in its order: form, variant, tiles, work-groups, and
 * how a gathered operand travels.
 */
#include "op_select.h"

#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"

/* all_reduce by packets on a GPU: a thread for each word, as far as so many small work-groups of a
 * compute unit go; what a thread does for a word is to wait. */
enum { PACKET_GROUPS_PER_UNIT = 4 };

/* Work-groups beyond those that have something to do only take time to start and to count in.
 * `asked`: the caller's number, or 0. */
static uint32_t enough_work_groups(const struct iris_select_target *on,
                                   const struct iris_op_desc *desc, int32_t asked)
{
    if (on->cores > 0 && asked > on->cores)
        asked = on->cores;
    const uint32_t work_groups = (uint32_t)(asked != 0 ? asked : on->compute_units);
    const int32_t threads = on->chip->is_gpu ? IRIS_GPU_THREADS : 1024;
    int64_t wanted = work_groups, limit = work_groups;

    if (iris_is_by_packets(desc->variant)) {
        const struct iris_packet_layout packets =
            iris_packet_layout_make(iris_op_desc_packet_nbytes(desc), on->world_size);
        wanted = iris_ceil_div(packets.words, threads);
        if (desc->operation == IRIS_OP_ALL_REDUCE_RMSNORM) /* one for each row */
            wanted = desc->M;
        else if (on->chip->is_gpu && asked == 0)
            limit *= PACKET_GROUPS_PER_UNIT;
    } else if (desc->operation == IRIS_OP_ALL_REDUCE ||
               desc->operation == IRIS_OP_ALL_REDUCE_RMSNORM) {
        wanted = iris_ceil_div(desc->N, desc->block_n) * (on->chip->is_gpu ? IRIS_RUN_PIECES : 1);
    }
    return (uint32_t)(wanted < limit ? wanted : limit);
}

/* For extents of at least 1; after iris_select_form. */
static enum iris_status select_sized(const struct iris_select_target *on,
                                     const struct iris_config *config, struct iris_op_desc *desc,
                                     uint32_t *work_groups)
{
    const int limit = on->max_work_groups;

    if (config->num_sms > limit)
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected at most %d on the %s backend, got %d",
                         IRIS_IS_PRODUCT(desc->operation) ? "num_sms" : "comm_sms", limit,
                         on->backend, config->num_sms);
    IRIS_TRY(iris_config_validate(config, on->world_size));
    IRIS_TRY(iris_select_variant(on, config, desc));
    IRIS_TRY(iris_select_tiles(on, config, desc));
    *work_groups = enough_work_groups(on, desc, config->num_sms);
    return iris_select_gather(on, config, *work_groups, desc);
}

/* An extent of 0 is tiled as one of 1 is. A gathered product without columns, which only joins the
 * operand, does not begin early: it is the wait for everything that makes it hear from every peer.
 */
enum iris_status iris_select_for(const struct iris_select_target *on,
                                 const struct iris_config *config, struct iris_op_desc *desc,
                                 uint32_t *work_groups)
{
    const int64_t M = desc->M, N = desc->N, K = desc->K;
    struct iris_config asked = *config;
    enum iris_status status;

    if (M < 0 || N < 0 || K < 0)
        return IRIS_FAIL(IRIS_EINVAL, "M, N, K: expected >= 0, got %lld, %lld, %lld", (long long)M,
                         (long long)N, (long long)K);
    if (N == 0)
        asked.overlap = IRIS_NO;
    desc->M = M > 0 ? M : 1;
    desc->N = N > 0 ? N : 1;
    desc->K = K > 0 ? K : 1;
    status = iris_select_form(on, config, desc);
    if (status == IRIS_OK)
        status = select_sized(on, &asked, desc, work_groups);
    desc->M = M;
    desc->N = N;
    desc->K = K;
    return status;
}
