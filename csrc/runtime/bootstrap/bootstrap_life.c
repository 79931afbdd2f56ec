/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The life of a bootstrap, from the meeting to the farewell.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "bootstrap.h"
#include "bootstrap_hub.h"
#include "bootstrap_meet.h"
#include "bootstrap_monitor.h"
#include "bootstrap_state.h"

static enum iris_status check_options(const struct iris_bootstrap_options *options)
{
    if (options->run_key == NULL)
        return IRIS_FAIL(IRIS_EINVAL, "run_key: expected a string, got NULL");
    if (options->world_size < 1 || options->world_size > IRIS_MAX_RANKS)
        return IRIS_FAIL(IRIS_EINVAL, "world_size: expected 1 to %d, got %d", IRIS_MAX_RANKS,
                         options->world_size);
    if (options->rank < 0 || options->rank >= options->world_size)
        return IRIS_FAIL(IRIS_EINVAL, "rank: expected 0 to %d, got %d", options->world_size - 1,
                         options->rank);
    return IRIS_OK;
}

enum iris_status iris_bootstrap_create(const struct iris_bootstrap_options *options,
                                       struct iris_bootstrap **out)
{
    struct iris_bootstrap *b;
    pthread_condattr_t monotonic;
    enum iris_status status;

    IRIS_TRY(check_options(options));
    IRIS_TRY(iris_alloc_zeroed(sizeof *b, (void **)&b));
    b->rank = options->rank;
    b->world_size = options->world_size;
    b->timeout_ns = options->timeout_ns;
    b->on_departure = options->on_departure;
    b->on_departure_arg = options->on_departure_arg;
    b->wake = -1;
    b->open_sequence = 1;
    b->first_gone = -1;
    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank) {
        b->sockets[rank] = -1;
        b->parts[rank].fd = -1;
        b->outcome.fds[rank] = -1;
    }
    pthread_mutex_init(&b->call_lock, NULL);
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&b->finished, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (b->world_size > 1) {
        IRIS_TRY_GOTO(status, iris_bootstrap_meet(options, b->receive_buffer, b->sockets), fail);
        IRIS_TRY_GOTO(status, iris_bootstrap_start_monitor(b), fail);
    }
    *out = b;
    return IRIS_OK;
fail:
    iris_bootstrap_destroy(b);
    return status;
}

void iris_bootstrap_destroy(struct iris_bootstrap *b)
{
    iris_bootstrap_depart(b, IRIS_PEER_LEFT);
}

void iris_bootstrap_depart(struct iris_bootstrap *b, enum iris_departure reason)
{
    const struct iris_wire_header farewell = {.type = IRIS_WIRE_FAREWELL, .status = reason};

    if (b == NULL)
        return;
    iris_bootstrap_stop_monitor(b);
    for (int peer = 0; peer < b->world_size; ++peer)
        if (b->sockets[peer] >= 0)
            (void)iris_wire_send(b->sockets[peer], &farewell, NULL, NULL, 0);
    iris_wire_close_fds(b->sockets, IRIS_MAX_RANKS);
    iris_wire_close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    iris_bootstrap_hub_close_parts(b);
    iris_wire_close_fds(&b->wake, 1);
    pthread_cond_destroy(&b->finished);
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->call_lock);
    free(b);
}

void iris_bootstrap_interrupt(struct iris_bootstrap *b)
{
    const struct iris_wire_header farewell = {.type = IRIS_WIRE_FAREWELL,
                                              .status = IRIS_PEER_INTERRUPTED};

    if (b == NULL)
        return;
    pthread_mutex_lock(&b->lock);
    /* Under the lock the monitor closes no socket. */
    for (int peer = 0; peer < b->world_size && !b->interrupted; ++peer)
        if (b->sockets[peer] >= 0)
            (void)iris_wire_send(b->sockets[peer], &farewell, NULL, NULL, 0);
    b->interrupted = true;
    pthread_cond_broadcast(&b->finished);
    pthread_mutex_unlock(&b->lock);
}
