/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Defaults, each with its reason, and the checks of a caller's config.
 */
#include "op_select.h"

#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"

/* A 256 x 512 fp32 accumulator is 512 KiB: it stays in a core's L2 beside the packed K blocks of A
 * and B; wide tiles spread the packing of A over more columns. */
enum { CPU_BLOCK_M = 256, CPU_BLOCK_N = 512, CPU_BLOCK_MIN = 32, CPU_BLOCK_K = 64 };

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

/* all_reduce by packets on a GPU: a thread for each word, as far as so many small work-groups of a
 * compute unit go; what a thread does for a word is to wait. */
enum { PACKET_GROUPS_PER_UNIT = 4 };

/* The fastest variant of all_reduce for messages of up to so many bytes, as benchmarks/bench_ccl.py
 * measured them; the last row of a device and world size has no limit. */
struct choice {
    int32_t world_size; /* up to */
    uint64_t max_nbytes;
    enum iris_variant variant;
};
static const struct choice cpu_choices[] = {
    {IRIS_MAX_RANKS, 64 << 10, IRIS_VARIANT_ONE_SHOT},
    {IRIS_MAX_RANKS, UINT64_MAX, IRIS_VARIANT_TWO_SHOT},
};
static const struct choice gpu_choices[] = {
    {2, 1 << 20, IRIS_VARIANT_LL},
    {2, UINT64_MAX, IRIS_VARIANT_TWO_SHOT},
    {4, 64 << 10, IRIS_VARIANT_LL},
    {4, 1 << 20, IRIS_VARIANT_LL_TWO_SHOT},
    {4, UINT64_MAX, IRIS_VARIANT_TWO_SHOT},
    {IRIS_MAX_RANKS, 32 << 10, IRIS_VARIANT_LL},
    {IRIS_MAX_RANKS, 1 << 20, IRIS_VARIANT_LL_TWO_SHOT},
    {IRIS_MAX_RANKS, UINT64_MAX, IRIS_VARIANT_TWO_SHOT},
};

/* all_reduce_rmsnorm on a GPU: the largest message that one hop is faster for, measured on
 * four H200s by benchmarks/bench_rmsnorm.py. */
enum { RMSNORM_LL = 128 << 10 };

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

static int32_t at_most(int32_t value, int64_t limit)
{
    return value < limit ? value : (int32_t)limit;
}

/* Halves the larger block until every work-group of every rank has a few tiles. */
static void select_product_blocks(const struct iris_select_target *on, struct iris_op_desc *desc)
{
    /* The thread count may differ between ranks, so it has no say here. */
    const int64_t wanted = 4 * (int64_t)on->world_size;
    const bool free_m = desc->block_m == 0, free_n = desc->block_n == 0;
    const int64_t rows = desc->share_m != 0 ? desc->share_m : desc->M;
    const int64_t cols = desc->share_n != 0 ? desc->share_n : desc->N;

    if (free_m)
        desc->block_m = at_most(CPU_BLOCK_M, rows);
    if (free_n)
        desc->block_n = at_most(CPU_BLOCK_N, cols);
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
        desc->block_n = at_most(CPU_RUN, iris_ceil_div(share, 4));
        if (desc->block_n < CPU_RUN_MIN)
            desc->block_n = CPU_RUN_MIN;
    }
    desc->block_n = at_most(desc->block_n, desc->N);
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

/* Narrow tiles where wide ones would leave half of the chip idle. A sum that all ranks get also
 * gains by them where all wide tiles are multiplied at once, and so all are done at once: of two
 * rounds of narrow ones the first is on its way during the second. Measured on four H200s with K up
 * to 2048; a long product loses more by narrow tiles than that. (A scattered sum, which is brought
 * on in half the time, does not gain.) */
