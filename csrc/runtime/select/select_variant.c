/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which variant a reduction over ranks takes, and an all_gather.
 */
#include "decide.h"
#include "kernels/abi/schedule.h"
#include "select_parts.h"

/* On the host copies are cheap and signals are not: each rank sums everything, up to so many bytes.
 */
enum { CPU_ONE_SHOT = 64 << 10 };

/* Between two measured points the model errs by less. */
static const double MARGIN = 0.02;

/* Whether its packets are all data; in others each signal takes as much room as what it follows. */
static bool travels_bare(const struct iris_op_desc *desc)
{
    return IRIS_TRAVELS_BARE(iris_op_desc_result_dtype(desc));
}

/* By words over one hop, over two, and with barriers. */
void iris_all_reduce_seconds(const struct iris_select_target *on, const struct iris_op_desc *desc,
                             double nbytes, enum iris_variant variant, double link_rate,
                             double terms[2])
{
    const struct iris_chip *chip = on->chip;
    const double peers = on->world_size - 1, share = peers / on->world_size;
    const double sent = travels_bare(desc) ? nbytes : 2 * nbytes;

    if (variant == IRIS_VARIANT_LL) {
        terms[0] = chip->one_hop_seconds + iris_hop_peers_seconds(on);
        terms[1] = sent * peers / chip->packet_rate;
    } else if (variant == IRIS_VARIANT_LL_TWO_SHOT) {
        terms[0] = chip->two_hop_seconds + iris_hop_peers_seconds(on);
        terms[1] = 2 * sent * share / chip->packet_rate;
    } else {
        terms[0] = chip->barrier_seconds;
        terms[1] = 2 * nbytes * share / link_rate;
    }
}

static void weigh_all_reduce(const struct iris_select_target *on, const struct iris_op_desc *desc,
                             double nbytes, enum iris_variant variant,
                             struct iris_decision *decision)
{
    double terms[2];

    iris_all_reduce_seconds(on, desc, nbytes, variant, on->chip->link_rate, terms);
    iris_decision_add(decision, (int32_t)variant, terms, terms[0] + terms[1]);
}

/* Slots for words in their two halves take four times the message of the heap, or more over one
 * hop, so that larger messages take barriers whatever the model says. */
enum { MOST_REDUCED_BY_WORDS = 16 << 20 };

static enum iris_variant choose_all_reduce(const struct iris_select_target *on,
                                           const struct iris_op_desc *desc, uint64_t nbytes,
                                           bool only_packets)
{
    const struct iris_chip *chip = on->chip;
    struct iris_decision decision = {.field = "all_reduce_variant", .terms = {"start", "links"}};

    if (!on->has_packets && !only_packets)
        return IRIS_VARIANT_TWO_SHOT;
    if (!chip->is_gpu) /* one_shot is not for results in the place of inputs */
        return nbytes <= CPU_ONE_SHOT && !desc->local.in_place ? IRIS_VARIANT_ONE_SHOT
                                                               : IRIS_VARIANT_TWO_SHOT;
    if (only_packets || nbytes * (uint64_t)on->world_size <= UINT64_C(2) * MOST_REDUCED_BY_WORDS)
        weigh_all_reduce(on, desc, (double)nbytes, IRIS_VARIANT_LL, &decision);
    if (only_packets || nbytes <= MOST_REDUCED_BY_WORDS)
        weigh_all_reduce(on, desc, (double)nbytes, IRIS_VARIANT_LL_TWO_SHOT, &decision);
    if (!only_packets)
        weigh_all_reduce(on, desc, (double)nbytes, IRIS_VARIANT_TWO_SHOT, &decision);
    return (enum iris_variant)iris_decide(&decision, MARGIN, on->explanation);
}

/* By words over one hop, and with barriers. `nbytes`: of all shares. */
void iris_reduce_scatter_seconds(const struct iris_select_target *on, double nbytes,
                                 enum iris_variant variant, double link_rate, double terms[2])
{
    const struct iris_chip *chip = on->chip;
    const double peers = on->world_size - 1, sent = nbytes * peers / on->world_size;

    if (variant == IRIS_VARIANT_LL) {
        terms[0] = chip->one_hop_seconds + iris_hop_peers_seconds(on);
        terms[1] = sent / chip->packet_rate;
    } else {
        terms[0] = chip->barrier_seconds;
        terms[1] = sent / link_rate;
    }
}

