/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * send, recv, several of them at once, and all_to_all with a size for each pair of ranks: argument
 * checks, messages.
 */
#include "op_messages.h"

#include <time.h>

#include "base/wait.h"
#include "kernels/abi/schedule.h"
#include "op_check.h"
#include "op_direct.h"

static enum iris_status check_message(const struct iris_context *ctx, const char *name,
                                      const struct iris_tensor *tensor)
{
    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(iris_check_device(ctx, name, tensor));
    return iris_check_contiguous(name, tensor);
}

static enum iris_status check_other(const struct iris_context *ctx, const char *name, int rank)
{
    if (rank >= 0 && rank < ctx->world_size && rank != ctx->rank)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "%s: expected another rank, 0 to %d but not %d, got %d", name,
                     ctx->world_size - 1, ctx->rank, rank);
}

static uint64_t nbytes_of(const struct iris_tensor *tensor)
{
    return (uint64_t)iris_tensor_numel(tensor) * iris_dtype_nbytes(tensor->dtype);
}

static void add_message(struct iris_messages *messages, int peer, uint64_t address, uint64_t nbytes)
{
    messages->address[peer] = address;
    messages->nbytes[peer] = nbytes;
    messages->peers |= UINT32_C(1) << peer;
}

/* How many lanes find_task in messages.hip deals out for these messages. */
static uint32_t count_tasks(const struct iris_context *ctx, const struct iris_messages *messages)
{
    uint32_t tasks = 0;

    for (int peer = 0; peer < ctx->world_size; ++peer) {
        if (peer != ctx->rank && (messages->peers >> peer & 1u) != 0)
            tasks += (uint32_t)iris_message_lanes(messages->nbytes[peer], ctx->channel_lanes);
    }
    return tasks;
}

/* Whether `peer` has taken all that was sent to it; true also when there is no telling. */
static bool is_drained(const struct iris_context *ctx, int peer)
{
    const char *lanes = iris_heap_base(ctx->heap, ctx->rank) + ctx->channels_offset;

    for (int32_t lane = 0; lane < ctx->channel_lanes; ++lane) {
        const size_t index = (size_t)peer * (size_t)ctx->channel_lanes + (size_t)lane;
        struct iris_channel_lane now;
        if (ctx->ops->memory_read(ctx->device, &now, lanes + index * sizeof now, sizeof now) !=
            IRIS_OK)
            return true;
        if ((uint32_t)now.sent != now.drained.value)
            return false;
    }
    return true;
}

void iris_messages_drain(struct iris_context *ctx)
{
    const struct timespec nap = {0, 200000};
    const uint64_t started = iris_clock_ns();
    const uint32_t sent_to = atomic_load(&ctx->sent_to);
    uint64_t asked = 0;

    for (int peer = 0; peer < ctx->world_size; ++peer) {
        while ((sent_to >> peer & 1u) != 0 && !is_drained(ctx, peer)) {
            const uint64_t now = iris_clock_ns();
            if (iris_control_aborted(ctx->control, ctx->rank) != 0 ||
                now - started > ctx->timeout_ns || iris_wait_is_over(now, &asked))
                return;
            (void)nanosleep(&nap, NULL);
        }
    }
}

static enum iris_status run_messages(struct iris_context *ctx, enum iris_operation operation,
                                     struct iris_message_args *args, void *stream)
{
    struct iris_direct_launch launch = {
        .operation = operation,
        .kernel = IRIS_OP_SEND,
        .dtype = IRIS_DTYPE_U8,
        .call = &args->call,
        .args = args,
        .args_nbytes = sizeof *args,
        .sends = args->send.peers != 0,
        .receives = args->receive.peers != 0,
        .counts = true,
        .stream = stream,
    };
    uint32_t units;