static int32_t choose_tile_width(const struct iris_config *config, const struct iris_op_desc *desc)
{
    enum { MULTIPROCESSORS = 132, SHORT_K = 4096 };
    const bool sums = desc->operation == IRIS_OP_MATMUL_ALL_REDUCE;
    const int64_t rows = desc->operation == IRIS_OP_MATMUL_ALL_GATHER ? desc->share_m : desc->M;
    const int64_t wide_tiles =
        iris_ceil_div(rows, IRIS_SM90_BLOCK_M) * iris_ceil_div(desc->N, IRIS_SM90_BLOCK_N);

    if (config->block_size_n == IRIS_SM90_BLOCK_N ||
        config->block_size_n == IRIS_SM90_NARROW_BLOCK_N)
        return config->block_size_n;
    return wide_tiles * (sums && desc->K <= SHORT_K ? 1 : 2) <= MULTIPROCESSORS
               ? IRIS_SM90_NARROW_BLOCK_N
               : IRIS_SM90_BLOCK_N;
}

static enum iris_status select_gpu_product(const struct iris_select_target *on,
                                           const struct iris_config *config,
                                           struct iris_op_desc *desc)
{
    struct iris_gpu_block block = iris_gpu_block_of(on->sm90, desc->operation, desc->dtype);

    if (iris_is_tensor_core_product(on->sm90, desc->operation, desc->dtype))
        block.n = choose_tile_width(config, desc);
    IRIS_TRY(check_gpu_block(on, "block_size_m", config->block_size_m, block.m, desc->dtype));
    IRIS_TRY(check_gpu_block(on, "block_size_n", config->block_size_n, block.n, desc->dtype));
    IRIS_TRY(check_gpu_block(on, "block_size_k", config->block_size_k, block.k, desc->dtype));
    desc->block_m = block.m;
    desc->block_n = block.n;
    desc->block_k = block.k;
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
        at_most((int32_t)run, (int64_t)iris_round_up((uint64_t)desc->N, GPU_RUN_MULTIPLE));
    desc->block_k = 1;
    desc->group_size_m = 1;
}

static enum iris_status select_gpu(const struct iris_select_target *on,
                                   const struct iris_config *config, struct iris_op_desc *desc)
{
    desc->gpu_parts = iris_gpu_parts_of(on->sm90, desc->operation, desc->dtype);
    if (IRIS_IS_PRODUCT(desc->operation))
        return select_gpu_product(on, config, desc);
    select_gpu_run(config, desc);
    return IRIS_OK;
}

static enum iris_variant choose_all_reduce(const struct iris_select_target *on,
                                           const struct iris_op_desc *desc, uint64_t nbytes)
{
    const struct choice *row = on->asynchronous ? gpu_choices : cpu_choices;

    if (desc->in_place)
        return IRIS_VARIANT_TWO_SHOT;
    while (on->world_size > row->world_size || nbytes > row->max_nbytes)
        ++row;
    return row->variant;
}

/* Where not every rank would own a block, two hops could not even do their work. */
static void prefer_one_crossing(const struct iris_select_target *on, struct iris_op_desc *desc)
{
    const struct iris_packet_layout packets =
        iris_packet_layout_make(iris_op_desc_packet_nbytes(desc), on->world_size);

    if (desc->variant == IRIS_VARIANT_LL_TWO_SHOT && !iris_packet_all_own(&packets))
        desc->variant = IRIS_VARIANT_LL;
}

/* On a GPU one kernel, by packets. On the host, where a word at a time is slow, the all_reduce's
 * variants too, with the norm as a step of its own. */
static enum iris_status select_rmsnorm(const struct iris_select_target *on,
                                       struct iris_op_desc *desc, uint64_t nbytes)
{
    const bool host = !on->asynchronous;

    if (desc->variant == IRIS_VARIANT_NONE)
        desc->variant = host                   ? choose_all_reduce(on, desc, nbytes)
                        : nbytes <= RMSNORM_LL ? IRIS_VARIANT_LL
                                               : IRIS_VARIANT_LL_TWO_SHOT;
    prefer_one_crossing(on, desc);
    if (iris_is_by_packets(desc->variant) || (host && (desc->variant == IRIS_VARIANT_ONE_SHOT ||
                                                       desc->variant == IRIS_VARIANT_TWO_SHOT)))
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "all_reduce_variant: expected 'll'%s or 'll_two_shot' for "
                     "all_reduce_rmsnorm on the %s backend, got '%s'",
                     host ? ", 'one_shot', 'two_shot'" : "", on->backend,
                     iris_variant_name(desc->variant));
}

