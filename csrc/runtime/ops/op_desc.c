/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Text, signature and memory needs of a described operation.
 */
#include "op_desc.h"

#include <stdio.h>

#include "kernels/abi/launch_limits.h"

const char *iris_root_name(enum iris_operation operation)
{
    return operation == IRIS_OP_GATHER || operation == IRIS_OP_REDUCE ? "dst" : "src";
}

/* "float32", or "float8_e4m3fn by row @ float8_e4m3fn by row -> bfloat16". */
static void format_dtypes(const struct iris_op_desc *desc, char *text, size_t nbytes)
{
    static const char *const kinds[] = {[IRIS_SCALE_NONE] = "",
                                        [IRIS_SCALE_TENSOR] = "by tensor",
                                        [IRIS_SCALE_ROW] = "by row",
                                        [IRIS_SCALE_LINE] = "by 1x128",
                                        [IRIS_SCALE_SQUARE] = "by 128x128"};

    if (iris_op_desc_is_scaled(desc))
        (void)snprintf(text, nbytes, "%s %s @ %s %s -> %s", iris_dtype_name(desc->dtype),
                       kinds[desc->scale_a], iris_dtype_name(desc->b_dtype), kinds[desc->scale_b],
                       iris_dtype_name(desc->c_dtype));
    else
        (void)snprintf(text, nbytes, "%s", iris_dtype_name(desc->dtype));
}

void iris_op_desc_format(const struct iris_op_desc *desc, char text[IRIS_OP_TEXT_NBYTES])
{
    const char *separator = desc->variant == IRIS_VARIANT_NONE ? "" : ", ";
    char extent[80], blocks[48] = "", detail[40] = "", op[16] = "", dtypes[96];

    format_dtypes(desc, dtypes, sizeof dtypes);
    if (IRIS_IS_PRODUCT(desc->operation)) {
        (void)snprintf(extent, sizeof extent, "M=%lld, N=%lld, K=%lld", (long long)desc->M,
                       (long long)desc->N, (long long)iris_op_desc_k(desc));
        if (desc->form == IRIS_FORM_TILES)
            (void)snprintf(blocks, sizeof blocks, ", blocks %dx%dx%d", desc->block_m, desc->block_n,
                           desc->block_k);
        else
            (void)snprintf(blocks, sizeof blocks, ", %s", iris_form_name(desc->form));
    } else {
        const long long elements = desc->M * desc->N;
        (void)snprintf(extent, sizeof extent, "%lld elements", elements);
    }
    if (desc->operation == IRIS_OP_MATMUL_REDUCE_SCATTER)
        (void)snprintf(detail, sizeof detail, ", dim=%d", desc->dim);
    if (IRIS_IS_GATHERED_PRODUCT(desc->operation))
        (void)snprintf(detail, sizeof detail, ", gather_dim=%d, %d%s", desc->dim, desc->unit_k,
                       desc->m_contiguous ? " by M" : "");
    if (desc->root >= 0)
        (void)snprintf(detail, sizeof detail, ", %s=%d", iris_root_name(desc->operation),
                       desc->root);
    if (desc->reduce_op != IRIS_REDUCE_SUM)
        (void)snprintf(op, sizeof op, ", op=%s", iris_reduce_op_name(desc->reduce_op));
    (void)snprintf(text, IRIS_OP_TEXT_NBYTES, "%s%s(%s, %s%s%s%s%s%s%s)",
                   iris_operation_name(desc->operation), desc->prepare ? "_preamble" : "", extent,
                   dtypes, separator, iris_variant_name(desc->variant), blocks,
                   desc->has_bias ? ", bias" : "", detail, op);
}

/* FNV-1a with words for bytes; what the multiplication has carried up comes down again. */
static uint64_t hash_value(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

uint32_t iris_op_desc_signature(const struct iris_op_desc *desc)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

#define IRIS_OP_HASH(type, name) hash = hash_value(hash, (uint64_t)desc->name);
    IRIS_OP_AGREED(IRIS_OP_HASH)
#undef IRIS_OP_HASH
    return (uint32_t)hash;
}

