/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * In which form a product is joined with what goes on between ranks. Depends only on what is equal
 * on all ranks: the call's shape and dtype, the chip, the number of ranks, and facts that the ranks
 * have told each other. Not on where this rank's operands lie.
 */
#include "decide.h"
#include "kernels/abi/schedule.h"
#include "select_parts.h"

/* The scales of a gathered operand would have to be gathered too; and where each owner's columns
 * are multiplied by themselves, its scales have to begin with a block. A bias of a scattered sum is
 * each owner's own, which neither the collective nor the product of all owners' rows and columns
 * can add. */
static bool plain_is_available(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    const bool by_columns = desc->share_n != 0;

    if (iris_op_desc_is_scaled(desc) && (IRIS_IS_GATHERED_PRODUCT(desc->operation) ||
                                         (by_columns && desc->scale_b == IRIS_SCALE_SQUARE &&
                                          desc->N / on->world_size % IRIS_SCALE_BLOCK != 0)))
        return false;
    return desc->operation != IRIS_OP_MATMUL_REDUCE_SCATTER || !desc->has_bias;
}

/* Few rows, of results of 16 bits, whose words' indices have 32 bits, as the steps of K of all
 * tiles do. GPUs have no such kernels for float8 operands. */
static bool has_decode(const struct iris_select_target *on, const struct iris_op_desc *desc)
{
    enum { LARGEST = 1 << 30, MOST_STEPS_LOG2 = 42 };
    const bool gathers = desc->operation == IRIS_OP_MATMUL_ALL_GATHER;
    const int64_t rows = gathers ? desc->share_m : desc->M;

    return on->has_packets && !IRIS_IS_GATHERED_PRODUCT(desc->operation) &&
           !(on->chip->is_gpu && iris_op_desc_is_scaled(desc)) &&
           iris_op_desc_result_dtype(desc) != IRIS_DTYPE_F32 && rows <= IRIS_DECODE_MAX_ROWS &&
           desc->N <= LARGEST && desc->K <= LARGEST &&
           desc->N * desc->K <= INT64_C(1) << MOST_STEPS_LOG2;
}

/* Of each form: which calls it can run. */
static const struct {
    enum iris_form form;
    bool (*is_available)(const struct iris_select_target *on, const struct iris_op_desc *desc);
} forms[] = {
    {IRIS_FORM_TILES, NULL}, /* any call */
    {IRIS_FORM_DECODE, has_decode},
    {IRIS_FORM_PLAIN, plain_is_available},
};

bool iris_form_available(const struct iris_select_target *on, const struct iris_op_desc *desc,
                         enum iris_form form)
{
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; ++i)
        if (forms[i].form == form)
            return forms[i].is_available == NULL || forms[i].is_available(on, desc);
    return false;
}

/* The first field of the config that asks for what only tiles have; NULL: none does. Not num_sms,
 * which may differ between the ranks. */
static const char *find_tiles_field(const struct iris_config *config)
{
    const bool by_packets = config->form == IRIS_FORM_DECODE && iris_is_by_packets(config->variant);
    const struct {
        const char *name;
        bool asked;
    } fields[] = {
        {"block_size_m", config->block_size_m != 0},
        {"block_size_n", config->block_size_n != 0},
        {"block_size_k", config->block_size_k != 0},
        {"group_size_m", config->group_size_m != 0},
        {"num_fetch_sms", config->num_fetch_sms != 0},
        {"k_per_flag", config->k_per_flag != 0},
        {"staged_a_layout", config->m_contiguous},
        {"overlap", config->overlap != IRIS_OPEN},
        {"all_reduce_variant", config->variant != IRIS_VARIANT_NONE &&
                                   config->variant != IRIS_VARIANT_TWO_SHOT && !by_packets},
    };

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; ++i)
        if (fields[i].asked)
            return fields[i].name;
    return NULL;
}

static void weigh(struct iris_decision *decision, enum iris_form form,
                  const double terms[IRIS_FORM_TERMS])
{
    iris_decision_add(decision, (int32_t)form, terms, terms[0] + terms[1] + terms[2]);
}

/* Where the caller leaves it open, and something is to be multiplied. The figures are those of 16
 * bits. */
static enum iris_form choose_form(const struct iris_select_target *on,
                                  const struct iris_config *config, const struct iris_op_desc *desc)
{
    static const double MARGIN = 0.01; /* what tiles are kept for where the model cannot tell */
    struct iris_decision decision = {.field = "form", .terms = {"start", "product", "exchange"}};
    double terms[IRIS_FORM_TERMS];

    if (desc->dtype == IRIS_DTYPE_F32 || iris_op_desc_is_scaled(desc) ||
        !(on->chip->plain_shown || on->chip->decode_shown))
        return IRIS_FORM_TILES;
    iris_tiles_seconds(on, desc, terms);
    weigh(&decision, IRIS_FORM_TILES, terms);
    if (on->chip->plain_shown && plain_is_available(on, desc)) {
        iris_plain_seconds(on, desc, terms);
        weigh(&decision, IRIS_FORM_PLAIN, terms);
    }
    if (on->chip->decode_shown && has_decode(on, desc) &&
        iris_decode_seconds(on, config, desc, terms))
        weigh(&decision, IRIS_FORM_DECODE, terms);
    return (enum iris_form)iris_decide(&decision, MARGIN, on->explanation);
}

static enum iris_status check_form(const struct iris_select_target *on,
                                   const struct iris_op_desc *desc, enum iris_form form,
                                   const char *tiles_field)
{
    if (form != IRIS_FORM_TILES && tiles_field != NULL)
        return IRIS_FAIL(IRIS_EINVAL, "%s: expected None in the form '%s', which has no tiles",
                         tiles_field, iris_form_name(form));
    if (iris_form_available(on, desc, form))
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "form: expected one that %s has for %s on the %s backend, got "
                     "'%s'",
                     iris_operation_name(desc->operation), iris_dtype_name(desc->dtype),
                     on->backend, iris_form_name(form));
}

/* Tiles add up K in one order whatever their number, and ranks are added in theirs. */
static enum iris_status check_invariant(const struct iris_config *config, enum iris_form form)
{
    if (form != IRIS_FORM_TILES)
        return IRIS_FAIL(IRIS_EINVAL,
                         "form: expected 'tiles' or None with batch_invariant, got '%s'",
                         iris_form_name(form));
    if (config->variant != IRIS_VARIANT_ATOMIC && config->variant != IRIS_VARIANT_SPINLOCK)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL,
                     "all_reduce_variant: expected 'two_shot', 'one_shot' or 'ring', which add in "
                     "rank order, with batch_invariant, got '%s'",
                     iris_variant_name(config->variant));
}

enum iris_status iris_select_form(const struct iris_select_target *on,
                                  const struct iris_config *config, bool invariant, bool empty,
                                  struct iris_op_desc *desc)
{
    const char *tiles_field = find_tiles_field(config);

    desc->form = IRIS_FORM_NONE;
    if (!IRIS_IS_PRODUCT(desc->operation))
        return IRIS_OK;
    desc->form = config->form;
    if (desc->form == IRIS_FORM_NONE)
        desc->form = tiles_field != NULL || empty || invariant ? IRIS_FORM_TILES
                                                               : choose_form(on, config, desc);
    if (invariant)
        IRIS_TRY(check_invariant(config, desc->form));
    IRIS_TRY(check_form(on, desc, desc->form, tiles_field));
    if (empty) /* nothing to multiply: the other forms leave that to this one */
        desc->form = IRIS_FORM_TILES;
    return IRIS_OK;
}
