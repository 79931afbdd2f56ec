/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The life of a bootstrap after the meeting, and its collectives.
 *
 * `lock` guards the fields that stand below it in the state; `call_lock` is held by a rank's caller
 * through a collective. The departure callback runs on the monitor thread without either.
 */
#include "bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "base/wait.h"
#include "bootstrap_meet.h"
#include "bootstrap_state.h"

/* The monitor and the departure callback need little; the C library takes the thread-local
 * memory of all libraries in the process from it, too. */
enum { MONITOR_STACK_NBYTES = 512 * 1024 };

void iris_bootstrap_close_fds(int *fds, int count)
{
    for (int i = 0; i < count; ++i)
        iris_process_close(&fds[i]);
}

static void wake_monitor(struct iris_bootstrap *b)
{
    const uint64_t one = 1;
    ssize_t ignored = write(b->wake, &one, sizeof one);

    (void)ignored;
}

/* ---- departures; under lock ---- */

void iris_bootstrap_note_departure(struct iris_bootstrap *b, int rank,
                                   enum iris_departure departure)
{
    if (rank < 0 || rank >= b->world_size || (b->gone >> rank & 1u) != 0)
        return;
    if (b->gone == 0)
        b->first_gone = rank;
    b->gone |= 1u << rank;
    b->unreported |= 1u << rank;
    b->departure[rank] = departure;
}

const char *iris_bootstrap_departure_text(enum iris_departure departure)
{
    static const char *const texts[] = {[IRIS_PEER_DIED] = "died",
                                        [IRIS_PEER_LEFT] = "closed its context",
                                        [IRIS_PEER_INTERRUPTED] = "was interrupted",
                                        [IRIS_PEER_WENT_ON] = "called survivors()"};

    return texts[departure];
}

/* Tells the owner of the bootstrap what happened, without any lock. */
static void report_departures(struct iris_bootstrap *b)
{
    enum iris_departure departure[IRIS_MAX_RANKS];
    uint32_t unreported;

    pthread_mutex_lock(&b->lock);
    unreported = b->unreported;
    b->unreported = 0;
    memcpy(departure, b->departure, sizeof departure);
    pthread_mutex_unlock(&b->lock);
    for (int rank = 0; rank < b->world_size && b->on_departure != NULL; ++rank)
        if ((unreported >> rank & 1u) != 0)
            b->on_departure(b->on_departure_arg, rank, departure[rank]);
}

/* ---- outcomes; under lock ---- */

/* Hands the outcome to this rank's caller. Takes over the descriptors. */
void iris_bootstrap_finish(struct iris_bootstrap *b, const struct iris_wire_header *header,
                           const void *payload, const int *fds)
{
    struct iris_bootstrap_outcome *outcome = &b->outcome;

    /* Left from a collective that nobody waited for to the end. */
    iris_bootstrap_close_fds(outcome->fds, IRIS_MAX_RANKS);
    outcome->sequence = header->sequence;
    outcome->status = (enum iris_status)header->status;
    outcome->rank = header->rank;
    outcome->nbytes = header->nbytes;
    memcpy(outcome->payload, payload, header->nbytes);
    outcome->payload[header->nbytes] = '\0';
    if (fds != NULL)
        memcpy(outcome->fds, fds, sizeof outcome->fds);
    pthread_cond_broadcast(&b->finished);
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
    iris_bootstrap_close_fds(message->fds, message->num_fds);
    if (header->type == IRIS_WIRE_DEPARTED)
        iris_bootstrap_note_departure(b, header->rank, (enum iris_departure)header->status);
    else if (header->type == IRIS_WIRE_FAREWELL)
        iris_bootstrap_note_departure(b, 0, (enum iris_departure)header->status);
    pthread_cond_broadcast(&b->finished);
}

