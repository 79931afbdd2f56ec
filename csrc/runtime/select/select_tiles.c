/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Into which tiles a call is cut.
 */
#include "decide.h"
#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"
#include "select_parts.h"

/* A 256 x 512 fp32 accumulator is 512 KiB: it stays in a core's L2 beside the packed K blocks of A
 * and B; wide tiles spread the packing of A over more columns. */
enum { CPU_BLOCK_M = 256, CPU_BLOCK_N = 512, CPU_BLOCK_MIN = 32, CPU_BLOCK_K = 64 };

/* Columns of a product of few rows that a thread multiplies before it sends them: whole words. */
enum { CPU_DECODE_COLS = 128 };

/* Consecutive tiles go down the rows, so one packed panel of B serves a whole column of tiles. */
enum { CPU_GROUP_SIZE_M = 1 << 20 };

/* Elements of a plain reduction's tile: 32 KiB of fp32, which stays in L1 or L2. */
enum { CPU_RUN = 8192, CPU_RUN_MIN = 512 };

/* GPUs: eight tile rows share a panel of B in L2 while their panels of A stay there too. */
enum { GPU_GROUP_SIZE_M = 8 };

/* GPUs: a run is a whole number of a block's widest accesses. About one for each of a large GPU's
 * compute units, so that each hands over, and is waited for, once; but not so small that signals
 * outweigh it, nor so large that nothing leaves while the rest is read. In bytes. */
enum { GPU_RUN = 64 << 10, GPU_RUN_MIN = 4 << 10, GPU_RUNS = 128, GPU_RUN_MULTIPLE = 8 };

/* Halves the larger block until every work-group of every rank has a few tiles. */
static void select_product_blocks(const struct iris_select_target *on, struct iris_op_desc *desc)
{
    /* The thread count may differ between ranks, so it has no say here. */
    const int64_t wanted = 4 * (int64_t)on->world_size;
    const bool free_m = desc->block_m == 0, free_n = desc->block_n == 0;
    const int64_t rows = desc->share_m != 0 ? desc->share_m : desc->M;
    const int64_t cols = desc->share_n != 0 ? desc->share_n : desc->N;

    if (free_m)
        desc->block_m = iris_at_most(CPU_BLOCK_M, rows);
    if (free_n)
        desc->block_n = iris_at_most(CPU_BLOCK_N, cols);
    while (iris_ceil_div(desc->M, desc->block_m) * iris_ceil_div(desc->N, desc->block_n) < wanted) {
        if (free_n && desc->block_n > CPU_BLOCK_MIN && desc->block_n >= desc->block_m)
            desc->block_n = (desc->block_n + 1) / 2;
        else if (free_m && desc->block_m > CPU_BLOCK_MIN)
            desc->block_m = (desc->block_m + 1) / 2;
        else if (free_n && desc->block_n > CPU_BLOCK_MIN)
            desc->block_n = (desc->block_n + 1) / 2;
        else
            break;
    }
}

static void select_run(const struct iris_select_target *on, struct iris_op_desc *desc)
{
    const int64_t share = iris_ceil_div(desc->M * desc->N, (int64_t)on->world_size);

    desc->block_m = 1;
    if (desc->block_n == 0) {
        desc->block_n = iris_at_most(CPU_RUN, iris_ceil_div(share, 4));
        if (desc->block_n < CPU_RUN_MIN)
            desc->block_n = CPU_RUN_MIN;
    }
    desc->block_n = iris_at_most(desc->block_n, desc->N);
}

/* A GPU kernel's tile is built in. */
static enum iris_status check_gpu_block(const struct iris_select_target *on, const char *field,
                                        int32_t asked, int32_t built, enum iris_dtype dtype)
{
    if (asked == 0 || asked == built)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected %d, the tile of the %s backend for %s, got %d",
                     field, built, on->backend, iris_dtype_name(dtype), asked);
}

