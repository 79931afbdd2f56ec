/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a gathered operand travels: the units it is sent in, who sends, and whether tiles share their
 * K.
 */
#include "decide.h"
#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"
#include "select_parts.h"

/* The largest part, of at most `limit`, that `count` is a multiple of. */
static int64_t even_part(int64_t count, int64_t limit)
{
    int64_t part = limit > 1 ? limit : 1;

    while (count % part != 0)
        --part;
    return part;
}

/* Bytes of each row of a unit, on a GPU. Small, so that what is multiplied next comes first: for
 * copy engines one line, for threads, whose product pauses at a flag, several. A large shard that
 * goes to one peer only goes faster by two lines: a sender's signals then cost more than the order
 * gains (measured on two H100s). */
static int64_t unit_nbytes(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    enum { ENGINE_UNIT = 128, THREADS_UNIT = 1024, LARGE_SHARD = 32 << 20 };
    const int64_t shard = iris_ceil_div(desc->M * desc->K * (int64_t)iris_dtype_nbytes(desc->dtype),
                                        (int64_t)on->world_size);

    if (!iris_is_tensor_core_product(on->chip->sm90, desc->operation, desc->dtype))
        return THREADS_UNIT;
    return on->world_size == 2 && shard >= LARGE_SHARD ? 2 * ENGINE_UNIT : ENGINE_UNIT;
}

/* What a unit has a multiple of, but for the end of K: what is multiplied at a time, and on a GPU
 * blocks of K that have scales of their own. */
static int64_t unit_step(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    const bool by_blocks = IRIS_ANY_SCALES_BY_BLOCKS(desc->scale_a, desc->scale_b);

    return on->chip->is_gpu && by_blocks && desc->block_k < IRIS_SCALE_BLOCK ? IRIS_SCALE_BLOCK
                                                                             : desc->block_k;
}

/* A unit of a gathered operand. On the host, where a thread does all in turn, all columns of a
 * shard. */
static void select_unit(const struct iris_select_target *on, const struct iris_config *config,
                        uint32_t work_groups, struct iris_op_desc *desc)
{
    const int64_t cols = desc->share_k != 0 ? desc->share_k : desc->K;
    const int64_t step = unit_step(on, desc);
    const int64_t whole = (int64_t)iris_round_up((uint64_t)cols, (uint64_t)step);
    int64_t unit = whole;

    if (config->k_per_flag != 0)
        unit = (int64_t)iris_round_up((uint64_t)config->k_per_flag * (uint64_t)desc->block_k,
                                      (uint64_t)step);
    else if (on->chip->is_gpu)
        unit = step * even_part(whole / step, unit_nbytes(on, desc) /
                                                  (int64_t)iris_dtype_nbytes(desc->dtype) / step);
    desc->unit_k = iris_at_most(unit < whole ? (int32_t)unit : INT32_MAX, whole);
    desc->m_contiguous = config->m_contiguous;
    /* As many of a shard's rows as the receivers' work-groups multiply at once, those of all peers
     * together. */
    desc->local.group_rows = (int32_t)iris_ceil_div(
        work_groups, iris_ceil_div(desc->N, desc->block_n) *
                         (desc->share_m != 0 && on->world_size > 1 ? on->world_size - 1 : 1));
}

static int64_t count_tiles(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    return iris_op_desc_gather_schedule(desc, on->world_size).tiles.tiles;
}

/* Work-groups without which the product takes as many rounds of tiles. */
static int32_t count_idle(const struct iris_select_target *on, const struct iris_op_desc *desc,
                          int32_t work_groups)
{
    const int64_t tiles = count_tiles(on, desc) * desc->local.k_splits;
    const int64_t rounds = iris_ceil_div(tiles, work_groups);

    return work_groups - (int32_t)iris_ceil_div(tiles, rounds > 0 ? rounds : 1);
}

/* Where all work-groups have warps that can send: the time of the product when those send that have
 * no tile to multiply, if there are any, and when so many of the others do. */
static void weigh_idle_senders(const struct iris_select_target *on, double product, double sent,
                               int32_t idle, struct iris_decision *decision)
{
    const double links = sent / (on->chip->sender_rate * idle);
    const double terms[] = {product, links, on->chip->sender_seconds};

    iris_decision_add(decision, idle, terms, (product > links ? product : links) + terms[2]);
}

static void weigh_senders(const struct iris_select_target *on, double product, double sent,
                          int32_t senders, int32_t work_groups, struct iris_decision *decision)
{
    const struct iris_chip *chip = on->chip;
    const double peers = on->world_size - 1;
    const double links =
        sent * (senders + chip->shared_units / peers) / (chip->shared_rate * senders);
    /* Measured with up to three peers. */
    const double slowdown = chip->slowdown + chip->slowdown_peer * (peers < 3 ? peers : 3) *
                                                 (double)senders / (double)work_groups;
    const double terms[] = {product, links, slowdown * sent / chip->link_rate};
    const double slowed = product + terms[2];

    iris_decision_add(decision, senders, terms, slowed > links ? slowed : links);
}

