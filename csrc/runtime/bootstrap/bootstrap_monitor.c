/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The monitor thread: reads the connections, tells the context who is gone, and on the hub keeps
 * the time of the open collective.
 */
#include "bootstrap_monitor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "bootstrap_hub.h"

/* The monitor and the departure callback need little; the C library takes the thread-local
 * memory of all libraries in the process from it, too. */
enum { MONITOR_STACK_NBYTES = 512 * 1024 };

/* Tells the owner of the bootstrap what happened, without any lock. The first to go comes first:
 * what the owner hears first is what it tells its caller. */
static void report_departures(struct iris_bootstrap *b)
{
    enum iris_departure departure[IRIS_MAX_RANKS];
    uint32_t unreported;
    int first;

    pthread_mutex_lock(&b->lock);
    unreported = b->unreported;
    b->unreported = 0;
    first = b->first_gone;
    memcpy(departure, b->departure, sizeof departure);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < b->world_size && b->on_departure != NULL; ++i) {
        const int rank = first < 0 ? i : (first + i) % b->world_size;
        if ((unreported >> rank & 1u) != 0)
            b->on_departure(b->on_departure_arg, rank, departure[rank]);
    }
}

/* ---- members; under lock ---- */

static void member_received(struct iris_bootstrap *b, struct iris_wire_message *message)
{
    const struct iris_wire_header *header = &message->header;
    int fds[IRIS_MAX_RANKS], next = 0;

    if (header->type == IRIS_WIRE_RESULT) {
        for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank) {
            fds[rank] = -1;
            if (rank < b->world_size && rank != b->rank && next < message->num_fds)
                fds[rank] = message->fds[next++];
        }
        iris_bootstrap_finish(b, header, b->receive_buffer, fds);
        return;
    }
    iris_wire_close_fds(message->fds, message->num_fds);
    if (header->type == IRIS_WIRE_DEPARTED)
        iris_bootstrap_note_departure(b, header->rank, (enum iris_departure)header->status);
    else if (header->type == IRIS_WIRE_FAREWELL)
        iris_bootstrap_note_departure(b, 0, (enum iris_departure)header->status);
    pthread_cond_broadcast(&b->finished);
}

static void member_lost_hub(struct iris_bootstrap *b)
{
    iris_bootstrap_note_departure(b, 0, IRIS_PEER_DIED);
    iris_wire_close_fds(&b->sockets[0], 1);
    pthread_cond_broadcast(&b->finished);
}

/* ---- the monitor thread ---- */

static void read_socket(struct iris_bootstrap *b, int peer)
{
    struct iris_wire_message message;
    /* Without the lock: only this thread reads or closes sockets while it runs. */
    const enum iris_wire_result result =
        iris_wire_receive(b->sockets[peer], &message, b->receive_buffer);

    pthread_mutex_lock(&b->lock);
    if (result == IRIS_WIRE_OK && b->rank == 0)
        iris_bootstrap_hub_received(b, peer, &message);
    else if (result == IRIS_WIRE_OK)
        member_received(b, &message);
    else if (result == IRIS_WIRE_END && b->rank == 0)
        iris_bootstrap_hub_lost(b, peer);
    else if (result == IRIS_WIRE_END)
        member_lost_hub(b);
    pthread_mutex_unlock(&b->lock);
}

/* How long the monitor may sleep: until the open collective is late. */
static int monitor_patience(struct iris_bootstrap *b)
{
    const uint64_t now = iris_clock_ns();
    uint64_t late;

    if (b->opened_ns == 0)
        return -1;
    late = b->opened_ns + b->timeout_ns;
    if (late <= now)
        return 0;
    return (late - now) / 1000000 >= 1000000 ? 1000000 : (int)((late - now) / 1000000 + 1);
}

static void *monitor_main(void *arg)
{
    struct iris_bootstrap *b = arg;
    struct pollfd polled[IRIS_MAX_RANKS + 1];
    int peers[IRIS_MAX_RANKS + 1];

    for (;;) {
        int count = 1, patience;
        bool stopping;

        polled[0] = (struct pollfd){.fd = b->wake, .events = POLLIN};
        for (int peer = 0; peer < b->world_size; ++peer) {
            if (b->sockets[peer] < 0)
                continue;
            peers[count] = peer;
            polled[count++] = (struct pollfd){.fd = b->sockets[peer], .events = POLLIN};
        }
        pthread_mutex_lock(&b->lock);
        iris_bootstrap_hub_check_timeout(b);
        patience = monitor_patience(b);
        stopping = b->stopping;
        pthread_mutex_unlock(&b->lock);
        report_departures(b);
        if (stopping)
            return NULL;
        if (poll(polled, (nfds_t)count, patience) <= 0)
            continue;
        if (polled[0].revents != 0) {
            uint64_t ignored;
            ssize_t got = read(b->wake, &ignored, sizeof ignored);
            (void)got;
        }
        for (int i = 1; i < count; ++i)
            if (polled[i].revents != 0)
                read_socket(b, peers[i]);
    }
}

static enum iris_status open_wake(int *out)
{
    enum iris_status status;

    iris_process_lock();
    *out = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    status = *out >= 0 ? iris_process_register(*out)
                       : IRIS_FAIL(IRIS_EDRIVER, "eventfd: %s", strerror(errno));
    iris_process_unlock();
    return status;
}

enum iris_status iris_bootstrap_start_monitor(struct iris_bootstrap *b)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int error;

    IRIS_TRY(open_wake(&b->wake));
    pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, MONITOR_STACK_NBYTES);
    sigfillset(&all); /* signals are the business of the caller's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&b->monitor, &attributes, monitor_main, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        return IRIS_FAIL(IRIS_EDRIVER, "monitor thread: %s", strerror(error));
    b->monitor_runs = true;
    return IRIS_OK;
}

void iris_bootstrap_stop_monitor(struct iris_bootstrap *b)
{
    if (!b->monitor_runs)
        return;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_mutex_unlock(&b->lock);
    iris_bootstrap_wake(b);
    pthread_join(b->monitor, NULL);
}
