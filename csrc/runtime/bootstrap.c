/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The life of a bootstrap after the meeting, and its collectives.
 *
 * A collective: every rank sends its part to the hub; when the hub has all of them it compares
 * names and sizes and sends everybody the result, which the rank's monitor thread puts where the
 * caller waits for it. The hub's own part goes through the same code without a socket. At most one
 * collective is open at a time, because a rank contributes to the next one only after it has the
 * result of the last.
 *
 * `lock` guards all fields below it; `call_lock` is held by a rank's caller through a collective.
 * The departure callback runs on the monitor thread without either.
 */
#include "bootstrap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "bootstrap_meet.h"
#include "bootstrap_wire.h"

/* A rank's part of the open collective; on the hub. */
struct part {
    bool present;
    uint32_t nbytes;
    int fd; /* owned; -1: none */
    char name[IRIS_WIRE_NAME_NBYTES];
    char bytes[IRIS_BOOTSTRAP_MAX_BYTES];
};

/* How the last collective ended, for the caller. */
struct outcome {
    uint64_t sequence;
    enum iris_status status;
    int rank; /* at fault, or -1 */
    uint32_t nbytes;
    int fds[IRIS_MAX_RANKS]; /* by rank; owned; -1: none */
    char payload[IRIS_WIRE_MAX_PAYLOAD + 1];
};

struct iris_bootstrap {
    int rank, world_size;
    uint64_t timeout_ns;
    void (*on_departure)(void *arg, int rank, enum iris_departure departure);
    void *on_departure_arg;
    pthread_t monitor;
    bool monitor_runs;
    int wake; /* eventfd: the monitor has something new to look at, or shall stop */
    int sockets[IRIS_MAX_RANKS];
    pthread_mutex_t call_lock;

    pthread_mutex_t lock;
    pthread_cond_t finished; /* outcome.sequence has moved on */
    bool stopping;
    uint64_t sequence; /* of the caller's last collective */
    uint32_t gone;     /* bit per rank */
    enum iris_departure departure[IRIS_MAX_RANKS];
    uint32_t unreported; /* departures the callback has not been told */
    char broken[256];    /* not empty: a collective timed out; nothing works any more */
    int broken_rank;
    struct outcome outcome;
    /* Hub only: */
    uint64_t open_sequence;
    uint64_t opened_ns; /* when the first part came; 0: none yet */
    struct part parts[IRIS_MAX_RANKS];
    /* The monitor's own: */
    char receive_buffer[IRIS_WIRE_MAX_PAYLOAD + 1];
};

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void wake_monitor(struct iris_bootstrap *b)
{
    const uint64_t one = 1;
    ssize_t ignored = write(b->wake, &one, sizeof one);

    (void)ignored;
}