static void member_lost_hub(struct iris_bootstrap *b)
{
    iris_bootstrap_note_departure(b, 0, IRIS_PEER_DIED);
    iris_bootstrap_close_fds(&b->sockets[0], 1);
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

static enum iris_status start_monitor(struct iris_bootstrap *b)
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

/* ---- life ---- */

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
        IRIS_TRY_GOTO(status, start_monitor(b), fail);
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
    if (b->monitor_runs) {
        pthread_mutex_lock(&b->lock);
        b->stopping = true;
        pthread_mutex_unlock(&b->lock);
        wake_monitor(b);
        pthread_join(b->monitor, NULL);
    }
    for (int peer = 0; peer < b->world_size; ++peer)
        if (b->sockets[peer] >= 0)
            (void)iris_wire_send(b->sockets[peer], &farewell, NULL, NULL, 0);
    iris_bootstrap_close_fds(b->sockets, IRIS_MAX_RANKS);
    iris_bootstrap_close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    iris_bootstrap_hub_close_parts(b);
    iris_bootstrap_close_fds(&b->wake, 1);
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

/* ---- collectives ---- */

static struct timespec deadline_after(uint64_t ns)
{
    const uint64_t at = iris_clock_ns() + ns;

    return (struct timespec){(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
}

static enum iris_status interrupted(const char *name)
{
    return IRIS_FAIL(IRIS_EINTERRUPTED, "%s: this rank was interrupted", name);
}

/* Waits a slice of time for the outcome; then asks the caller, without the lock. */
static void wait_slice(struct iris_bootstrap *b)
{
    const struct timespec slice = deadline_after(IRIS_WAIT_SLICE_MS * UINT64_C(1000000));

    if (pthread_cond_timedwait(&b->finished, &b->lock, &slice) != ETIMEDOUT)
        return;
    pthread_mutex_unlock(&b->lock);
    if (iris_wait_is_interrupted())
        iris_bootstrap_interrupt(b);
    pthread_mutex_lock(&b->lock);
}

/* Waits for the outcome of the collective `sequence`. Under lock. */
static enum iris_status wait_outcome(struct iris_bootstrap *b, uint64_t sequence, const char *name)
{
    /* The hub's monitor judges who is late; a member's own limit is for a silent hub. */
    const uint64_t limit = iris_clock_ns() + b->timeout_ns + 1000000000u;

    while (b->outcome.sequence != sequence) {
        if (b->interrupted)
            return interrupted(name);
        if (b->rank != 0 && (b->gone & 1u) != 0) {
            /* Without the hub nothing works, but perhaps it left because of another rank. */
            IRIS_FAIL(IRIS_EPEER, "rank %d %s", b->first_gone,
                      iris_bootstrap_departure_text(b->departure[b->first_gone]));
            iris_error_last()->rank = b->first_gone;
            return IRIS_EPEER;
        }
        if (b->rank == 0 || iris_clock_ns() < limit) {
            wait_slice(b);
        } else {
            (void)snprintf(b->broken, sizeof b->broken,
                           "rank(s) 0 did not answer in '%s' within %g s", name,
                           (double)b->timeout_ns * 1e-9);
            b->broken_rank = 0;
            break;
        }
    }
    if (b->broken[0] != '\0' && b->outcome.sequence != sequence) {
        IRIS_FAIL(IRIS_EPEER, "%s", b->broken);
        iris_error_last()->rank = b->broken_rank;
        return IRIS_EPEER;
    }
    if (b->outcome.status != IRIS_OK) {
        if (b->outcome.status == IRIS_EPEER && b->rank != 0 && b->outcome.rank >= 0 &&
            (b->gone >> b->outcome.rank & 1u) == 0) {
            /* A timeout, not a departure: nothing works any more here either. */
            (void)snprintf(b->broken, sizeof b->broken, "%.255s", b->outcome.payload);
            b->broken_rank = b->outcome.rank;
        }
        IRIS_FAIL(b->outcome.status, "%s", b->outcome.payload);
        iris_error_last()->rank = b->outcome.rank;
        return b->outcome.status;
    }
    return IRIS_OK;
}

/* Sends this rank's part and waits. On success the outcome lies in b->outcome. Under lock. */
static enum iris_status run_collective(struct iris_bootstrap *b, const char *name, const void *in,
                                       size_t nbytes, const int *fd)
{
    struct iris_wire_header header = {.type = IRIS_WIRE_CONTRIBUTE,
                                      .rank = b->rank,
                                      .nbytes = (uint32_t)nbytes,
                                      .num_fds = fd != NULL};

    if (b->interrupted)
        return interrupted(name);
    if (b->broken[0] != '\0') {
        IRIS_FAIL(IRIS_EPEER, "%s", b->broken);
        iris_error_last()->rank = b->broken_rank;
        return IRIS_EPEER;
    }
    header.sequence = ++b->sequence;
    (void)snprintf(header.name, sizeof header.name, "%s", name);
    if (b->rank == 0) {
        iris_bootstrap_hub_contribute(b, 0, &header, in,
                                      fd != NULL ? fcntl(*fd, F_DUPFD_CLOEXEC, 0) : -1);
        if (b->opened_ns != 0)
            wake_monitor(b); /* it keeps the time of the open collective */
    } else if (b->sockets[0] >= 0) {
        (void)iris_wire_send(b->sockets[0], &header, in, fd, (int)header.num_fds);
    }
    return wait_outcome(b, header.sequence, header.name);
}

static enum iris_status check_nbytes(size_t nbytes)
{
    if (nbytes <= IRIS_BOOTSTRAP_MAX_BYTES)
        return IRIS_OK;
    return IRIS_FAIL(IRIS_EINVAL, "collective: expected at most %d bytes a rank, got %zu",
                     IRIS_BOOTSTRAP_MAX_BYTES, nbytes);
}

enum iris_status iris_bootstrap_all_gather(struct iris_bootstrap *b, const char *name,
                                           const void *in, size_t nbytes, void *out)
{
    enum iris_status status;

    IRIS_TRY(check_nbytes(nbytes));
    if (b->world_size == 1) {
        if (nbytes > 0)
            memcpy(out, in, nbytes);
        return IRIS_OK;
    }
    pthread_mutex_lock(&b->call_lock);
    pthread_mutex_lock(&b->lock);
    status = run_collective(b, name, in, nbytes, NULL);
    if (status == IRIS_OK && nbytes > 0)
        memcpy(out, b->outcome.payload, nbytes * (size_t)b->world_size);
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_unlock(&b->call_lock);
    return status;
}

enum iris_status iris_bootstrap_barrier(struct iris_bootstrap *b, const char *name)
{
    return iris_bootstrap_all_gather(b, name, NULL, 0, NULL);
}

enum iris_status iris_bootstrap_agree(struct iris_bootstrap *b, const char *name, const void *bytes,
                                      size_t nbytes, int64_t value, bool *equal, int64_t *maximum)
{
    char own[IRIS_BOOTSTRAP_MAX_BYTES], *all;
    enum iris_status status;
    bool same = true;

    if (nbytes > sizeof own - sizeof value)
        return check_nbytes(nbytes + sizeof value);
    IRIS_TRY(iris_alloc_zeroed((nbytes + sizeof value) * (size_t)b->world_size, (void **)&all));
    memcpy(own, &value, sizeof value);
    if (nbytes > 0)
        memcpy(own + sizeof value, bytes, nbytes);
    status = iris_bootstrap_all_gather(b, name, own, nbytes + sizeof value, all);
    for (int rank = 0; rank < b->world_size && status == IRIS_OK; ++rank) {
        const char *theirs = all + (size_t)rank * (nbytes + sizeof value);
        int64_t their_value;
        memcpy(&their_value, theirs, sizeof their_value);
        value = their_value > value ? their_value : value;
        same = same && memcmp(theirs + sizeof value, all + sizeof value, nbytes) == 0;
    }
    free(all);
    if (status != IRIS_OK)
        return status;
    if (equal != NULL)
        *equal = same;
    if (maximum != NULL)
        *maximum = value;
    return IRIS_OK;
}

enum iris_status iris_bootstrap_exchange_fds(struct iris_bootstrap *b, const char *name, int fd,
                                             int *fds)
{
    enum iris_status status;

    if (b->world_size == 1) {
        fds[0] = -1;
        return IRIS_OK;
    }
    pthread_mutex_lock(&b->call_lock);
    pthread_mutex_lock(&b->lock);
    status = run_collective(b, name, NULL, 0, &fd);
    for (int rank = 0; rank < b->world_size && status == IRIS_OK; ++rank)
        if (rank != b->rank && b->outcome.fds[rank] < 0)
            status = IRIS_FAIL(IRIS_EDRIVER, IRIS_BOOTSTRAP_MISSING_FD, name, rank);
    if (status == IRIS_OK) {
        memcpy(fds, b->outcome.fds, sizeof *fds * (size_t)b->world_size);
        for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
            b->outcome.fds[rank] = -1;
    }
    if (status != IRIS_OK)
        iris_bootstrap_close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_unlock(&b->call_lock);
    return status;
}

int iris_bootstrap_departed_rank(struct iris_bootstrap *b, enum iris_departure *departure)
{
    int first;

    pthread_mutex_lock(&b->lock);
    first = b->first_gone;
    if (first >= 0)
        *departure = b->departure[first];
    pthread_mutex_unlock(&b->lock);
    return first;
}
