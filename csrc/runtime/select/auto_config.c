/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The choice as a config that callers can read: for the context's device, or for a chip that need
 * not be there.
 */
#include "op_select.h"

/* A config with what has been chosen: one that chooses the same again. */
static void fill_config(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        uint32_t work_groups, struct iris_config *config)
{
    config->form = desc->form;
    config->num_sms =
        (int32_t)work_groups < on->max_work_groups ? (int32_t)work_groups : on->max_work_groups;
    if (config->num_xcds == 0)
        config->num_xcds = on->xcds;
    if (desc->form != IRIS_FORM_TILES) { /* the rest are fields of tiles */
        config->variant = desc->form == IRIS_FORM_DECODE ? desc->variant : IRIS_VARIANT_TWO_SHOT;
        return;
    }
    config->variant = desc->variant;
    config->block_size_m = desc->block_m;
    config->block_size_n = desc->block_n;
    config->block_size_k = desc->block_k;
    config->group_size_m = desc->group_size_m;
    if (!IRIS_IS_GATHERED_PRODUCT(desc->operation))
        return;
    config->k_per_flag = desc->unit_k / desc->block_k;
    config->num_fetch_sms = desc->local.fetch_groups;
    config->overlap = desc->overlaps ? IRIS_YES : IRIS_NO;
}

/* A result or an operand that is divided: by rows, as most callers have it. The rows of the whole
 * are a multiple of the ranks. */
static void share_rows(struct iris_op_desc *desc, int world_size)
{
    if (IRIS_IS_PRODUCT(desc->operation) && desc->operation != IRIS_OP_MATMUL_ALL_REDUCE)
        desc->share_m = desc->M / world_size;
}

/* With one scale each and a bfloat16 result, as most are. */
static void describe_float8(struct iris_op_desc *desc)
{
    if (!IRIS_IS_FLOAT8(desc->dtype))
        return;
    desc->b_dtype = desc->dtype;
    desc->c_dtype = IRIS_DTYPE_BF16;
    desc->scale_a = desc->scale_b = IRIS_SCALE_TENSOR;
}

enum iris_status iris_config_select(const struct iris_context *ctx, enum iris_operation operation,
                                    int64_t M, int64_t N, int64_t K, enum iris_dtype dtype,
                                    struct iris_config *config)
{
    const struct iris_select_target on = iris_select_target_of(ctx);
    struct iris_op_desc desc = {
        .operation = operation, .dtype = dtype, .M = M, .N = N, .K = K, .root = -1};
    uint32_t work_groups;

    IRIS_TRY(iris_context_check(ctx));
    if (config->batch_invariant == IRIS_OPEN && iris_is_batch_invariant())
        config->batch_invariant = IRIS_YES;
    share_rows(&desc, ctx->world_size);
    describe_float8(&desc);
    IRIS_TRY(iris_select_for(&on, config, &desc, &work_groups));
    fill_config(&on, &desc, work_groups, config);
    return IRIS_OK;
}

/* ---- for devices that are not there ---- */

/* `config` NULL: the caller leaves all open. */
static enum iris_status select_on(const char *arch, const struct iris_config *config,
                                  int world_size, struct iris_explanation *explanation,
                                  struct iris_op_desc *desc, struct iris_config *out)
{
    static const struct iris_config open = {0};
    const struct iris_chip *chip = iris_chip_find(arch);
    struct iris_select_target on;
    uint32_t work_groups;

    if (chip == NULL)
        return IRIS_FAIL(IRIS_EINVAL,
                         "arch: expected sm_90a, gfx90a, gfx942, gfx950 or cpu, got '%.40s'", arch);
    if (world_size < 1 || world_size > IRIS_MAX_RANKS)
        return IRIS_FAIL(IRIS_EINVAL, "world_size: expected 1 to %d, got %d", IRIS_MAX_RANKS,
                         world_size);
    on = (struct iris_select_target){.chip = chip,
                                     .backend = chip->backend,
                                     .world_size = world_size,
                                     .xcds = chip->xcds,
                                     .compute_units = chip->compute_units,
                                     .max_work_groups = chip->max_work_groups,
                                     .has_blas = chip->is_gpu,
                                     .has_packets = true,
                                     .explanation = explanation};
    if (IRIS_IS_PRODUCT(desc->operation) && desc->operation != IRIS_OP_MATMUL_ALL_REDUCE &&
        desc->M % world_size != 0)
        return IRIS_FAIL(IRIS_EINVAL, "M: expected a multiple of world_size %d, got %lld",
                         world_size, (long long)desc->M);
    share_rows(desc, world_size);
    IRIS_TRY(iris_select_for(&on, config != NULL ? config : &open, desc, &work_groups));
    fill_config(&on, desc, work_groups, out);
    return IRIS_OK;
}

enum iris_status iris_auto_config(enum iris_operation operation, int64_t M, int64_t N, int64_t K,
                                  enum iris_dtype dtype, int world_size, const char *arch,
                                  struct iris_config *out)
{
    struct iris_op_desc desc = {
        .operation = operation, .dtype = dtype, .M = M, .N = N, .K = K, .root = -1};

    if (!IRIS_IS_PRODUCT(operation))
        return IRIS_FAIL(IRIS_EINVAL, "op: expected a fused product, got '%s'",
                         iris_operation_name(operation));
    describe_float8(&desc);
    if ((iris_chip_find(arch) == NULL || !iris_chip_takes(iris_chip_find(arch), dtype)) &&
        dtype != IRIS_DTYPE_F32 && dtype != IRIS_DTYPE_F16 && dtype != IRIS_DTYPE_BF16)
        return IRIS_FAIL(IRIS_EINVAL, "dtype: expected float32, float16 or bfloat16, got %s",
                         iris_dtype_name(dtype));
    return select_on(arch, NULL, world_size, NULL, &desc, out);
}

/* As a call has it: bytes of a rank, and ranks. N is not larger than is refused later. */
static void describe_gather(struct iris_op_desc *desc, int world_size)
{
    const int64_t element = (int64_t)iris_dtype_nbytes(desc->dtype);

    if (desc->operation != IRIS_OP_ALL_GATHER || desc->N < 0 || desc->N > INT64_MAX / element)
        return;
    desc->M = desc->N * element;
    desc->N = world_size;
    desc->dtype = IRIS_DTYPE_U8;
}

enum iris_status iris_explain(enum iris_operation operation, int64_t M, int64_t N, int64_t K,
                              enum iris_dtype dtype, int world_size, const char *arch,
                              const struct iris_config *config, struct iris_explanation *out)
{
    struct iris_op_desc desc = {
        .operation = operation, .dtype = dtype, .M = M, .N = N, .K = K, .root = -1};
    struct iris_config chosen = {0};

    *out = (struct iris_explanation){0};
    describe_gather(&desc, world_size);
    return select_on(arch, config, world_size, out, &desc, &chosen);
}