static void close_fds(int *fds, int count)
{
    for (int i = 0; i < count; ++i) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

/* ---- departures; under lock ---- */

static void note_departure(struct iris_bootstrap *b, int rank, enum iris_departure departure)
{
    if (rank < 0 || rank >= b->world_size || (b->gone >> rank & 1u) != 0)
        return;
    b->gone |= 1u << rank;
    b->unreported |= 1u << rank;
    b->departure[rank] = departure;
}

static const char *departure_text(enum iris_departure departure)
{
    return departure == IRIS_PEER_DIED ? "died" : "closed its context";
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
static void finish(struct iris_bootstrap *b, const struct iris_wire_header *header,
                   const void *payload, const int *fds)
{
    struct outcome *outcome = &b->outcome;

    close_fds(outcome->fds, IRIS_MAX_RANKS); /* of a collective nobody waited for to the end */
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

/* ---- the hub; under lock ---- */

/* The hub's connection to a peer, or -1 when it is gone. */
static void send_to(struct iris_bootstrap *b, int peer, const struct iris_wire_header *header,
                    const void *payload, const int *fds, int num_fds)
{
    if ((b->gone >> peer & 1u) != 0)
        return;
    /* A peer takes a result before it contributes again, so its buffer has room unless it has
     * stopped reading altogether; its monitor thread never does. */
    (void)iris_wire_send(b->sockets[peer], header, payload, fds, num_fds);
}

static void close_parts(struct iris_bootstrap *b)
{
    for (int rank = 0; rank < b->world_size; ++rank) {
        b->parts[rank].present = false;
        if (b->parts[rank].fd >= 0)
            close(b->parts[rank].fd);
        b->parts[rank].fd = -1;
    }
    b->opened_ns = 0;
}

/* Ends the open collective with an error for those who take part in it. */
static void fail_open(struct iris_bootstrap *b, enum iris_status status, int rank, const char *text)
{
    struct iris_wire_header header = {.type = IRIS_WIRE_RESULT,
                                      .rank = rank,
                                      .sequence = b->open_sequence,
                                      .status = status,
                                      .nbytes = (uint32_t)strlen(text)};

    for (int peer = 1; peer < b->world_size; ++peer)
        if (b->parts[peer].present)
            send_to(b, peer, &header, text, NULL, 0);
    if (b->parts[0].present)
        finish(b, &header, text, NULL);
    close_parts(b);
    ++b->open_sequence;
}

/* The first rank whose part does not go with rank 0's, or -1. */
static int find_mismatch(const struct iris_bootstrap *b)
{
    const struct part *first = &b->parts[0];

    for (int rank = 1; rank < b->world_size; ++rank)
        if (strcmp(b->parts[rank].name, first->name) != 0 ||
            b->parts[rank].nbytes != first->nbytes || (b->parts[rank].fd >= 0) != (first->fd >= 0))
            return rank;
    return -1;
}

static void complete_open(struct iris_bootstrap *b)
{
    const uint32_t nbytes = b->parts[0].nbytes;
    const bool with_fds = b->parts[0].fd >= 0;
    struct iris_wire_header header = {.type = IRIS_WIRE_RESULT,
                                      .rank = -1,
                                      .sequence = b->open_sequence,
                                      .nbytes = nbytes * (uint32_t)b->world_size};
    const int mismatch = find_mismatch(b);
    int fds[IRIS_MAX_RANKS];

    if (mismatch >= 0) {
        char text[256];
        (void)snprintf(text, sizeof text,
                       "the ranks met in different collectives: rank 0 in '%s' (%u bytes), rank "
                       "%d in '%s' (%u bytes)",
                       b->parts[0].name, b->parts[0].nbytes, mismatch, b->parts[mismatch].name,
                       b->parts[mismatch].nbytes);
        fail_open(b, IRIS_EINVAL, -1, text);
        return;
    }
    /* The monitor's buffer is free: its message has been copied into a part. */
    for (int rank = 0; rank < b->world_size && nbytes > 0; ++rank)
        memcpy(b->outcome.payload + (size_t)rank * nbytes, b->parts[rank].bytes, nbytes);
    for (int peer = 1; peer < b->world_size; ++peer) {
        int num_fds = 0;
        for (int rank = 0; rank < b->world_size && with_fds; ++rank)
            if (rank != peer)
                fds[num_fds++] = b->parts[rank].fd;
        send_to(b, peer, &header, b->outcome.payload, fds, num_fds);
    }
    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank) {
        fds[rank] = -1;
        if (rank == 0 || rank >= b->world_size)
            continue;
        fds[rank] = b->parts[rank].fd; /* the hub's own copy */
        b->parts[rank].fd = -1;
    }
    close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    b->outcome.sequence = header.sequence;
    b->outcome.status = IRIS_OK;
    b->outcome.rank = -1;
    b->outcome.nbytes = header.nbytes;
    memcpy(b->outcome.fds, fds, sizeof fds);
    pthread_cond_broadcast(&b->finished);
    close_parts(b);
    ++b->open_sequence;
}

/* Fails the open collective if a rank that it still needs is gone; completes it if all are in. */
static void advance_open(struct iris_bootstrap *b)
{
    char text[256];

    if (b->opened_ns == 0)
        return;
    if (b->broken[0] != '\0') {
        fail_open(b, IRIS_EPEER, b->broken_rank, b->broken);
        return;
    }
    for (int rank = 0; rank < b->world_size; ++rank) {
        if (b->parts[rank].present || (b->gone >> rank & 1u) == 0)
            continue;
        (void)snprintf(text, sizeof text, "rank %d %s", rank, departure_text(b->departure[rank]));
        fail_open(b, IRIS_EPEER, rank, text);
        return;
    }
    for (int rank = 0; rank < b->world_size; ++rank)
        if (!b->parts[rank].present)
            return;
    complete_open(b);
}

/* Takes over `fd`. */
static void contribute(struct iris_bootstrap *b, int rank, const struct iris_wire_header *header,
                       const void *bytes, int fd)
{
    struct part *part = &b->parts[rank];

    if (header->sequence != b->open_sequence || part->present) {
        if (fd >= 0)
            close(fd);
        return;
    }
    part->present = true;
    part->nbytes = header->nbytes;
    part->fd = fd;
    memcpy(part->name, header->name, sizeof part->name);
    if (header->nbytes > 0)
        memcpy(part->bytes, bytes, header->nbytes);
    if (b->opened_ns == 0)
        b->opened_ns = now_ns();
    advance_open(b);
}

/* Breaks the bootstrap when the open collective has been open for too long. */
static void check_timeout(struct iris_bootstrap *b)
{
    size_t used;
    int first = -1;

    if (b->opened_ns == 0 || now_ns() - b->opened_ns < b->timeout_ns)
        return;
    used = (size_t)snprintf(b->broken, sizeof b->broken, "rank(s)");
    for (int rank = 0; rank < b->world_size; ++rank) {
        if (b->parts[rank].present)
            continue;
        used += (size_t)snprintf(b->broken + used, sizeof b->broken - used, " %d", rank);
        first = first < 0 ? rank : first;
    }
    for (int rank = 0; rank < b->world_size; ++rank) {
        if (!b->parts[rank].present)
            continue;
        (void)snprintf(b->broken + used, sizeof b->broken - used,
                       " did not arrive at '%s' within %g s", b->parts[rank].name,
                       (double)b->timeout_ns * 1e-9);
        break;
    }
    b->broken_rank = first;
    advance_open(b);
}

static void hub_received(struct iris_bootstrap *b, int peer, struct iris_wire_message *message)
{
    const struct iris_wire_header *header = &message->header;
    struct iris_wire_header notice = {
        .type = IRIS_WIRE_DEPARTED, .rank = peer, .status = IRIS_PEER_LEFT};

    if (header->type == IRIS_WIRE_CONTRIBUTE && header->nbytes <= IRIS_BOOTSTRAP_MAX_BYTES) {
        const int fd = message->num_fds > 0 ? message->fds[0] : -1;
        close_fds(message->fds + 1, message->num_fds - 1);
        contribute(b, peer, header, b->receive_buffer, fd);
        return;
    }
    close_fds(message->fds, message->num_fds);
    if (header->type != IRIS_WIRE_FAREWELL)
        return;
    note_departure(b, peer, IRIS_PEER_LEFT);
    for (int other = 1; other < b->world_size; ++other)
        send_to(b, other, &notice, NULL, NULL, 0);
    advance_open(b);
}

static void hub_lost(struct iris_bootstrap *b, int peer)
{
    struct iris_wire_header notice = {
        .type = IRIS_WIRE_DEPARTED, .rank = peer, .status = IRIS_PEER_DIED};

    if ((b->gone >> peer & 1u) == 0) {
        note_departure(b, peer, IRIS_PEER_DIED);
        for (int other = 1; other < b->world_size; ++other)
            send_to(b, other, &notice, NULL, NULL, 0);
        advance_open(b);
    }
    close(b->sockets[peer]);
    b->sockets[peer] = -1;
}

/* ---- the other ranks; under lock ---- */

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
        finish(b, header, b->receive_buffer, fds);
        return;
    }
    close_fds(message->fds, message->num_fds);
    if (header->type == IRIS_WIRE_DEPARTED)
        note_departure(b, header->rank, (enum iris_departure)header->status);
    else if (header->type == IRIS_WIRE_FAREWELL)
        note_departure(b, 0, IRIS_PEER_LEFT);
    pthread_cond_broadcast(&b->finished);
}