/* A config that names none of these two is one for other reductions. */
static enum iris_variant choose_reduce_scatter(const struct iris_select_target *on,
                                               const struct iris_op_desc *desc,
                                               enum iris_variant asked)
{
    const enum iris_variant variants[] = {IRIS_VARIANT_LL, IRIS_VARIANT_TWO_SHOT};
    const double nbytes =
        (double)desc->M * (double)desc->N * (double)iris_dtype_nbytes(desc->dtype);
    struct iris_decision decision = {.field = "all_reduce_variant", .terms = {"start", "links"}};
    double terms[2];

    if (asked == IRIS_VARIANT_LL && IRIS_TRAVELS_BARE(desc->dtype))
        return IRIS_VARIANT_LL;
    if (asked != IRIS_VARIANT_NONE || !on->chip->is_gpu || !on->has_packets ||
        !IRIS_TRAVELS_BARE(desc->dtype) || on->world_size == 1 ||
        nbytes > 2.0 * MOST_REDUCED_BY_WORDS)
        return IRIS_VARIANT_TWO_SHOT;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; ++i) {
        iris_reduce_scatter_seconds(on, nbytes, variants[i], on->chip->link_rate, terms);
        iris_decision_add(&decision, (int32_t)variants[i], terms, terms[0] + terms[1]);
    }
    return (enum iris_variant)iris_decide(&decision, MARGIN, on->explanation);
}

/* By packets over one hop, and by copies between barriers. */
void iris_all_gather_seconds(const struct iris_select_target *on, double share_nbytes,
                             enum iris_variant variant, double terms[2])
{
    const struct iris_chip *chip = on->chip;
    const double peers = on->world_size - 1;

    if (variant == IRIS_VARIANT_LL) {
        terms[0] = chip->one_hop_seconds + iris_hop_peers_seconds(on);
        terms[1] = 2 * share_nbytes * peers / chip->packet_rate;
    } else {
        terms[0] = chip->gather_seconds;
        terms[1] = share_nbytes * peers / chip->gather_rate;
    }
}

/* Packets and their halves take four times the result of the heap, so that larger ones are copied
 * whatever the model says. */
enum { MOST_GATHERED_BY_PACKETS = 2 << 20 };

/* By copies: NONE, as other operations without variants have it, which configs call 'two_shot'.
 * A config that names none of all_gather's variants is one for reductions. */
static enum iris_variant choose_all_gather(const struct iris_select_target *on,
                                           const struct iris_op_desc *desc, enum iris_variant asked)
{
    const enum iris_variant variants[] = {IRIS_VARIANT_LL, IRIS_VARIANT_TWO_SHOT};
    struct iris_decision decision = {.field = "all_reduce_variant", .terms = {"start", "links"}};
    double terms[2];

    if (asked == IRIS_VARIANT_LL)
        return IRIS_VARIANT_LL;
    if (asked == IRIS_VARIANT_TWO_SHOT || !on->chip->is_gpu || !on->has_packets ||
        on->world_size == 1 || desc->M > MOST_GATHERED_BY_PACKETS / on->world_size)
        return IRIS_VARIANT_NONE;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; ++i) {
        iris_all_gather_seconds(on, (double)desc->M, variants[i], terms);
        iris_decision_add(&decision, (int32_t)variants[i], terms, terms[0] + terms[1]);
    }
    return iris_decide(&decision, MARGIN, on->explanation) == IRIS_VARIANT_LL ? IRIS_VARIANT_LL
                                                                              : IRIS_VARIANT_NONE;
}

/* Of a product in the form DECODE: one hop, or two where packets are many. 'two_shot' is what a
 * config has that says nothing. */
static enum iris_status select_decode(const struct iris_select_target *on,
                                      struct iris_op_desc *desc, uint64_t nbytes)
{
    const bool sums_all = desc->operation == IRIS_OP_MATMUL_ALL_REDUCE;

    if (desc->variant == IRIS_VARIANT_LL_TWO_SHOT && !sums_all)
        return IRIS_FAIL(IRIS_EINVAL, "all_reduce_variant: expected 'll' for %s, got 'll_two_shot'",
                         iris_operation_name(desc->operation));
    if (!sums_all)
        desc->variant = IRIS_VARIANT_LL;
    else if (!iris_is_by_packets(desc->variant) && on->chip->is_gpu)
        desc->variant = choose_all_reduce(on, desc, nbytes, true);
    else if (!iris_is_by_packets(desc->variant))
        desc->variant = nbytes <= CPU_ONE_SHOT ? IRIS_VARIANT_LL : IRIS_VARIANT_LL_TWO_SHOT;
    if (!iris_decode_all_own(desc->M, desc->N, on->world_size))
        desc->variant = IRIS_VARIANT_LL;
    return IRIS_OK;
}