    IRIS_TRY(iris_context_check(ctx));
    args->channels_offset = ctx->channels_offset;
    args->lanes = ctx->channel_lanes;
    launch.work_groups = count_tasks(ctx, &args->send) + count_tasks(ctx, &args->receive);
    if ((args->send.peers >> ctx->rank & 1u) != 0)
        launch.work_groups += (uint32_t)ctx->channel_lanes;
    /* On the host a work-group takes several tasks. */
    units = (uint32_t)ctx->ops->compute_units(ctx->device);
    if (!iris_device_traits(ctx->device)->is_gpu && launch.work_groups > units)
        launch.work_groups = units;
    /* Before the call enters, beside other threads' calls. */
    (void)atomic_fetch_or(&ctx->sent_to, args->send.peers & ~(UINT32_C(1) << ctx->rank));
    return iris_direct_run(ctx, &launch);
}

enum iris_status iris_send(struct iris_context *ctx, const struct iris_tensor *tensor, int dst,
                           void *stream)
{
    struct iris_message_args args = {0};

    IRIS_TRY(check_message(ctx, "tensor", tensor));
    IRIS_TRY(check_other(ctx, "dst", dst));
    add_message(&args.send, dst, (uint64_t)(uintptr_t)tensor->data, nbytes_of(tensor));
    return run_messages(ctx, IRIS_OP_SEND, &args, stream);
}

enum iris_status iris_recv(struct iris_context *ctx, const struct iris_tensor *tensor, int src,
                           void *stream)
{
    struct iris_message_args args = {0};

    IRIS_TRY(check_message(ctx, "tensor", tensor));
    IRIS_TRY(iris_check_output("tensor", tensor));
    IRIS_TRY(check_other(ctx, "src", src));
    add_message(&args.receive, src, (uint64_t)(uintptr_t)tensor->data, nbytes_of(tensor));
    return run_messages(ctx, IRIS_OP_RECV, &args, stream);
}

/* ---- several at once ---- */

static enum iris_status check_messages(const struct iris_context *ctx,
                                       const struct iris_message *messages, int count)
{
    for (int i = 0; i < count; ++i) {
        const struct iris_message *m = &messages[i];

        IRIS_TRY(check_message(ctx, m->name, m->tensor));
        if (m->peer < 0 || m->peer >= ctx->world_size)
            return IRIS_FAIL(IRIS_EINVAL, "%s: expected a rank, 0 to %d, got %d",
                             m->receives ? "src" : "dst", ctx->world_size - 1, m->peer);
        if (!m->receives)
            continue;
        IRIS_TRY(iris_check_output(m->name, m->tensor));
        for (int k = 0; k < count; ++k)
            if (k != i)
                IRIS_TRY(
                    iris_check_disjoint(m->name, m->tensor, messages[k].name, messages[k].tensor));
    }
    return IRIS_OK;
}

/* The k-th message to this rank itself is its k-th receipt from itself. */
static enum iris_status check_own(const struct iris_context *ctx,
                                  const struct iris_message *messages, int count)
{
    int sent = -1, received = -1;

    for (;;) {
        do
            ++sent;
        while (sent < count && (messages[sent].peer != ctx->rank || messages[sent].receives));
        do
            ++received;
        while (received < count &&
               (messages[received].peer != ctx->rank || !messages[received].receives));
        if (sent >= count && received >= count)
            return IRIS_OK;
        if (sent >= count || received >= count)
            return IRIS_FAIL(IRIS_EINVAL,
                             "%s: expected a message of rank %d to itself to be sent and received "
                             "in one call, but it is only %s",
                             messages[sent < count ? sent : received].name, ctx->rank,
                             sent < count ? "sent" : "received");
        if (nbytes_of(messages[sent].tensor) != nbytes_of(messages[received].tensor))
            return IRIS_FAIL(
                IRIS_EINVAL, "%s: expected %llu bytes, as are sent in %s, got %llu",
                messages[received].name, (unsigned long long)nbytes_of(messages[sent].tensor),
                messages[sent].name, (unsigned long long)nbytes_of(messages[received].tensor));
    }
}

