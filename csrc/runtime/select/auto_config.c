/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Who chooses for whom: the context's device, or a chip that need not be there; from what was
 * measured for the very call, if anything was, else by the model of op_select.c.
 */
#include <string.h>

#include "op_select.h"

/* What was measured for this very call, if anything was. */
static const struct iris_config *tuned_config_of(const struct iris_select_target *on,
                                                 const struct iris_op_desc *desc)
{
    static const struct {
        enum iris_operation operation;
        const char *arch;
        enum iris_dtype dtype;
        int world_size;
        int64_t M, N, K;
        struct iris_config config;
    } tuned_configs[] = {
#define IRIS_TUNED_CONFIG(operation_, arch_, dtype_, world_size_, M_, N_, K_, block_n_, fetch_,    \
                          flag_)                                                                   \
    {IRIS_OP_##operation_,                                                                         \
     arch_,                                                                                        \
     IRIS_DTYPE_##dtype_,                                                                          \
     world_size_,                                                                                  \
     M_,                                                                                           \
     N_,                                                                                           \
     K_,                                                                                           \
     {.block_size_n = (block_n_), .num_fetch_sms = (fetch_), .k_per_flag = (flag_)}},
#include "tuned_configs.def"
#undef IRIS_TUNED_CONFIG
    };

    for (size_t i = 0; i < sizeof tuned_configs / sizeof tuned_configs[0]; ++i)
        if (tuned_configs[i].operation == desc->operation &&
            tuned_configs[i].dtype == desc->dtype &&
            tuned_configs[i].world_size == on->world_size && tuned_configs[i].M == desc->M &&
            tuned_configs[i].N == desc->N && tuned_configs[i].K == desc->K &&
            strcmp(tuned_configs[i].arch, on->arch) == 0)
            return &tuned_configs[i].config;
    return NULL;
}

static bool leaves_tuned_fields_open(const struct iris_config *config)
{
    return config->block_size_m == 0 && config->block_size_n == 0 && config->block_size_k == 0 &&
           config->group_size_m == 0 && config->num_sms == 0 && config->num_fetch_sms == 0 &&
           config->k_per_flag == 0 && config->overlap == IRIS_OPEN;
}

static enum iris_status select_measured(const struct iris_select_target *on,
                                        const struct iris_config *config, struct iris_op_desc *desc,
                                        uint32_t *work_groups)
{
    const struct iris_config *tuned = tuned_config_of(on, desc);
    struct iris_config asked = {0};

    if (config != NULL)
        asked = *config;
    /* One that asks for more work-groups than this device has is of another device. */
    if (tuned != NULL && leaves_tuned_fields_open(&asked) &&
        tuned->num_fetch_sms <= on->compute_units) {
        asked.block_size_n = tuned->block_size_n;
        asked.num_fetch_sms = tuned->num_fetch_sms;
        asked.k_per_flag = tuned->k_per_flag;
    }
    return iris_select_for(on, &asked, desc, work_groups);
}

/* The device as the choice sees it. */
static struct iris_select_target target_of(const struct iris_context *ctx)
{
    const struct iris_device_traits *traits = iris_device_traits(ctx->device);

    return (struct iris_select_target){
        .backend = ctx->ops->name,
        .arch = traits->sm90           ? "sm_90a"
                : traits->asynchronous ? ""
                                       : "cpu",
        .world_size = ctx->world_size,
        .asynchronous = traits->asynchronous,
        .sm90 = traits->sm90,
        .xcds = traits->xcds,
        .compute_units = ctx->ops->compute_units(ctx->device),
        .max_work_groups = ctx->ops->max_work_groups(ctx->device),
    };
}

enum iris_status iris_op_select(const struct iris_context *ctx, const struct iris_config *config,
                                struct iris_op_desc *desc, uint32_t *work_groups)
{
    const struct iris_select_target on = target_of(ctx);

    return select_measured(&on, config, desc, work_groups);
}

int32_t iris_op_select_xcds(const struct iris_context *ctx, const struct iris_config *config)
{
    return config != NULL && config->num_xcds != 0 ? config->num_xcds
                                                   : iris_device_traits(ctx->device)->xcds;
}

