/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The time of a product in the form PLAIN: a product by itself, then a collective, or before it.
 */
#include "select_parts.h"

/* By the vendor's library: the weights come from memory once, or the matrix units are busy. */
static double library_seconds(const struct iris_select_target *on, const struct iris_op_desc *p)
{
    const double element = (double)iris_dtype_nbytes(p->dtype);
    const double M = (double)p->M, N = (double)p->N, K = (double)p->K;
    const double memory = (N * K + M * K + M * N) * element / on->chip->memory_rate;
    const double math = 2 * M * N * K / (on->chip->library_rate * on->chip->compute_units);

    return memory > math ? memory : math;
}

/* By the package's kernel, as in the form TILES on one rank. */
static double own_seconds(const struct iris_select_target *on, const struct iris_op_desc *product)
{
    struct iris_select_target alone = *on;
    double terms[IRIS_FORM_TERMS];

    alone.world_size = 1;
    alone.explanation = NULL;
    iris_tiles_seconds(&alone, product, terms);
    return terms[0] + terms[1];
}

/* Its start, and what the links take. */
static void collective_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                               double terms[2])
{
    const struct iris_chip *chip = on->chip;
    const struct iris_config open = {0};
    struct iris_op_desc collective = iris_op_desc_collective(desc, on->world_size);
    const double nbytes =
        (double)collective.M * (double)collective.N * (double)iris_dtype_nbytes(collective.dtype);
    struct iris_select_target silent = *on;

    silent.explanation = NULL;
    collective.variant = IRIS_VARIANT_NONE;
    (void)iris_select_variant(&silent, &open, &collective); /* open: always possible */
    switch (collective.operation) {
    case IRIS_OP_ALL_REDUCE:
        iris_all_reduce_seconds(on, &collective, nbytes, collective.variant, chip->step_rate,
                                terms);
        break;
    case IRIS_OP_REDUCE_SCATTER:
        iris_reduce_scatter_seconds(on, nbytes, collective.variant, chip->step_rate, terms);
        break;
    default:
        iris_all_gather_seconds(on, (double)collective.M, collective.variant, terms);
        break;
    }
}

/* Of each shard by itself, as they come. */
static void pull_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                         double terms[IRIS_FORM_TERMS])
{
    /* Rows of a product by the library that take as long as what it loses at its edges. */
    enum { EDGE_ROWS = 110 };
    const struct iris_chip *chip = on->chip;
    struct iris_op_desc product = iris_op_desc_product(desc, on->world_size);
    const double rows = (double)desc->share_m;
    const double nbytes = rows * (double)desc->K * (double)iris_dtype_nbytes(desc->dtype);
    const double copy = chip->pull_seconds + nbytes / chip->pull_rate;
    double shard, come = 0, done;

    product.M = desc->share_m;
    shard = library_seconds(on, &product) * (1 + EDGE_ROWS / rows) + chip->launch_seconds;
    done = shard;
    for (int hop = 1; hop < on->world_size; ++hop) {
        come += copy;
        done = (come > done ? come : done) + shard;
    }
    terms[0] = chip->meet_seconds + 3 * nbytes / chip->memory_rate;
    terms[1] = on->world_size * shard;
    terms[2] = done - terms[1];
}

/* The product and the collective in turn. */
static void in_turn_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                            double terms[IRIS_FORM_TERMS])
{
    struct iris_op_desc product = iris_op_desc_product(desc, on->world_size);
    double collective[2];

    product.N = desc->N; /* of all shares of columns, which the library multiplies at once */
    collective_seconds(on, desc, collective);
    terms[0] = 2 * on->chip->launch_seconds + collective[0];
    terms[1] = on->has_blas ? library_seconds(on, &product) : own_seconds(on, &product);
    terms[2] = collective[1];
}

static double sum(const double terms[IRIS_FORM_TERMS])
{
    return terms[0] + terms[1] + terms[2];
}

bool iris_plain_pulls(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    double pulled[IRIS_FORM_TERMS], gathered[IRIS_FORM_TERMS];

    if (!IRIS_IS_GATHERED_PRODUCT(desc->operation) || desc->share_k != 0 || !on->has_blas ||
        on->world_size == 1 || on->chip->pull_rate == 0)
        return false;
    pull_seconds(on, desc, pulled);
    in_turn_seconds(on, desc, gathered);
    return sum(pulled) < sum(gathered);
}

void iris_plain_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        double terms[IRIS_FORM_TERMS])
{
    if (iris_plain_pulls(on, desc))
        pull_seconds(on, desc, terms);
    else
        in_turn_seconds(on, desc, terms);
}