enum iris_status iris_messages(struct iris_context *ctx, enum iris_operation operation,
                               const struct iris_message *messages, int count, void *stream)
{
    bool started[IRIS_MAX_MESSAGES] = {false};

    if (count > IRIS_MAX_MESSAGES)
        return IRIS_FAIL(IRIS_EINVAL, "messages: expected at most %d, got %d", IRIS_MAX_MESSAGES,
                         count);
    IRIS_TRY(iris_context_check(ctx));
    IRIS_TRY(check_messages(ctx, messages, count));
    IRIS_TRY(check_own(ctx, messages, count));
    /* A launch has one message for each peer and direction. */
    for (int left = count; left > 0;) {
        struct iris_message_args args = {0};

        for (int i = 0; i < count; ++i) {
            const struct iris_message *m = &messages[i];
            struct iris_messages *list = m->receives ? &args.receive : &args.send;

            if (started[i] || (list->peers >> m->peer & 1u) != 0)
                continue;
            add_message(list, m->peer, (uint64_t)(uintptr_t)m->tensor->data, nbytes_of(m->tensor));
            started[i] = true;
            --left;
        }
        IRIS_TRY(run_messages(ctx, operation, &args, stream));
    }
    return IRIS_OK;
}

/* ---- all_to_all with sizes ---- */

/* One message for each rank, of so many rows (elements of dimension 0) of `tensor`. */
static enum iris_status split(const struct iris_context *ctx, const char *tensor_name,
                              const struct iris_tensor *tensor, const char *sizes_name,
                              const int64_t *sizes, struct iris_messages *out)
{
    const int64_t rows = tensor->ndim > 0 ? tensor->shape[0] : 1;
    const uint64_t row_nbytes = rows > 0 ? nbytes_of(tensor) / (uint64_t)rows : 0;
    uint64_t address = (uint64_t)(uintptr_t)tensor->data;
    int64_t sum = 0;

    for (int rank = 0; rank < ctx->world_size; ++rank) {
        if (sizes[rank] < 0 || sizes[rank] > rows - sum)
            return IRIS_FAIL(IRIS_EINVAL,
                             "%s: expected sizes >= 0 that add up to %lld, the first dimension of "
                             "%s, got %lld for rank %d after %lld",
                             sizes_name, (long long)rows, tensor_name, (long long)sizes[rank], rank,
                             (long long)sum);
        add_message(out, rank, address, (uint64_t)sizes[rank] * row_nbytes);
        address += (uint64_t)sizes[rank] * row_nbytes;
        sum += sizes[rank];
    }
    if (sum != rows)
        return IRIS_FAIL(IRIS_EINVAL,
                         "%s: expected sizes that add up to %lld, the first dimension of %s, got a "
                         "sum of %lld",
                         sizes_name, (long long)rows, tensor_name, (long long)sum);
    return IRIS_OK;
}

enum iris_status iris_messages_all_to_all(struct iris_context *ctx,
                                          const struct iris_tensor *output,
                                          const struct iris_tensor *input,
                                          const struct iris_op_options *options)
{
    struct iris_message_args args = {0};

    IRIS_TRY(iris_check_pair(ctx, "output", output, "input", input));
    IRIS_TRY(iris_check_disjoint("output", output, "input", input));
    IRIS_TRY(
        split(ctx, "output", output, "output_split_sizes", options->output_sizes, &args.receive));
    IRIS_TRY(split(ctx, "input", input, "input_split_sizes", options->input_sizes, &args.send));
    if (args.receive.nbytes[ctx->rank] != args.send.nbytes[ctx->rank])
        return IRIS_FAIL(IRIS_EINVAL,
                         "output_split_sizes: expected %llu bytes from this rank to itself as in "
                         "input_split_sizes, got %llu",
                         (unsigned long long)args.send.nbytes[ctx->rank],
                         (unsigned long long)args.receive.nbytes[ctx->rank]);
    return run_messages(ctx, IRIS_OP_ALL_TO_ALL_V, &args, options->stream);
}