/* A config with what has been chosen. */
static void fill_config(const struct iris_select_target *on, const struct iris_op_desc *desc,
                        uint32_t work_groups, struct iris_config *config)
{
    config->variant = desc->variant;
    config->block_size_m = desc->block_m;
    config->block_size_n = desc->block_n;
    config->block_size_k = desc->block_k;
    config->group_size_m = desc->group_size_m;
    config->num_sms =
        (int32_t)work_groups < on->max_work_groups ? (int32_t)work_groups : on->max_work_groups;
    if (config->num_xcds == 0)
        config->num_xcds = on->xcds;
    if (!IRIS_IS_GATHERED_PRODUCT(desc->operation))
        return;
    config->k_per_flag = desc->unit_k / desc->block_k;
    config->num_fetch_sms = desc->fetch_groups;
    config->overlap = desc->overlaps ? IRIS_YES : IRIS_NO;
}

enum iris_status iris_config_select(const struct iris_context *ctx, enum iris_operation operation,
                                    int64_t M, int64_t N, int64_t K, enum iris_dtype dtype,
                                    struct iris_config *config)
{
    const struct iris_select_target on = target_of(ctx);
    struct iris_op_desc desc = {
        .operation = operation, .dtype = dtype, .M = M, .N = N, .K = K, .source = -1};
    uint32_t work_groups;

    IRIS_TRY(select_measured(&on, config, &desc, &work_groups));
    fill_config(&on, &desc, work_groups, config);
    return IRIS_OK;
}

/* ---- for devices that are not there ---- */

/* The chips' figures; of the cpu those that do not depend on the machine. */
static const struct iris_select_target chips[] = {
    {"cuda", "sm_90a", 0, true, true, 1, 132, 132}, /* H100 and H200, SXM */
    {"hip", "gfx90a", 0, true, false, 1, 104, 104}, /* MI210, a die of MI250 */
    {"hip", "gfx942", 0, true, false, 8, 304, 304}, /* MI300X */
    {"hip", "gfx950", 0, true, false, 8, 256, 256}, /* MI350X */
    {"cpu", "cpu", 0, false, false, 1, 1, INT32_MAX},
};

enum iris_status iris_auto_config(enum iris_operation operation, int64_t M, int64_t N, int64_t K,
                                  enum iris_dtype dtype, int world_size, const char *arch,
                                  struct iris_config *out)
{
    struct iris_op_desc desc = {
        .operation = operation, .dtype = dtype, .M = M, .N = N, .K = K, .source = -1};
    struct iris_select_target on = {0};
    uint32_t work_groups;

    for (size_t i = 0; i < sizeof chips / sizeof chips[0]; ++i)
        if (strcmp(chips[i].arch, arch) == 0)
            on = chips[i];
    if (on.arch == NULL)
        return IRIS_FAIL(IRIS_EINVAL,
                         "arch: expected sm_90a, gfx90a, gfx942, gfx950 or cpu, got '%.40s'", arch);
    if (!IRIS_IS_PRODUCT(operation))
        return IRIS_FAIL(IRIS_EINVAL, "op: expected a fused product, got '%s'",
                         iris_operation_name(operation));
    if (dtype != IRIS_DTYPE_F32 && dtype != IRIS_DTYPE_F16 && dtype != IRIS_DTYPE_BF16)
        return IRIS_FAIL(IRIS_EINVAL, "dtype: expected float32, float16 or bfloat16, got %s",
                         iris_dtype_name(dtype));
    if (world_size < 1 || world_size > IRIS_MAX_RANKS)
        return IRIS_FAIL(IRIS_EINVAL, "world_size: expected 1 to %d, got %d", IRIS_MAX_RANKS,
                         world_size);
    on.world_size = world_size;
    /* The shares of rows, which most callers have. */
    if (operation != IRIS_OP_MATMUL_ALL_REDUCE) {
        if (M % world_size != 0)
            return IRIS_FAIL(IRIS_EINVAL, "M: expected a multiple of world_size %d, got %lld",
                             world_size, (long long)M);
        desc.share_m = M / world_size;
    }
    IRIS_TRY(select_measured(&on, NULL, &desc, &work_groups));
    fill_config(&on, &desc, work_groups, out);
    return IRIS_OK;
}