static bool scatters(const struct iris_op_desc *desc)
{
    return (desc->share_m != 0 || desc->share_n != 0) &&
           desc->operation != IRIS_OP_MATMUL_ALL_GATHER;
}

static int64_t packet_nbytes(const struct iris_op_desc *desc)
{
    const uint64_t element = iris_dtype_nbytes(desc->dtype);

    if (desc->operation == IRIS_OP_ALL_REDUCE_RMSNORM)
        return desc->M * iris_row_words(desc->N, element) * IRIS_PACKET_DATA_NBYTES(desc->dtype);
    if (desc->operation == IRIS_OP_ALL_GATHER) /* of one rank */
        return desc->M;
    if (desc->operation == IRIS_OP_REDUCE_SCATTER) /* of one share */
        return desc->N * (int64_t)element;
    return desc->M * desc->N * (int64_t)element;
}

struct iris_packet_layout iris_op_desc_packets(const struct iris_op_desc *desc, int world_size)
{
    return iris_packet_layout_make(packet_nbytes(desc), IRIS_PACKET_DATA_NBYTES(desc->dtype),
                                   world_size);
}

struct iris_gather_layout iris_op_desc_gather(const struct iris_op_desc *desc, int world_size)
{
    const bool host = desc->local.gpu_parts == 0;
    const int64_t cols = desc->share_k != 0 ? desc->share_k : desc->K;
    const int64_t scales = IRIS_SCALES_BY_BLOCKS(desc->scale_a)
                               ? iris_ceil_div(cols, IRIS_SCALE_BLOCK)
                               : (iris_op_desc_is_scaled(desc) ? 1 : 0);

    return iris_gather_layout_make(
        desc->share_m != 0 ? desc->share_m : desc->M, cols, desc->block_m, desc->unit_k,
        desc->local.group_rows, desc->m_contiguous, host && desc->share_k != 0,
        host && desc->share_k == 0, (uint32_t)iris_dtype_nbytes(desc->dtype), (int32_t)scales,
        world_size);
}

struct iris_gather_schedule iris_op_desc_gather_schedule(const struct iris_op_desc *desc,
                                                         int world_size)
{
    return iris_gather_schedule_make(desc->M, desc->N, desc->share_m, desc->block_m, desc->block_n,
                                     desc->group_size_m, world_size);
}

static enum iris_decode_exchange exchange_of(const struct iris_op_desc *desc)
{
    switch (desc->operation) {
    case IRIS_OP_MATMUL_REDUCE_SCATTER:
        return IRIS_DECODE_SCATTER;
    case IRIS_OP_MATMUL_ALL_GATHER:
        return IRIS_DECODE_GATHER;
    default:
        return desc->variant == IRIS_VARIANT_LL ? IRIS_DECODE_TO_ALL : IRIS_DECODE_BY_OWNERS;
    }
}

struct iris_decode_layout iris_op_desc_decode(const struct iris_op_desc *desc, int world_size)
{
    const enum iris_decode_exchange exchange = exchange_of(desc);
    const bool gathers = exchange == IRIS_DECODE_GATHER;

    return iris_decode_layout_make((int32_t)exchange, (int32_t)(gathers ? desc->share_m : desc->M),
                                   (int32_t)desc->N, gathers ? 0 : (int32_t)desc->share_m,
                                   (int32_t)desc->share_n, world_size, desc->k_groups);
}

/* A half's results from here on have room only where they are staged. */
enum { SMALL_RESULTS = 32 << 10 };

struct iris_op_desc iris_op_desc_collective(const struct iris_op_desc *desc, int world_size)
{
    const enum iris_dtype result = iris_op_desc_result_dtype(desc);
    const int64_t rows = desc->share_m != 0 ? desc->share_m : desc->M;
    struct iris_op_desc collective = {.dtype = result,
                                      .variant = desc->variant,
                                      .block_m = desc->block_m,
                                      .block_n = desc->block_n,
                                      .block_k = desc->block_k,
                                      .group_size_m = desc->group_size_m,
                                      .root = -1,
                                      .local = desc->local};

