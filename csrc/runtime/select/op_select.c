/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The choice of all that a call leaves open, in its order: form, variant, tiles, work-groups, and
 * how a gathered operand travels.
 */
#include "op_select.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "choice_memory.h"
#include "decide.h"
#include "kernels/abi/launch_limits.h"
#include "kernels/abi/schedule.h"

/* A call by packets on a GPU: what a thread does for a word is to wait, so there are as many
 * threads as a compute unit has registers for. A work-group beyond those would begin when another
 * has heard from its peers. */
enum { PACKET_GROUPS_PER_UNIT = 2 };

/* Work-groups beyond those that have something to do only take time to start and to count in.
 * `asked`: the caller's number, or 0. */
static uint32_t enough_work_groups(const struct iris_select_target *on,
                                   const struct iris_op_desc *desc, int32_t asked)
{
    if (on->cores > 0 && asked > on->cores)
        asked = on->cores;
    const uint32_t work_groups = (uint32_t)(asked != 0 ? asked : on->compute_units);
    int64_t wanted = work_groups, limit = work_groups;

    if (desc->form == IRIS_FORM_DECODE) {
        /* On GPUs work-groups share tiles: iris_run_decode counts them. */
        if (!on->chip->is_gpu)
            wanted = iris_ceil_div(desc->N, desc->block_n);
    } else if (iris_is_by_packets(desc->variant)) {
        const struct iris_packet_layout packets = iris_op_desc_packets(desc, on->world_size);
        wanted = iris_ceil_div(packets.words, on->chip->is_gpu ? IRIS_PACKET_RUN : 1024);
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

/* A call in the form PLAIN: its collective, chosen as one that is called by itself, and its
 * product, which runs in as many work-groups as a kernel of tiles would. */
static enum iris_status select_plain(const struct iris_select_target *on,
                                     const struct iris_config *config, struct iris_op_desc *desc,
                                     uint32_t *work_groups)
{
    const struct iris_config open = {.num_sms = config->num_sms};
    struct iris_op_desc collective = iris_op_desc_collective(desc, on->world_size);
    struct iris_op_desc product = iris_op_desc_product(desc, on->world_size);
    struct iris_own_product *own = &desc->local.product;
    struct iris_select_target alone = *on;

    alone.world_size = 1;
    alone.explanation = NULL;
    IRIS_TRY(select_sized(&alone, &open, &product, &own->work_groups));
    own->block_m = product.block_m;
    own->block_n = product.block_n;
    own->block_k = product.block_k;
    own->group_size_m = product.group_size_m;
    own->gpu_parts = product.local.gpu_parts;
    collective.variant = IRIS_VARIANT_NONE;
    IRIS_TRY(select_sized(on, &open, &collective, work_groups));
    desc->pulls = iris_plain_pulls(on, desc);
    if (desc->pulls) { /* what is launched only meets */
        collective.variant = IRIS_VARIANT_NONE;
        *work_groups = 1;
    }
    desc->variant = collective.variant;
    desc->block_m = 1;
    desc->block_n = collective.operation == IRIS_OP_ALL_GATHER ? 1 : collective.block_n;
    desc->block_k = desc->group_size_m = 1;
    desc->local.gpu_parts = collective.local.gpu_parts;
    return IRIS_OK;
}

/* More elements than there are addresses; what is computed of them fits into 64 bits. */
enum { MOST_ELEMENTS_LOG2 = 48 };

static bool is_countable(int64_t rows, int64_t columns)
{
    const int64_t most = INT64_C(1) << MOST_ELEMENTS_LOG2;

    return rows <= most && columns <= most && (rows == 0 || columns <= most / rows);
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
    if (!is_countable(M, N) || !is_countable(M, K) || !is_countable(N, K))
        return IRIS_FAIL(IRIS_EINVAL,
                         "M, N, K: expected matrices of at most 2**%d elements, got %lld, %lld, "
                         "%lld",
                         MOST_ELEMENTS_LOG2, (long long)M, (long long)N, (long long)K);
    if (N == 0)
        asked.overlap = IRIS_NO;
    desc->M = M > 0 ? M : 1;
    desc->N = N > 0 ? N : 1;
    desc->K = K > 0 ? K : 1;
    status = iris_select_form(on, config, asked.batch_invariant == IRIS_YES,
                              M == 0 || N == 0 || K == 0 || desc->no_k, desc);
    if (config->form == IRIS_FORM_DECODE && desc->form == IRIS_FORM_TILES)
        asked.variant = IRIS_VARIANT_NONE; /* empty: tiles, which have no hops */
    if (status == IRIS_OK)
        status = desc->form == IRIS_FORM_PLAIN ? select_plain(on, &asked, desc, work_groups)
                                               : select_sized(on, &asked, desc, work_groups);
    desc->M = M;
    desc->N = N;
    desc->K = K;
    return status;
}

/* ---- for a context ---- */

struct iris_select_target iris_select_target_of(const struct iris_context *ctx)
{
    const struct iris_device_traits *traits = iris_device_traits(ctx->device);

    return (struct iris_select_target){
        .chip = iris_chip_of(traits->arch, ctx->ops->name),
        .backend = ctx->ops->name,
        .world_size = ctx->world_size,
        .xcds = traits->xcds,
        .compute_units = ctx->ops->compute_units(ctx->device),
        .max_work_groups = ctx->ops->max_work_groups(ctx->device),
        .cores = traits->cores,
        .has_blas = ctx->has_blas,
        .has_packets = ctx->has_packets,
    };
}

static atomic_bool all_invariant;

void iris_set_batch_invariant(bool invariant)
{
    atomic_store_explicit(&all_invariant, invariant, memory_order_relaxed);
}

bool iris_is_batch_invariant(void)
{
    return atomic_load_explicit(&all_invariant, memory_order_relaxed);
}

static atomic_bool all_prefetch_b;

void iris_set_prefetch_b(bool prefetch)
{
    atomic_store_explicit(&all_prefetch_b, prefetch, memory_order_relaxed);
}

bool iris_prefetches_b(void)
{
    return atomic_load_explicit(&all_prefetch_b, memory_order_relaxed);
}

typedef void choice_log(const char *text);
static choice_log *_Atomic installed_log;

void iris_log_choices(void (*log)(const char *text))
{
    atomic_store_explicit(&installed_log, log, memory_order_release);
}

static void log_choice(choice_log *log, const struct iris_context *ctx,
                       const struct iris_op_desc *desc, uint32_t work_groups,
                       const struct iris_explanation *explanation)
{
    static _Thread_local uint32_t last; /* signature of what this thread has logged */
    const uint32_t signature = iris_op_desc_signature(desc);
    char call[IRIS_OP_TEXT_NBYTES], text[2048];
    size_t used;

    if (signature == last)
        return;
    last = signature;
    iris_op_desc_format(desc, call);
    (void)snprintf(text, sizeof text, "iris_c: rank %d: %s on %u work-groups%s%s", ctx->rank, call,
                   work_groups,
                   desc->form == IRIS_FORM_PLAIN && ctx->has_blas
                       ? ", multiplied by the vendor's library"
                       : "",
                   explanation->count == 0 ? ", by rule" : "");
    used = strlen(text);
    for (int i = 0; i < explanation->count && used + 2 < sizeof text; ++i) {
        text[used++] = '\n';
        used += iris_decision_format(&explanation->decisions[i], text + used, sizeof text - used);
    }
    log(text);
}

/* With a log: what was weighed is wanted, also where the choice is known. */
static enum iris_status select_and_log(choice_log *log, const struct iris_context *ctx,
                                       const struct iris_choice_key *key, struct iris_op_desc *desc,
                                       uint32_t *work_groups)
{
    struct iris_explanation explanation = {0};
    struct iris_select_target on = key->on;

    on.explanation = &explanation;
    IRIS_TRY(iris_select_for(&on, &key->config, desc, work_groups));
    log_choice(log, ctx, desc, *work_groups, &explanation);
    return IRIS_OK;
}

enum iris_status iris_op_select(const struct iris_context *ctx, const struct iris_config *config,
                                struct iris_op_desc *desc, uint32_t *work_groups)
{
    choice_log *log = atomic_load_explicit(&installed_log, memory_order_acquire);
    struct iris_choice_key key;

    memset(&key, 0, sizeof key);
    key.on = iris_select_target_of(ctx);
    if (config != NULL)
        key.config = *config;
    if (key.config.batch_invariant == IRIS_OPEN && iris_is_batch_invariant())
        key.config.batch_invariant = IRIS_YES; /* which choices are remembered by */
    key.desc = *desc;
    if (log != NULL)
        return select_and_log(log, ctx, &key, desc, work_groups);
    if (iris_choice_recall(&key, desc, work_groups))
        return IRIS_OK;
    IRIS_TRY(iris_select_for(&key.on, &key.config, desc, work_groups));
    iris_choice_remember(&key, desc, *work_groups);
    return IRIS_OK;
}

int32_t iris_op_select_xcds(const struct iris_context *ctx, const struct iris_config *config)
{
    return config != NULL && config->num_xcds != 0 ? config->num_xcds
                                                   : iris_device_traits(ctx->device)->xcds;
}