/* Bytes that a rank sends of a fused product, and whether narrow tiles let more of them go while
 * the product runs. They do where partial sums are sent: of two rounds of tiles the first is on its
 * way during the second. Whole results, which the copy engines take tile by tile, went no faster
 * (two H200s: 0.95 to 1.01). */
static double bytes_sent(const struct iris_select_target *on, const struct iris_op_desc *desc,
                         bool *rounds_help)
{
    const double share = (double)(on->world_size - 1) / on->world_size;
    const double result =
        (double)desc->M * (double)desc->N * (double)iris_dtype_nbytes(desc->dtype) * share;

    *rounds_help = desc->operation == IRIS_OP_MATMUL_ALL_REDUCE ||
                   desc->operation == IRIS_OP_MATMUL_REDUCE_SCATTER;
    return desc->operation == IRIS_OP_MATMUL_ALL_REDUCE ? 2 * result : *rounds_help ? result : 0;
}

/* That a rank multiplies. Shares are tiled each by itself; one without rows, of a result with few
 * of them, still takes a round. */
static int64_t count_tiles(const struct iris_select_target *on, const struct iris_op_desc *desc,
                           const struct iris_gpu_tiles *tiles, int32_t width)
{
    const bool own_rows = desc->operation == IRIS_OP_MATMUL_ALL_GATHER;
    const bool by_rows = desc->share_m > 0 && !own_rows, by_columns = desc->share_n > 0;
    const int64_t rows = desc->share_m > 0 ? desc->share_m : own_rows ? 1 : desc->M;
    const int64_t cols = by_columns ? desc->share_n : desc->N;

    return iris_ceil_div(rows, tiles->m) * iris_ceil_div(cols, width) *
           (by_rows || by_columns ? on->world_size : 1);
}

/* The time of a product in tiles `width` wide: rounds of tiles, what the links still have to carry
 * when the last round is done, and the last tile's sum. */
static void weigh_width(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        const struct iris_gpu_tiles *tiles, int32_t width,
                        struct iris_decision *decision)
{
    const struct iris_chip *chip = on->chip;
    const double rate = width == tiles->n ? chip->wide_rate : chip->narrow_rate;
    const int64_t count = count_tiles(on, desc, tiles, width);
    /* The chip's units, not those that a rank was given: the choice is the same on all ranks. */
    const double rounds = (double)iris_ceil_div(count, chip->compute_units);
    const double round = 2.0 * tiles->m * width * (double)desc->K / rate;
    const bool reduces = desc->operation == IRIS_OP_MATMUL_ALL_REDUCE;
    const double tile_nbytes =
        (double)tiles->m * width * (double)iris_dtype_nbytes(desc->dtype) * on->world_size;
    bool rounds_help;
    const double wire = bytes_sent(on, desc, &rounds_help) / chip->link_rate;
    const double behind = wire - round * (rounds - 1), last = wire / rounds;
    const double terms[] = {rounds * (round + chip->round_seconds),
                            !rounds_help    ? wire
                            : behind > last ? behind
                                            : last,
                            reduces && on->world_size > 1 ? tile_nbytes / chip->reduce_rate : 0};

    iris_decision_add(decision, width, terms, terms[0] + terms[1] + terms[2]);
}

/* What is gathered, operand or result, as seconds of the links: what of it the product does not
 * hide, and by what sending slows the product down, see choose_fetchers. A result's tiles leave
 * round by round, the last when there is no more product. */
static double gathering_seconds(const struct iris_select_target *on,
                                const struct iris_op_desc *desc, double product, double rounds)
{
    const bool operand = IRIS_IS_GATHERED_PRODUCT(desc->operation);
    const double share = (double)(on->world_size - 1) / on->world_size;
    const double sent = (double)desc->M * (double)(operand ? desc->K : desc->N) *
                        (double)iris_dtype_nbytes(desc->dtype) * share;
    const double links = sent / on->chip->link_rate;
    const double behind = links - product * (rounds - 1) / rounds, last = links / rounds;

    if (desc->operation == IRIS_OP_ALL_GATHER_MATMUL) /* which hides nothing */
        return links;
    if (!operand)
        return behind > last ? behind : last;
    return on->chip->slowdown * links + (links > product ? links - product : 0);
}