/* How many work-groups send. Where a work-group does one thing at a time, one in so many, which
 * multiply nothing. On sm_90a each has warps for it beside those that multiply. Their stores pass
 * the queues that the product's loads pass too, so the fewer send the better, as long as the links
 * are full; work-groups that have no tile to multiply slow nothing down, if they are enough. */
static int32_t choose_fetchers(const struct iris_select_target *on, const struct iris_op_desc *desc,
                               bool has_roles, int32_t idle, int32_t work_groups)
{
    enum { GROUPS_PER_FETCHER = 16 };
    static const double MARGIN = 0.02;
    const double M = (double)desc->M, N = (double)desc->N, K = (double)desc->K;
    const double sent =
        M * K * (double)iris_dtype_nbytes(desc->dtype) * (on->world_size - 1) / on->world_size;
    const double product = 2 * M * N * K / (on->chip->product_rate * work_groups);
    struct iris_decision decision = {.field = "num_fetch_sms",
                                     .terms = {"product", "links", "delay"}};

    if (!on->chip->is_gpu || on->world_size == 1 || work_groups == 1 || !desc->overlaps)
        return 0;
    if (!has_roles)
        return (int32_t)iris_ceil_div(work_groups, GROUPS_PER_FETCHER);
    for (int quarters = 4; quarters >= 2; --quarters)
        weigh_senders(on, product, sent, (int32_t)iris_ceil_div((int64_t)work_groups * quarters, 4),
                      work_groups, &decision);
    if (idle > 0)
        weigh_idle_senders(on, product, sent, idle, &decision);
    return iris_decide(&decision, MARGIN, on->explanation);
}

/* How many work-groups do nothing but send, or send at all where each has warps for it. */
static enum iris_status select_fetchers(const struct iris_select_target *on,
                                        const struct iris_config *config, uint32_t work_groups,
                                        struct iris_op_desc *desc)
{
    const bool has_roles =
        iris_is_tensor_core_product(on->chip->sm90, desc->operation, desc->dtype);
    const int32_t most = (int32_t)work_groups - (has_roles ? 0 : 1);
    int32_t asked = config->num_fetch_sms;
    const int32_t idle = has_roles ? count_idle(on, desc, (int32_t)work_groups) : 0;

    if (asked > most && on->cores > 0) /* of those that there would be with more cores */
        asked = most;
    if (asked > most)
        return IRIS_FAIL(IRIS_EINVAL, "num_fetch_sms: expected %s the %u work-groups, got %d",
                         has_roles ? "at most" : "less than", work_groups, asked);
    desc->local.fetch_groups =
        asked != 0 ? asked : choose_fetchers(on, desc, has_roles, idle, (int32_t)work_groups);
    desc->local.idle_senders =
        desc->overlaps && desc->local.fetch_groups <= idle ? desc->local.fetch_groups : 0;
    return IRIS_OK;
}

/* By the shape alone: ranks may have different numbers of work-groups. */
static bool may_split_k(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    const struct iris_gpu_tiles tiles =
        iris_gpu_tiles_of(on->chip->sm90, desc->operation, desc->dtype);
    const int64_t cols = desc->share_k != 0 ? desc->share_k : desc->K;

    return iris_is_tensor_core_product(on->chip->sm90, desc->operation, desc->dtype) &&
           !iris_op_desc_is_scaled(desc) && desc->block_n == tiles.narrow_n &&
           cols >= (int64_t)IRIS_K_SPLIT_MIN_STEPS * desc->block_k &&
           count_tiles(on, desc) <= IRIS_K_SPLIT_MAX_TILES;
}

/* Of an operation that gathers an operand, what has to do with that. Alone there is nothing to
 * overlap; otherwise doing both at once has been faster wherever it was measured. */
enum iris_status iris_select_gather(const struct iris_select_target *on,
                                    const struct iris_config *config, uint32_t work_groups,
                                    struct iris_op_desc *desc)
{
    if (!IRIS_IS_GATHERED_PRODUCT(desc->operation))
        return IRIS_OK;
    desc->overlaps = desc->operation == IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER &&
                     config->overlap != IRIS_NO &&
                     (config->overlap == IRIS_YES || on->world_size > 1);
    if (config->m_contiguous && on->chip->sm90 && iris_op_desc_is_scaled(desc))
        return IRIS_FAIL(IRIS_EINVAL,
                         "staged_a_layout: expected 'k_contiguous' on %s, whose tensor cores take "
                         "%s only along K, got 'm_contiguous'",
                         on->chip->arch, iris_dtype_name(desc->dtype));
    select_unit(on, config, work_groups, desc);
    desc->may_split_k = config->batch_invariant != IRIS_YES && may_split_k(on, desc);
    desc->local.k_splits =
        desc->may_split_k && count_tiles(on, desc) * IRIS_K_SPLITS <= (int64_t)work_groups
            ? IRIS_K_SPLITS
            : 1;
    return select_fetchers(on, config, work_groups, desc);
}
