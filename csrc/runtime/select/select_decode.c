/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The time of a product of few rows in the form DECODE.
 */
#include "decide.h"
#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"
#include "select_parts.h"

bool iris_decode_may_split(int64_t rows, int64_t K, int64_t size)
{
    return size == 1 ||
           (rows <= IRIS_DECODE_MAX_SPLIT_ROWS && iris_ceil_div(K, IRIS_SM90_BLOCK_K) >= 2 * size);
}

static double longest(double a, double b)
{
    return a > b ? a : b;
}

/* The weights come from memory, the tokens with every part of them from the chip's cache. Blocks
 * are placed on all pairs of units before any pair has two. */
double iris_decode_product_seconds(const struct iris_chip *chip, int64_t rows, int64_t N, int64_t K,
                                   int64_t size, int64_t clusters)
{
    enum { ELEMENT_NBYTES = 2, LINE_NBYTES = IRIS_SM90_BLOCK_K * ELEMENT_NBYTES };
    const double weights = IRIS_DECODE_COLS * LINE_NBYTES;
    const double tokens = (double)(iris_round_up((uint64_t)rows, 8) * LINE_NBYTES);
    const int64_t tiles = iris_ceil_div(N, IRIS_DECODE_COLS);
    const int64_t turns = iris_ceil_div(tiles, clusters);
    const int64_t steps = turns * iris_ceil_div(iris_ceil_div(K, IRIS_SM90_BLOCK_K), size);
    const int64_t blocks = iris_ceil_div(tiles, turns) * size;
    const int beside = 2 * blocks > chip->compute_units;
    const double of_unit = longest(weights / chip->weights_unit_rate[beside],
                                   (weights + tokens) / chip->stage_unit_rate[beside]);
    const double of_all = weights * (double)blocks / chip->weights_rate;

    return (double)steps * longest(of_unit, of_all) +
           (size > 1 ? (double)turns * chip->cluster_seconds : 0);
}

static double product_seconds(const struct iris_chip *chip, int64_t rows, int64_t N, int64_t K)
{
    double least = 0;

    for (int64_t size = 1; size <= IRIS_DECODE_MAX_SPLITS; size *= 2) {
        double seconds;
        if (!iris_decode_may_split(rows, K, size))
            break;
        seconds = iris_decode_product_seconds(chip, rows, N, K, size, chip->compute_units / size);
        if (size == 1 || seconds < least)
            least = seconds;
    }
    return least;
}

/* So many work-groups stream `turns` rounds each, of 64 columns and `inner` of K. */
static double stream_seconds(const struct iris_chip *chip, int64_t groups, int64_t turns,
                             int64_t inner)
{
    enum { ELEMENT_NBYTES = 2 };
    const double nbytes = (double)turns * IRIS_DECODE_COLS * (double)inner * ELEMENT_NBYTES;
    const double share = chip->memory_rate / (double)groups;

    return nbytes / (share < chip->stream_unit_rate ? share : chip->stream_unit_rate);
}

/* What the last of `groups` work-groups that share tiles takes for the sums of all others that have
 * a part of its tile: packets of fp32. */
static double join_seconds(const struct iris_chip *chip, int64_t groups, int64_t tiles,
                           int64_t rows)
{
    const double sums =
        (double)(iris_ceil_div(groups, tiles) * rows) * IRIS_DECODE_COLS * sizeof(float);

    return chip->join_seconds + sums / chip->join_rate;
}

static void weigh_groups(int64_t groups, double streaming, double joining,
                         struct iris_decision *decision)
{
    const double terms[] = {streaming, joining};

    iris_decision_add(decision, (int32_t)groups, terms, streaming + joining);
}

int32_t iris_decode_k_groups(const struct iris_select_target *on, int64_t rows, int64_t N,
                             int64_t K)
{
    static const double MARGIN = 0.05; /* what is not worth other groups' sums */
    const struct iris_chip *chip = on->chip;
    const int64_t tiles = iris_ceil_div(N, IRIS_DECODE_COLS);
    const int64_t rounds = iris_decode_rounds(rows, K), all = tiles * rounds;
    const int64_t inner = iris_ceil_div(K, rounds);
    const int64_t limit = chip->max_work_groups;
    /* No more than what has as many turns. */
    const int64_t tile_turns = iris_ceil_div(tiles, limit);
    const int64_t owners = iris_ceil_div(tiles, tile_turns);
    struct iris_decision decision = {.field = "work_groups", .terms = {"weights", "sums"}};
    int32_t chosen;

    weigh_groups(owners, stream_seconds(chip, owners, tile_turns * rounds, inner), 0, &decision);
    for (int64_t turns = iris_ceil_div(all, limit); decision.count < IRIS_MAX_CANDIDATES;
         turns *= 2) {
        const int64_t groups = iris_ceil_div(all, turns);
        if (groups <= owners)
            break;
        weigh_groups(groups, stream_seconds(chip, groups, turns, inner),
                     join_seconds(chip, groups, tiles, rows), &decision);
    }
    chosen = iris_decide(&decision, MARGIN, on->explanation);
    return chosen == owners ? 0 : chosen;
}

static double links_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                            bool two_hops)
{
    const double nbytes =
        (double)desc->M * (double)desc->N * (double)iris_dtype_nbytes(desc->dtype);
    const double peers = on->world_size - 1, share = peers / on->world_size;
    double sent = nbytes * peers; /* by a rank */

    if (desc->operation != IRIS_OP_MATMUL_ALL_REDUCE)
        sent = nbytes * share;
    else if (two_hops)
        sent = 2 * nbytes * share;
    return sent / on->chip->decode_packet_rate;
}

/* Hopper's copy engine reads rows that begin at multiples of 16 bytes, and whether rows of
 * contiguous operands do is what the shape tells. Others are loaded by one warp, which takes many
 * times as long. */
static bool engine_loads(const struct iris_op_desc *desc)
{
    const int64_t chunk = 16 / (int64_t)iris_dtype_nbytes(desc->dtype);

    return desc->K % chunk == 0 && desc->N % chunk == 0;
}

bool iris_decode_seconds(const struct iris_select_target *on, const struct iris_config *config,
                         const struct iris_op_desc *desc, double terms[IRIS_FORM_TERMS])
{
    const struct iris_chip *chip = on->chip;
    const bool gathers = desc->operation == IRIS_OP_MATMUL_ALL_GATHER;
    const int64_t rows = gathers ? desc->share_m : desc->M;
    struct iris_select_target silent = *on;
    struct iris_op_desc decode = *desc;
    bool two_hops;

    if (rows > chip->decode_rows || !engine_loads(desc))
        return false;
    silent.explanation = NULL; /* of what may not be taken */
    decode.form = IRIS_FORM_DECODE;
    if (iris_select_variant(&silent, config, &decode) != IRIS_OK)
        return false;
    two_hops = decode.variant == IRIS_VARIANT_LL_TWO_SHOT;
    terms[0] = chip->decode_seconds + (two_hops ? chip->two_hop_seconds : chip->one_hop_seconds) +
               iris_hop_peers_seconds(on);
    terms[1] = product_seconds(chip, rows, desc->N, desc->K);
    terms[2] = links_seconds(on, desc, two_hops);
    return true;
}