static void member_lost_hub(struct iris_bootstrap *b)
{
    note_departure(b, 0, IRIS_PEER_DIED);
    close(b->sockets[0]);
    b->sockets[0] = -1;
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
        hub_received(b, peer, &message);
    else if (result == IRIS_WIRE_OK)
        member_received(b, &message);
    else if (result == IRIS_WIRE_END && b->rank == 0)
        hub_lost(b, peer);
    else if (result == IRIS_WIRE_END)
        member_lost_hub(b);
    pthread_mutex_unlock(&b->lock);
}

/* How long the monitor may sleep: until the open collective is late. */
static int monitor_patience(struct iris_bootstrap *b)
{
    const uint64_t now = now_ns();
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
        check_timeout(b);
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

static enum iris_status start_monitor(struct iris_bootstrap *b)
{
    sigset_t all, before;
    int error;

    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->wake < 0)
        return IRIS_FAIL(IRIS_EDRIVER, "eventfd: %s", strerror(errno));
    sigfillset(&all); /* signals are the business of the caller's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&b->monitor, NULL, monitor_main, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return IRIS_FAIL(IRIS_EDRIVER, "monitor thread: %s", strerror(error));
    b->monitor_runs = true;
    return IRIS_OK;
}

/* ---- life ---- */

enum iris_status iris_bootstrap_create(const struct iris_bootstrap_options *options,
                                       struct iris_bootstrap **out)
{
    struct iris_bootstrap *b;
    pthread_condattr_t monotonic;
    enum iris_status status;

    IRIS_TRY(iris_alloc_zeroed(sizeof *b, (void **)&b));
    b->rank = options->rank;
    b->world_size = options->world_size;
    b->timeout_ns = options->timeout_ns;
    b->on_departure = options->on_departure;
    b->on_departure_arg = options->on_departure_arg;
    b->wake = -1;
    b->open_sequence = 1;
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
    const struct iris_wire_header farewell = {.type = IRIS_WIRE_FAREWELL};

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
    close_fds(b->sockets, IRIS_MAX_RANKS);
    close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    close_parts(b);
    close_fds(&b->wake, 1);
    pthread_cond_destroy(&b->finished);
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->call_lock);
    free(b);
}