static enum iris_status check_all_reduce(const struct iris_op_desc *desc)
{
    const bool floating = desc->dtype == IRIS_DTYPE_F32 || desc->dtype == IRIS_DTYPE_F16 ||
                          desc->dtype == IRIS_DTYPE_BF16;
    const bool adds = desc->reduce_op == IRIS_REDUCE_SUM || desc->reduce_op == IRIS_REDUCE_AVG;

    if (desc->variant != IRIS_VARIANT_ATOMIC && desc->variant != IRIS_VARIANT_SPINLOCK)
        return IRIS_OK;
    if (!floating)
        return IRIS_FAIL(IRIS_EINVAL,
                         "input: expected dtype float32, float16 or bfloat16 in the variant '%s', "
                         "got %s",
                         iris_variant_name(desc->variant), iris_dtype_name(desc->dtype));
    if (!adds)
        return IRIS_FAIL(IRIS_EINVAL, "op: expected 'sum' or 'avg' in the variant '%s', got '%s'",
                         iris_variant_name(desc->variant), iris_reduce_op_name(desc->reduce_op));
    return IRIS_OK;
}

static enum iris_status select_variant(const struct iris_select_target *on,
                                       const struct iris_config *config, struct iris_op_desc *desc)
{
    const uint64_t nbytes = (uint64_t)desc->M * (uint64_t)desc->N * iris_dtype_nbytes(desc->dtype);

    desc->variant = config->variant;
    switch (desc->operation) {
    case IRIS_OP_MATMUL_ALL_REDUCE:
        if (desc->variant == IRIS_VARIANT_NONE)
            desc->variant = IRIS_VARIANT_TWO_SHOT;
        if (desc->variant <= IRIS_VARIANT_RING)
            return IRIS_OK;
        return IRIS_FAIL(IRIS_EINVAL,
                         "all_reduce_variant: expected 'two_shot', 'one_shot', 'ring', 'atomic' or "
                         "'spinlock' for matmul_all_reduce, got '%s'",
                         iris_variant_name(desc->variant));
    case IRIS_OP_ALL_REDUCE:
        if (desc->variant == IRIS_VARIANT_NONE)
            desc->variant = choose_all_reduce(on, desc, nbytes);
        prefer_one_crossing(on, desc);
        return check_all_reduce(desc);
    case IRIS_OP_ALL_REDUCE_RMSNORM:
        return select_rmsnorm(on, desc, nbytes);
    case IRIS_OP_MATMUL_REDUCE_SCATTER:
    case IRIS_OP_MATMUL_ALL_GATHER:
        if (desc->variant != IRIS_VARIANT_NONE && desc->variant != IRIS_VARIANT_TWO_SHOT)
            return IRIS_FAIL(
                IRIS_EINVAL, "all_reduce_variant: expected 'two_shot' for %s, got '%s'",
                iris_operation_name(desc->operation), iris_variant_name(desc->variant));
        desc->variant = IRIS_VARIANT_TWO_SHOT;
        return IRIS_OK;
    case IRIS_OP_REDUCE_SCATTER:
    case IRIS_OP_REDUCE:
        desc->variant = IRIS_VARIANT_TWO_SHOT;
        return IRIS_OK;
    default:
        desc->variant = IRIS_VARIANT_NONE;
        return IRIS_OK;
    }
}

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

    if (!iris_is_tensor_core_product(on->sm90, desc->operation, desc->dtype))
        return THREADS_UNIT;
    return on->world_size == 2 && shard >= LARGE_SHARD ? 2 * ENGINE_UNIT : ENGINE_UNIT;
}

/* A unit of a gathered operand. On the host, where a thread does all in turn, all columns of a
 * shard. */