    switch (desc->operation) {
    case IRIS_OP_MATMUL_ALL_REDUCE:
        collective.operation = IRIS_OP_ALL_REDUCE;
        collective.M = 1;
        collective.N = desc->M * desc->N;
        break;
    case IRIS_OP_MATMUL_REDUCE_SCATTER:
        collective.operation = IRIS_OP_REDUCE_SCATTER;
        collective.M = world_size;
        collective.N = desc->M * desc->N / world_size;
        collective.share_m = 1;
        break;
    default: /* bytes of rows of the result, or of a shard of the operand, from every rank */
        collective.operation = IRIS_OP_ALL_GATHER;
        collective.dtype = IRIS_DTYPE_U8;
        collective.M = desc->operation == IRIS_OP_MATMUL_ALL_GATHER
                           ? rows * desc->N * (int64_t)iris_dtype_nbytes(result)
                           : rows * (desc->share_k != 0 ? desc->share_k : desc->K) *
                                 (int64_t)iris_dtype_nbytes(desc->dtype);
        collective.N = world_size;
        break;
    }
    return collective;
}

struct iris_op_desc iris_op_desc_product(const struct iris_op_desc *desc, int world_size)
{
    const struct iris_own_product *own = &desc->local.product;
    struct iris_op_desc product = {.operation = IRIS_OP_MATMUL_ALL_REDUCE,
                                   .variant = IRIS_VARIANT_TWO_SHOT,
                                   .form = IRIS_FORM_TILES,
                                   .dtype = desc->dtype,
                                   .b_dtype = desc->b_dtype,
                                   .c_dtype = desc->c_dtype,
                                   .scale_a = desc->scale_a,
                                   .scale_b = desc->scale_b,
                                   .M = desc->M,
                                   .N = desc->N,
                                   .K = desc->K,
                                   .block_m = own->block_m,
                                   .block_n = own->block_n,
                                   .block_k = own->block_k,
                                   .group_size_m = own->group_size_m,
                                   .root = -1,
                                   .local.gpu_parts = own->gpu_parts};

    if (desc->operation == IRIS_OP_MATMUL_ALL_GATHER)
        product.M = desc->share_m;
    if (desc->share_n != 0) /* columns of one rank after the other */
        product.N = desc->N / world_size;
    return product;
}

/* Of one launch of our own, which is all of the call, or of the form PLAIN the product or the
 * collective. */
static struct iris_op_needs needs_of_launch(const struct iris_op_desc *desc, int world_size,
                                            bool all)
{
    struct iris_op_needs needs = {0};
    uint64_t results_nbytes = 0, slots;
    struct iris_packet_layout packets;
    struct iris_schedule schedule;
    struct iris_reduce_layout layout;
    struct iris_gather_layout gather;

    if (desc->form == IRIS_FORM_DECODE) {
        needs.bare = (uint64_t)iris_op_desc_decode(desc, world_size).packets;
        return needs;
    }
    if (iris_is_by_packets(desc->variant)) {
        packets = iris_op_desc_packets(desc, world_size);
        slots = (uint64_t)(desc->variant == IRIS_VARIANT_LL ? world_size * packets.words
                                                            : packets.results + packets.words);
        if (IRIS_TRAVELS_BARE(desc->dtype))
            needs.bare = slots;
        else
            needs.packets = slots;
        return needs;
    }
    switch (desc->operation) {
    case IRIS_OP_MATMUL_ALL_REDUCE:
    case IRIS_OP_MATMUL_REDUCE_SCATTER:
    case IRIS_OP_MATMUL_ALL_GATHER:
    case IRIS_OP_ALL_REDUCE:
    case IRIS_OP_REDUCE_SCATTER:
    case IRIS_OP_REDUCE:
    case IRIS_OP_ALL_REDUCE_RMSNORM:
        schedule =
            iris_share_schedule_make(desc->M, desc->N, desc->share_m, desc->share_n, desc->block_m,
                                     desc->block_n, desc->group_size_m, world_size);
        layout = iris_reduce_layout_make(
            &schedule, scatters(desc), desc->operation == IRIS_OP_MATMUL_ALL_GATHER, desc->variant,
            (uint32_t)iris_dtype_nbytes(iris_op_desc_result_dtype(desc)), desc->local.gpu_parts);
        needs.flags_count = (uint64_t)layout.flags_count;
        needs.half_nbytes = layout.half_nbytes;
        results_nbytes = layout.results_nbytes;
        break;
    case IRIS_OP_ALL_GATHER_MATMUL:
    case IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER:
        gather = iris_op_desc_gather(desc, world_size);
        needs.flags_count = (uint64_t)gather.flags_count;
        needs.half_nbytes = gather.half_nbytes;
        if (desc->may_split_k) {
            const uint64_t tiles =
                (uint64_t)iris_op_desc_gather_schedule(desc, world_size).tiles.tiles;
            needs.flags_count += IRIS_K_SPLIT_FLAGS(tiles);
            needs.half_nbytes += IRIS_K_SPLIT_NBYTES(tiles);
        }
        break;
    case IRIS_OP_COMPARE_CLOCKS:
        needs.packets = (uint64_t)IRIS_CLOCK_PACKETS(world_size);
        break;
    default: /* copying collectives: a whole output, of M bytes from each of N ranks */
        results_nbytes = world_size > 1 ? (uint64_t)desc->M * (uint64_t)desc->N : 0;
        break;
    }
    if (all || desc->local.stages_results || results_nbytes <= SMALL_RESULTS)
        needs.half_nbytes += results_nbytes;
    return needs;
}