/* Weights that the chip's cache does not hold come at the rate of the units that have tiles. */
static double streaming_seconds(const struct iris_select_target *on,
                                const struct iris_op_desc *desc, int64_t tiles)
{
    const struct iris_chip *chip = on->chip;
    const double weights =
        (double)desc->N * (double)desc->K * (double)iris_dtype_nbytes(desc->dtype);
    const double units = tiles < chip->compute_units ? (double)tiles : chip->compute_units;

    return weights > chip->cache_nbytes ? weights / (units * chip->unit_memory_rate) : 0;
}

void iris_tiles_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        double terms[IRIS_FORM_TERMS])
{
    const struct iris_gpu_tiles tiles =
        iris_gpu_tiles_of(on->chip->sm90, desc->operation, desc->dtype);
    struct iris_decision decision = {.field = "block_size_n", .terms = {"", "", ""}};
    const struct iris_candidate *best;
    double streaming;
    int64_t count;

    weigh_width(on, desc, &tiles, tiles.n, &decision);
    weigh_width(on, desc, &tiles, tiles.narrow_n, &decision);
    (void)iris_decide(&decision, 0, NULL);
    best = &decision.candidates[decision.chosen];
    count = count_tiles(on, desc, &tiles, best->value);
    streaming = streaming_seconds(on, desc, count);
    terms[0] = on->world_size == 1                                ? on->chip->one_hop_seconds
               : desc->operation == IRIS_OP_MATMUL_REDUCE_SCATTER ? on->chip->scatter_seconds
                                                                  : on->chip->barrier_seconds;
    terms[1] = best->terms[0] > streaming ? best->terms[0] : streaming;
    terms[2] = best->terms[1] + best->terms[2];
    if (desc->operation == IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER)
        terms[1] *= on->chip->gathered_slowness;
    if (IRIS_IS_GATHERED_PRODUCT(desc->operation) || desc->operation == IRIS_OP_MATMUL_ALL_GATHER)
        terms[2] = gathering_seconds(on, desc, terms[1],
                                     (double)iris_ceil_div(count, on->chip->compute_units));
}

/* Scales that change along K: only narrow tiles leave the tensor cores of sm_90a registers for them
 * (float8_sm90.h). */
static bool scales_by_steps(const struct iris_op_desc *desc)
{
    return IRIS_ANY_SCALES_BY_BLOCKS(desc->scale_a, desc->scale_b) ||
           (iris_op_desc_is_scaled(desc) && desc->share_k != 0);
}

static int32_t choose_tile_width(const struct iris_select_target *on,
                                 const struct iris_config *config, const struct iris_op_desc *desc,
                                 const struct iris_gpu_tiles *tiles)
{
    static const double MARGIN = 0.03; /* what narrow tiles cost in ways that the model lacks */
    struct iris_decision decision = {.field = "block_size_n",
                                     .terms = {"product", "links behind it", "last sum"}};

    if (tiles->narrow_n == tiles->n)
        return tiles->n;
    if (scales_by_steps(desc))
        return tiles->narrow_n;
    if (config->block_size_n == tiles->n || config->block_size_n == tiles->narrow_n)
        return config->block_size_n;
    if (config->batch_invariant == IRIS_YES)
        return tiles->narrow_n; /* one width for any M */
    weigh_width(on, desc, tiles, tiles->n, &decision);
    weigh_width(on, desc, tiles, tiles->narrow_n, &decision);
    return iris_decide(&decision, MARGIN, on->explanation);
}

static enum iris_status select_gpu_product(const struct iris_select_target *on,
                                           const struct iris_config *config,
                                           struct iris_op_desc *desc)
{
    const struct iris_gpu_tiles tiles =
        iris_gpu_tiles_of(on->chip->sm90, desc->operation, desc->dtype);
    const int32_t width = choose_tile_width(on, config, desc, &tiles);

