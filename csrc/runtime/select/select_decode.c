/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The time of a product of few rows in the form DECODE.
 */
#include "kernels/abi/schedule.h"
#include "select_parts.h"

/* The tokens padded to a width of the matrix unit. */
static int32_t padded_rows(int64_t rows)
{
    int32_t padded = 8;

    while (padded < rows)
        padded *= 2;
    return padded;
}

/* The weights come from memory once. They, and the tokens with every part of them, come to the
 * units from the chip's cache; few units are left idle, as the blocks of a cluster share K. */
static double product_seconds(const struct iris_chip *chip, int64_t rows, int64_t N, int64_t K,
                              uint64_t element)
{
    const double weights = (double)N * (double)K * (double)element;
    const double tokens = (double)padded_rows(rows) * (double)K * (double)element;
    const double tiles = (double)iris_ceil_div(N, IRIS_DECODE_COLS);
    const double turns = tiles > chip->compute_units
                             ? (double)iris_ceil_div((int64_t)tiles, chip->compute_units)
                             : tiles / chip->compute_units;
    const double of_tile = weights / tiles + tokens;
    const double from_cache = turns * of_tile / chip->decode_unit_rate;
    const double from_memory = weights / chip->memory_rate;

    return from_cache > from_memory ? from_cache : from_memory;
}

/* Packets are twice as large as what they carry. */
static double links_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                            bool two_hops)
{
    const double nbytes =
        (double)desc->M * (double)desc->N * (double)iris_dtype_nbytes(desc->dtype);
    const double peers = on->world_size - 1, share = peers / on->world_size;
    double sent = 2 * nbytes * peers; /* by a rank */

    if (desc->operation != IRIS_OP_MATMUL_ALL_REDUCE)
        sent = 2 * nbytes * share;
    else if (two_hops)
        sent = 4 * nbytes * share;
    return sent / on->chip->packet_rate;
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

    if (rows > chip->decode_rows)
        return false;
    silent.explanation = NULL; /* of what may not be taken */
    decode.form = IRIS_FORM_DECODE;
    if (iris_select_variant(&silent, config, &decode) != IRIS_OK)
        return false;
    two_hops = decode.variant == IRIS_VARIANT_LL_TWO_SHOT;
    terms[0] = chip->decode_seconds + (two_hops ? chip->two_hop_seconds : chip->one_hop_seconds) +
               (on->world_size - 2) * chip->hop_peer_seconds;
    terms[1] = product_seconds(chip, rows, desc->N, desc->K, iris_dtype_nbytes(desc->dtype));
    terms[2] = links_seconds(on, desc, two_hops);
    return true;
}