/* Where not every rank would own a block, two hops could not even do their work. */
static void prefer_one_hop(const struct iris_select_target *on, struct iris_op_desc *desc)
{
    const struct iris_packet_layout packets = iris_op_desc_packets(desc, on->world_size);

    if (desc->variant == IRIS_VARIANT_LL_TWO_SHOT && !iris_packet_all_own(&packets))
        desc->variant = IRIS_VARIANT_LL;
}

/* On a GPU one kernel, by packets. On the host, where a word at a time is slow, the all_reduce's
 * variants too, with the norm as a step of its own. */
static enum iris_status select_rmsnorm(const struct iris_select_target *on,
                                       struct iris_op_desc *desc, uint64_t nbytes)
{
    const bool host = !on->chip->is_gpu;

    if (desc->variant == IRIS_VARIANT_NONE)
        desc->variant = choose_all_reduce(on, desc, nbytes, !host);
    prefer_one_hop(on, desc);
    if (iris_is_by_packets(desc->variant) || (host && (desc->variant == IRIS_VARIANT_ONE_SHOT ||
                                                       desc->variant == IRIS_VARIANT_TWO_SHOT)))
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "all_reduce_variant: expected 'll'%s or 'll_two_shot' for "
                     "all_reduce_rmsnorm on the %s backend, got '%s'",
                     host ? ", 'one_shot', 'two_shot'" : "", on->backend,
                     iris_variant_name(desc->variant));
}

/* Dtypes that are reduced in one variant, IRIS_RARE_INSTANCES. */
static bool is_rare(enum iris_dtype dtype)
{
    return dtype == IRIS_DTYPE_F64 || dtype == IRIS_DTYPE_I8 || dtype == IRIS_DTYPE_U8 ||
           dtype == IRIS_DTYPE_BOOL;
}

static enum iris_status check_rare(const struct iris_op_desc *desc)
{
    if (!is_rare(desc->dtype) || desc->variant == IRIS_VARIANT_TWO_SHOT)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "all_reduce_variant: expected 'two_shot' for %s, got '%s'",
                     iris_dtype_name(desc->dtype), iris_variant_name(desc->variant));
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
    if (desc->form == IRIS_FORM_DECODE)
        return select_decode(on, desc, nbytes);
    switch (desc->operation) {
    case IRIS_OP_MATMUL_ALL_REDUCE:
        if (desc->variant == IRIS_VARIANT_NONE)
            desc->variant = IRIS_VARIANT_TWO_SHOT;
        /* On the host the owner of a tile does not round its own partial, and who owns a row
         * depends on how many there are. */
        if (config->batch_invariant == IRIS_YES && !on->chip->is_gpu &&
            desc->variant == IRIS_VARIANT_TWO_SHOT)
            desc->variant = IRIS_VARIANT_ONE_SHOT;
        if (desc->variant <= IRIS_VARIANT_RING)
            return IRIS_OK;
        return IRIS_FAIL(IRIS_EINVAL,
                         "all_reduce_variant: expected 'two_shot', 'one_shot', 'ring', 'atomic' or "
                         "'spinlock' for matmul_all_reduce, got '%s'",
                         iris_variant_name(desc->variant));
    case IRIS_OP_ALL_REDUCE:
        if (desc->variant == IRIS_VARIANT_NONE)
            desc->variant = is_rare(desc->dtype) ? IRIS_VARIANT_TWO_SHOT
                                                 : choose_all_reduce(on, desc, nbytes, false);
        IRIS_TRY(check_rare(desc));
        prefer_one_hop(on, desc);
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
        desc->variant = choose_reduce_scatter(on, desc, config->variant);
        return IRIS_OK;
    case IRIS_OP_REDUCE:
        desc->variant = IRIS_VARIANT_TWO_SHOT;
        return IRIS_OK;
    case IRIS_OP_ALL_GATHER:
        desc->variant = choose_all_gather(on, desc, config->variant);
        return IRIS_OK;
    default:
        desc->variant = IRIS_VARIANT_NONE;
        return IRIS_OK;
    }
}

enum iris_status iris_select_variant(const struct iris_select_target *on,
                                     const struct iris_config *config, struct iris_op_desc *desc)
{
    IRIS_TRY(select_variant(on, config, desc));
    if (on->has_packets || !iris_is_by_packets(desc->variant))
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "all_reduce_variant: expected one without packets, which some rank's memory "
                     "does not show without fences, got '%s' of %s",
                     iris_variant_name(desc->variant), iris_operation_name(desc->operation));
}