    IRIS_TRY(check_gpu_block(on, "block_size_m", config->block_size_m, tiles.m, desc->dtype));
    IRIS_TRY(check_gpu_block(on, "block_size_n", config->block_size_n, width, desc->dtype));
    IRIS_TRY(check_gpu_block(on, "block_size_k", config->block_size_k, tiles.k, desc->dtype));
    desc->block_m = tiles.m;
    desc->block_n = width;
    desc->block_k = tiles.k;
    desc->group_size_m = config->group_size_m != 0 ? config->group_size_m : GPU_GROUP_SIZE_M;
    return IRIS_OK;
}

static void select_gpu_run(const struct iris_config *config, struct iris_op_desc *desc)
{
    const int64_t element = (int64_t)iris_dtype_nbytes(desc->dtype);
    int64_t run = (int64_t)iris_round_up(
        (uint64_t)iris_ceil_div(desc->M * desc->N, (int64_t)GPU_RUNS), GPU_RUN_MIN / element);

    if (config->block_size_n != 0)
        run = (int64_t)iris_round_up((uint64_t)config->block_size_n, GPU_RUN_MULTIPLE);
    else if (run > GPU_RUN / element)
        run = GPU_RUN / element;
    desc->block_m = 1;
    desc->block_n =
        iris_at_most((int32_t)run, (int64_t)iris_round_up((uint64_t)desc->N, GPU_RUN_MULTIPLE));
    desc->block_k = 1;
    desc->group_size_m = 1;
}

/* Few rows: the host takes all of them at a time, a GPU the tile that is built in, which the caller
 * has no say in (select_form.c). */
static void select_decode(const struct iris_select_target *on, struct iris_op_desc *desc)
{
    const bool gathers = desc->operation == IRIS_OP_MATMUL_ALL_GATHER;
    const int64_t rows = gathers ? desc->share_m : desc->M;

    desc->local.gpu_parts = on->chip->is_gpu ? 1 : 0;
    desc->block_m = on->chip->is_gpu ? IRIS_GEMM_BLOCK_M : iris_at_most(INT32_MAX, rows);
    desc->block_n = !on->chip->is_gpu ? CPU_DECODE_COLS : IRIS_DECODE_COLS;
    desc->k_groups =
        on->chip->is_gpu && !on->chip->sm90 ? iris_decode_k_groups(on, rows, desc->N, desc->K) : 0;
    desc->block_k = CPU_BLOCK_K;
    desc->group_size_m = 1;
}

static enum iris_status select_gpu(const struct iris_select_target *on,
                                   const struct iris_config *config, struct iris_op_desc *desc)
{
    desc->local.gpu_parts = iris_gpu_parts_of(on->chip->sm90, desc->operation, desc->dtype);
    if (IRIS_IS_PRODUCT(desc->operation))
        return select_gpu_product(on, config, desc);
    select_gpu_run(config, desc);
    return IRIS_OK;
}

enum iris_status iris_select_tiles(const struct iris_select_target *on,
                                   const struct iris_config *config, struct iris_op_desc *desc)
{
    if (desc->form == IRIS_FORM_DECODE) {
        select_decode(on, desc);
        return IRIS_OK;
    }
    if (on->chip->is_gpu)
        return select_gpu(on, config, desc);
    /* A block larger than the matrix only wastes staging. */
    desc->block_m = iris_at_most(config->block_size_m, desc->M);
    desc->block_n = iris_at_most(config->block_size_n, desc->N);
    desc->block_k = config->block_size_k != 0 ? config->block_size_k : CPU_BLOCK_K;
    desc->group_size_m = config->group_size_m != 0 ? config->group_size_m : CPU_GROUP_SIZE_M;
    if (IRIS_IS_PRODUCT(desc->operation))
        select_product_blocks(on, desc);
    else
        select_run(on, desc);
    return IRIS_OK;
}