/* The buffers of the form PLAIN, see op_plain.c. */
static void add_plain_needs(const struct iris_op_desc *desc, int world_size,
                            struct iris_op_needs *needs)
{
    const uint64_t result =
        (uint64_t)(desc->M * desc->N) * iris_dtype_nbytes(iris_op_desc_result_dtype(desc));
    const uint64_t operand = (uint64_t)(desc->M * desc->K) * iris_dtype_nbytes(desc->dtype);
    const uint64_t ranks = (uint64_t)world_size;
    const struct iris_op_desc product = iris_op_desc_product(desc, world_size);
    const struct iris_op_needs own = needs_of_launch(&product, 1, true);

    needs->product_flags_count = own.flags_count;
    needs->product_half_nbytes = own.half_nbytes;
    switch (desc->operation) {
    case IRIS_OP_MATMUL_ALL_REDUCE:
        needs->buffers[0] = needs->buffers[1] = result;
        break;
    case IRIS_OP_MATMUL_REDUCE_SCATTER:
        needs->buffers[0] = result;
        needs->buffers[1] = result / ranks;
        break;
    case IRIS_OP_MATMUL_ALL_GATHER:
        needs->buffers[0] = result;
        break;
    default:
        needs->buffers[0] = operand;
        needs->buffers[1] = desc->share_k != 0 ? operand : 0;
        break;
    }
}

struct iris_op_needs iris_op_desc_needs(const struct iris_op_desc *desc, int world_size, bool all)
{
    struct iris_op_desc collective;
    struct iris_op_needs needs;
    bool may_stage;

    if (desc->form != IRIS_FORM_PLAIN)
        return needs_of_launch(desc, world_size, all);
    collective = iris_op_desc_collective(desc, world_size);
    may_stage = collective.operation == IRIS_OP_ALL_REDUCE;
    needs = needs_of_launch(&collective, world_size, all && may_stage);
    add_plain_needs(desc, world_size, &needs);
    return needs;
}

bool iris_operation_has_workspace(enum iris_operation operation)
{
    switch (operation) {
    case IRIS_OP_ALL_REDUCE:
    case IRIS_OP_REDUCE_SCATTER:
    case IRIS_OP_ALL_GATHER:
    case IRIS_OP_BROADCAST:
    case IRIS_OP_ALL_TO_ALL:
    case IRIS_OP_GATHER:
    case IRIS_OP_SCATTER:
    case IRIS_OP_REDUCE:
    case IRIS_OP_ALL_REDUCE_RMSNORM:
        return true;
    default:
        return IRIS_IS_PRODUCT(operation);
    }
}