void iris_bootstrap_abandon(struct iris_bootstrap *b)
{
    if (b == NULL)
        return;
    close_fds(b->sockets, IRIS_MAX_RANKS);
    close_fds(&b->wake, 1);
}

/* ---- collectives ---- */

static struct timespec deadline_after(uint64_t ns)
{
    const uint64_t at = now_ns() + ns;

    return (struct timespec){(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
}

/* Waits for the outcome of the collective `sequence`. Under lock. */
static enum iris_status wait_outcome(struct iris_bootstrap *b, uint64_t sequence, const char *name)
{
    /* The hub's monitor judges who is late; a member's own limit is for a silent hub. */
    const struct timespec limit = deadline_after(b->timeout_ns + 1000000000u);

    while (b->outcome.sequence != sequence) {
        if (b->rank != 0 && (b->gone & 1u) != 0) {
            IRIS_FAIL(IRIS_EPEER, "rank 0 %s", departure_text(b->departure[0]));
            iris_error_last()->rank = 0;
            return IRIS_EPEER;
        }
        if (b->rank == 0) {
            pthread_cond_wait(&b->finished, &b->lock);
        } else if (pthread_cond_timedwait(&b->finished, &b->lock, &limit) == ETIMEDOUT) {
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
                                       size_t nbytes, int fd)
{
    struct iris_wire_header header = {
        .type = IRIS_WIRE_CONTRIBUTE, .rank = b->rank, .nbytes = (uint32_t)nbytes};

    if (b->broken[0] != '\0') {
        IRIS_FAIL(IRIS_EPEER, "%s", b->broken);
        iris_error_last()->rank = b->broken_rank;
        return IRIS_EPEER;
    }
    header.sequence = ++b->sequence;
    (void)snprintf(header.name, sizeof header.name, "%s", name);
    if (b->rank == 0) {
        contribute(b, 0, &header, in, fd >= 0 ? dup(fd) : -1);
        wake_monitor(b); /* it keeps the time of the open collective */
    } else if (b->sockets[0] >= 0) {
        (void)iris_wire_send(b->sockets[0], &header, in, &fd, fd >= 0 ? 1 : 0);
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
    status = run_collective(b, name, in, nbytes, -1);
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
    status = run_collective(b, name, NULL, 0, fd);
    for (int rank = 0; rank < b->world_size && status == IRIS_OK; ++rank)
        if (rank != b->rank && b->outcome.fds[rank] < 0)
            status = IRIS_FAIL(IRIS_EDRIVER,
                               "%s: rank %d's file descriptor did not arrive; is the "
                               "limit on open files reached?",
                               name, rank);
    if (status == IRIS_OK) {
        memcpy(fds, b->outcome.fds, sizeof *fds * (size_t)b->world_size);
        for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
            b->outcome.fds[rank] = -1;
    }
    if (status != IRIS_OK)
        close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_unlock(&b->call_lock);
    return status;
}

int iris_bootstrap_departed_rank(struct iris_bootstrap *b, enum iris_departure *departure)
{
    int first = -1;

    pthread_mutex_lock(&b->lock);
    for (int rank = b->world_size - 1; rank >= 0; --rank)
        if ((b->gone >> rank & 1u) != 0)
            first = rank;
    if (first >= 0)
        *departure = b->departure[first];
    pthread_mutex_unlock(&b->lock);
    return first;
}
