/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The collectives of a bootstrap, as the rank's caller sees them.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/wait.h"
#include "bootstrap.h"
#include "bootstrap_hub.h"
#include "bootstrap_state.h"

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
            iris_bootstrap_wake(b); /* it keeps the time of the open collective */
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
        iris_wire_close_fds(b->outcome.fds, IRIS_MAX_RANKS);
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