static void select_unit(const struct iris_select_target *on, const struct iris_config *config,
                        uint32_t work_groups, struct iris_op_desc *desc)
{
    const int64_t cols = desc->share_k != 0 ? desc->share_k : desc->K;
    const int64_t whole = (int64_t)iris_round_up((uint64_t)cols, (uint64_t)desc->block_k);
    int64_t unit = whole;

    if (config->k_per_flag != 0)
        unit = (int64_t)config->k_per_flag * desc->block_k;
    else if (on->asynchronous)
        unit =
            desc->block_k * even_part(whole / desc->block_k,
                                      unit_nbytes(on, desc) /
                                          (int64_t)iris_dtype_nbytes(desc->dtype) / desc->block_k);
    desc->unit_k = at_most(unit < whole ? (int32_t)unit : INT32_MAX, whole);
    desc->m_contiguous = config->m_contiguous;
    /* As many of a shard's rows as the receivers' work-groups multiply at once, those of all peers
     * together. */
    desc->group_rows = (int32_t)iris_ceil_div(
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
    const int64_t tiles = count_tiles(on, desc) * desc->k_splits;
    const int64_t rounds = iris_ceil_div(tiles, work_groups);

    return work_groups - (int32_t)iris_ceil_div(tiles, rounds > 0 ? rounds : 1);
}

/* Whether so many work-groups of sm_90a that do nothing but send are enough: the shard is away when
 * little more than half of the product is done. Short products gain nothing, what they need first
 * comes later. In seconds; measured on two H100s. */
static bool are_enough(const struct iris_select_target *on, const struct iris_op_desc *desc,
                       int32_t idle, int32_t work_groups)
{
    static const double SENDER = 20e9, MULTIPROCESSOR = 5.3e12; /* bytes, operations a second */
    static const double SHARE_OF_TIME = 0.55, SHORT = 100e-6;
    const double M = (double)desc->M, N = (double)desc->N, K = (double)desc->K;
    const double sent =
        M * K * (double)iris_dtype_nbytes(desc->dtype) * (on->world_size - 1) / on->world_size;
    const double product = 2 * M * N * K / (MULTIPROCESSOR * work_groups);

    return product >= SHORT && sent <= SENDER * idle * SHARE_OF_TIME * product;
}

/* How many work-groups send where one does one thing at a time: one in so many, which multiply
 * nothing. Where they have warps for it, such as have no tile to multiply, if they are enough: they
 * do not slow the product down. Else half: few enough that the queues before the links, which the
 * product's loads pass too, stay short, and one of the two multiprocessors that share a port of the
 * crossbar. With few peers, to whom less is stored for each load, more: all for one peer. Measured
 * on four H200s and two H100s by benchmarks/bench_matmul.py; in between for two peers. */
static int32_t choose_fetchers(const struct iris_select_target *on, const struct iris_op_desc *desc,
                               bool has_roles, int32_t idle, int32_t work_groups)
{
    enum { GROUPS_PER_FETCHER = 16 };
    const int32_t quarters = on->world_size > 3 ? 2 : 6 - on->world_size;

    if (!on->asynchronous || on->world_size == 1 || work_groups == 1 || !desc->overlaps)
        return 0;
    if (!has_roles)
        return (int32_t)iris_ceil_div(work_groups, GROUPS_PER_FETCHER);
    if (are_enough(on, desc, idle, work_groups))
        return idle;
    return (int32_t)iris_ceil_div((int64_t)work_groups * quarters, 4);
}

/* How many work-groups do nothing but send, or send at all where each has warps for it. */
static enum iris_status select_fetchers(const struct iris_select_target *on,
                                        const struct iris_config *config, uint32_t work_groups,
                                        struct iris_op_desc *desc)
{
    const bool has_roles = iris_is_tensor_core_product(on->sm90, desc->operation, desc->dtype);
    const int32_t asked = config->num_fetch_sms;
    const int32_t idle = has_roles ? count_idle(on, desc, (int32_t)work_groups) : 0;

    if (asked > (int32_t)work_groups - (has_roles ? 0 : 1))
        return IRIS_FAIL(IRIS_EINVAL, "num_fetch_sms: expected %s the %u work-groups, got %d",
                         has_roles ? "at most" : "less than", work_groups, asked);
    desc->fetch_groups =
        asked != 0 ? asked : choose_fetchers(on, desc, has_roles, idle, (int32_t)work_groups);
    desc->idle_senders = desc->overlaps && desc->fetch_groups <= idle ? desc->fetch_groups : 0;
    return IRIS_OK;
}

/* By the shape alone: ranks may have different numbers of work-groups. */
static bool may_split_k(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    const int64_t cols = desc->share_k != 0 ? desc->share_k : desc->K;

    return iris_is_tensor_core_product(on->sm90, desc->operation, desc->dtype) &&
           desc->block_n == IRIS_SM90_NARROW_BLOCK_N &&
           cols >= (int64_t)IRIS_K_SPLIT_MIN_STEPS * desc->block_k &&
           count_tiles(on, desc) <= IRIS_K_SPLIT_MAX_TILES;
}

/* Of an operation that gathers an operand, what has to do with that. Alone there is nothing to
 * overlap; otherwise doing both at once has been faster wherever it was measured. */
static enum iris_status select_gather(const struct iris_select_target *on,
                                      const struct iris_config *config, uint32_t work_groups,
                                      struct iris_op_desc *desc)
{
    if (!IRIS_IS_GATHERED_PRODUCT(desc->operation))
        return IRIS_OK;
    desc->overlaps = desc->operation == IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER &&
                     config->overlap != IRIS_NO &&
                     (config->overlap == IRIS_YES || on->world_size > 1);
    select_unit(on, config, work_groups, desc);
    desc->may_split_k = may_split_k(on, desc);
    desc->k_splits =
        desc->may_split_k && count_tiles(on, desc) * IRIS_K_SPLITS <= (int64_t)work_groups
            ? IRIS_K_SPLITS
            : 1;
    return select_fetchers(on, config, work_groups, desc);
}

/* Work-groups beyond those that have something to do only take time to start and to count in.
 * `asked`: the caller's number, or 0. */
static uint32_t enough_work_groups(const struct iris_select_target *on,
                                   const struct iris_op_desc *desc, int32_t asked)
{
    const uint32_t work_groups = (uint32_t)(asked != 0 ? asked : on->compute_units);
    const int32_t threads = on->asynchronous ? IRIS_GPU_THREADS : 1024;
    int64_t wanted = work_groups, limit = work_groups;

    if (iris_is_by_packets(desc->variant)) {
        const struct iris_packet_layout packets =
            iris_packet_layout_make(iris_op_desc_packet_nbytes(desc), on->world_size);
        wanted = iris_ceil_div(packets.words, threads);
        if (desc->operation == IRIS_OP_ALL_REDUCE_RMSNORM) /* one for each row */
            wanted = desc->M;
        else if (on->asynchronous && asked == 0)
            limit *= PACKET_GROUPS_PER_UNIT;
    } else if (desc->operation == IRIS_OP_ALL_REDUCE ||
               desc->operation == IRIS_OP_ALL_REDUCE_RMSNORM) {
        wanted = iris_ceil_div(desc->N, desc->block_n) * (on->asynchronous ? IRIS_RUN_PIECES : 1);
    }
    return (uint32_t)(wanted < limit ? wanted : limit);
}

/* For extents of at least 1. */
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
    IRIS_TRY(select_variant(on, config, desc));
    if (on->asynchronous) {
        IRIS_TRY(select_gpu(on, config, desc));
        *work_groups = enough_work_groups(on, desc, config->num_sms);
        return select_gather(on, config, *work_groups, desc);
    }
    /* A block larger than the matrix only wastes staging. */
    desc->block_m = at_most(config->block_size_m, desc->M);
    desc->block_n = at_most(config->block_size_n, desc->N);
    desc->block_k = config->block_size_k != 0 ? config->block_size_k : CPU_BLOCK_K;
    desc->group_size_m = config->group_size_m != 0 ? config->group_size_m : CPU_GROUP_SIZE_M;
    if (IRIS_IS_PRODUCT(desc->operation))
        select_product_blocks(on, desc);
    else
        select_run(on, desc);
    *work_groups = enough_work_groups(on, desc, config->num_sms);
    return select_gather(on, config, *work_groups, desc);
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
    status = select_sized(on, &asked, desc, work_groups);
    desc->M = M;
    desc->N = N;
    desc->K = K;
    return status;
}
