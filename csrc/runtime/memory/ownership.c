/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Whose a workspace or a piece of memory is. A handle that belongs to another context would be
 * taken for an offset in the wrong heap, so it is refused before anything is agreed on with peers,
 * by an error that says whose it is.
 */
#include "ownership.h"

#include <stdio.h>
#include <string.h>

#include "base/process.h"
#include "workspace.h"

/* Under the process's lock. */
static struct iris_context *contexts;
static uint32_t numbers;

void iris_context_enlist(struct iris_context *ctx)
{
    iris_process_lock();
    ctx->number = ++numbers;
    ctx->next_listed = contexts;
    contexts = ctx;
    iris_process_unlock();
}

void iris_context_delist(struct iris_context *ctx)
{
    iris_process_lock();
    for (struct iris_context **link = &contexts; *link != NULL; link = &(*link)->next_listed) {
        if (*link == ctx) {
            *link = ctx->next_listed;
            break;
        }
    }
    iris_process_unlock();
}

/* Under the lock. */
static struct iris_context *with_pool(int number)
{
    struct iris_context *ctx = contexts;

    while (ctx != NULL && ctx->pool != number)
        ctx = ctx->next_listed;
    return ctx;
}

enum iris_status iris_context_number_pool(struct iris_context *ctx, int most, int *out)
{
    int number;

    iris_process_lock();
    number = ctx->pool;
    if (number == 0) {
        for (number = 1; number <= most && with_pool(number) != NULL; ++number)
            ;
        if (number <= most)
            ctx->pool = number;
    }
    iris_process_unlock();
    if (number > most)
        return IRIS_FAIL(IRIS_ENOMEM, "pool: expected at most %d contexts with one in a process",
                         most);
    *out = number;
    return IRIS_OK;
}

struct iris_context *iris_context_of_pool(int number)
{
    struct iris_context *ctx;
    int references;

    iris_process_lock();
    ctx = with_pool(number);
    references = ctx != NULL ? atomic_load(&ctx->references) : 0;
    /* Not one whose last reference has gone, and which is about to be delisted. */
    while (references > 0 &&
           !atomic_compare_exchange_weak(&ctx->references, &references, references + 1))
        ;
    iris_process_unlock();
    return references > 0 ? ctx : NULL;
}

bool iris_context_describe_owner(const void *data, size_t nbytes,
                                 char text[IRIS_CONTEXT_TEXT_NBYTES])
{
    const struct iris_context *ctx;

    iris_process_lock();
    for (ctx = contexts; ctx != NULL; ctx = ctx->next_listed)
        if (iris_heap_is_reachable(ctx->heap, data, nbytes))
            break;
    if (ctx != NULL)
        iris_context_describe(ctx, text);
    iris_process_unlock();
    return ctx != NULL;
}

void iris_context_describe(const struct iris_context *ctx, char text[IRIS_CONTEXT_TEXT_NBYTES])
{
    const size_t length = strlen(ctx->run_key);
    const bool cut = length > IRIS_RUN_KEY_SHOWN;

    (void)snprintf(text, IRIS_CONTEXT_TEXT_NBYTES,
                   "context %u (rank %d of %d in run '%s%s', heap of %llu bytes%s)", ctx->number,
                   ctx->rank, ctx->world_size, cut ? "..." : "",
                   ctx->run_key + (cut ? length - IRIS_RUN_KEY_SHOWN : 0),
                   (unsigned long long)ctx->heap_size, atomic_load(&ctx->closed) ? ", closed" : "");
}

enum iris_status iris_workspace_check(const struct iris_workspace *workspace,
                                      const struct iris_context *ctx, enum iris_operation operation)
{
    const struct iris_context *owner = iris_workspace_context(workspace);
    char expected[IRIS_CONTEXT_TEXT_NBYTES], got[IRIS_CONTEXT_TEXT_NBYTES];

    IRIS_TRY(iris_context_check(ctx));
    if (owner != ctx) {
        iris_context_describe(ctx, expected);
        iris_context_describe(owner, got);
        return IRIS_FAIL(IRIS_EINVAL,
                         "workspace: expected one of the context that is called, %s, got one for "
                         "%s of %s",
                         expected, iris_operation_name(iris_workspace_operation(workspace)), got);
    }
    if (iris_workspace_operation(workspace) != operation)
        return IRIS_FAIL(IRIS_EINVAL, "workspace: expected one for %s, got one for %s",
                         iris_operation_name(operation),
                         iris_operation_name(iris_workspace_operation(workspace)));
    return IRIS_OK;
}

enum iris_status iris_fail_elsewhere(const struct iris_context *ctx, const char *name,
                                     const struct iris_tensor *tensor, size_t nbytes)
{
    char expected[IRIS_CONTEXT_TEXT_NBYTES], got[IRIS_CONTEXT_TEXT_NBYTES];

    iris_context_describe(ctx, expected);
    if (iris_heap_is_reachable(ctx->heap, tensor->data, nbytes))
        return IRIS_FAIL(IRIS_EINVAL,
                         "%s: expected a tensor in the context's symmetric heap, that of %s, got "
                         "one in its local arena, whose place is this rank's alone",
                         name, expected);
    if (!iris_context_describe_owner(tensor->data, nbytes, got))
        return IRIS_FAIL(
            IRIS_EINVAL,
            "%s: expected a tensor in the context's symmetric heap, that of %s, got one in no "
            "context's heap",
            name, expected);
    return IRIS_FAIL(
        IRIS_EINVAL,
        "%s: expected a tensor in the context's symmetric heap, that of %s, got one in "
        "that of %s",
        name, expected, got);
}
