/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The hub's half of a bootstrap: gathers the parts of a collective, compares, answers, keeps time,
 * and tells everybody who is gone.
 *
 * Every rank sends its part to the hub; when the hub has all of them it compares names and sizes
 * and sends everybody the result, which the rank's monitor thread puts where the caller waits for
 * it. The hub's own part goes through the same code without a socket. At most one collective is
 * open at a time, because a rank contributes to the next one only after it has the result of the
 * last. Everything here runs under the state's lock.
 */
#include "bootstrap_hub.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* Sends unless the peer is gone. */
static void send_to(struct iris_bootstrap *b, int peer, const struct iris_wire_header *header,
                    const void *payload, const int *fds, int num_fds)
{
    if ((b->gone >> peer & 1u) != 0)
        return;
    /* A peer takes a result before it contributes again, so its buffer has room unless it has
     * stopped reading altogether; its monitor thread never does. */
    (void)iris_wire_send(b->sockets[peer], header, payload, fds, num_fds);
}

void iris_bootstrap_hub_close_parts(struct iris_bootstrap *b)
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
        iris_bootstrap_finish(b, &header, text, NULL);
    iris_bootstrap_hub_close_parts(b);
    ++b->open_sequence;
}

/* The first rank whose part does not go with rank 0's, or -1. */
static int find_mismatch(const struct iris_bootstrap *b)
{
    const struct iris_bootstrap_part *first = &b->parts[0];

    for (int rank = 1; rank < b->world_size; ++rank)
        if (strcmp(b->parts[rank].name, first->name) != 0 ||
            b->parts[rank].nbytes != first->nbytes || b->parts[rank].num_fds != first->num_fds)
            return rank;
    return -1;
}

static void fail_mismatch(struct iris_bootstrap *b, int rank)
{
    const struct iris_bootstrap_part *first = &b->parts[0], *other = &b->parts[rank];
    char text[256];

    (void)snprintf(text, sizeof text,
                   "the ranks met in different collectives: rank 0 in '%s' (%u bytes%s), rank %d "
                   "in '%s' (%u bytes%s)",
                   first->name, first->nbytes, first->num_fds > 0 ? " and a descriptor" : "", rank,
                   other->name, other->nbytes, other->num_fds > 0 ? " and a descriptor" : "");
    fail_open(b, IRIS_EINVAL, -1, text);
}

/* The first rank whose descriptor belongs to its part but did not arrive, or -1. */
static int find_missing_fd(const struct iris_bootstrap *b)
{
    for (int rank = 0; rank < b->world_size; ++rank)
        if (b->parts[rank].num_fds > 0 && b->parts[rank].fd < 0)
            return rank;
    return -1;
}

static void complete_open(struct iris_bootstrap *b)
{
    const uint32_t nbytes = b->parts[0].nbytes;
    const bool with_fds = b->parts[0].num_fds > 0;
    struct iris_wire_header header = {.type = IRIS_WIRE_RESULT,
                                      .rank = -1,
                                      .sequence = b->open_sequence,
                                      .nbytes = nbytes * (uint32_t)b->world_size,
                                      .num_fds = with_fds ? (uint32_t)b->world_size - 1 : 0};
    const int mismatch = find_mismatch(b), missing = find_missing_fd(b);
    int fds[IRIS_MAX_RANKS];

    if (mismatch >= 0) {
        fail_mismatch(b, mismatch);
        return;
    }
    if (missing >= 0) {
        char text[256];
        (void)snprintf(text, sizeof text, IRIS_BOOTSTRAP_MISSING_FD, b->parts[0].name, missing);
        fail_open(b, IRIS_EDRIVER, -1, text);
        return;
    }
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
    iris_wire_close_fds(b->outcome.fds, IRIS_MAX_RANKS);
    b->outcome.sequence = header.sequence;
    b->outcome.status = IRIS_OK;
    b->outcome.rank = -1;
    b->outcome.nbytes = header.nbytes;
    memcpy(b->outcome.fds, fds, sizeof fds);
    pthread_cond_broadcast(&b->finished);
    iris_bootstrap_hub_close_parts(b);
    ++b->open_sequence;
}

static bool is_needed_but_gone(const struct iris_bootstrap *b)
{
    for (int rank = 0; rank < b->world_size; ++rank)
        if (!b->parts[rank].present && (b->gone >> rank & 1u) != 0)
            return true;
    return false;
}

/* Fails the open collective if a rank that it still needs is gone, and names the first to go, which
 * the others may have followed; completes it if all are in. */
static void advance_open(struct iris_bootstrap *b)
{
    char text[256];

    if (b->opened_ns == 0)
        return;
    if (b->broken[0] != '\0') {
        fail_open(b, IRIS_EPEER, b->broken_rank, b->broken);
        return;
    }
    if (b->first_gone >= 0 && is_needed_but_gone(b)) {
        (void)snprintf(text, sizeof text, "rank %d %s", b->first_gone,
                       iris_bootstrap_departure_text(b->departure[b->first_gone]));
        fail_open(b, IRIS_EPEER, b->first_gone, text);
        return;
    }
    for (int rank = 0; rank < b->world_size; ++rank)
        if (!b->parts[rank].present)
            return;
    complete_open(b);
}

/* Answers a rank that comes to a collective that has failed without it: a rank was gone. */
static void answer_late(struct iris_bootstrap *b, int rank, uint64_t sequence)
{
    const int gone = b->first_gone >= 0 ? b->first_gone : b->broken_rank;
    struct iris_wire_header header = {
        .type = IRIS_WIRE_RESULT, .rank = gone, .sequence = sequence, .status = IRIS_EPEER};
    char text[256];

    if (b->broken[0] != '\0')
        (void)snprintf(text, sizeof text, "%s", b->broken);
    else
        (void)snprintf(text, sizeof text, "rank %d %s", gone,
                       iris_bootstrap_departure_text(b->departure[gone]));
    header.nbytes = (uint32_t)strlen(text);
    if (rank == 0)
        iris_bootstrap_finish(b, &header, text, NULL);
    else
        send_to(b, rank, &header, text, NULL, 0);
}

/* Takes over `fd`. */
void iris_bootstrap_hub_contribute(struct iris_bootstrap *b, int rank,
                                   const struct iris_wire_header *header, const void *bytes, int fd)
{
    struct iris_bootstrap_part *part = &b->parts[rank];

    if (header->sequence != b->open_sequence || part->present) {
        if (fd >= 0)
            close(fd);
        if (header->sequence < b->open_sequence)
            answer_late(b, rank, header->sequence);
        return;
    }
    part->present = true;
    part->nbytes = header->nbytes;
    part->num_fds = header->num_fds;
    part->fd = fd;
    memcpy(part->name, header->name, sizeof part->name);
    if (header->nbytes > 0)
        memcpy(part->bytes, bytes, header->nbytes);
    if (b->opened_ns == 0)
        b->opened_ns = iris_clock_ns();
    advance_open(b);
}

/* Breaks the bootstrap when the open collective has been open for too long. */
void iris_bootstrap_hub_check_timeout(struct iris_bootstrap *b)
{
    size_t used;
    int first = -1;

    if (b->opened_ns == 0 || iris_clock_ns() - b->opened_ns < b->timeout_ns)
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

void iris_bootstrap_hub_received(struct iris_bootstrap *b, int peer,
                                 struct iris_wire_message *message)
{
    const struct iris_wire_header *header = &message->header;
    struct iris_wire_header notice = {
        .type = IRIS_WIRE_DEPARTED, .rank = peer, .status = header->status};

    if (header->type == IRIS_WIRE_CONTRIBUTE && header->nbytes <= IRIS_BOOTSTRAP_MAX_BYTES) {
        const int fd = message->num_fds > 0 ? message->fds[0] : -1;
        iris_wire_close_fds(message->fds + 1, message->num_fds - 1);
        iris_bootstrap_hub_contribute(b, peer, header, b->receive_buffer, fd);
        return;
    }
    iris_wire_close_fds(message->fds, message->num_fds);
    if (header->type != IRIS_WIRE_FAREWELL)
        return;
    if ((b->gone >> peer & 1u) != 0)
        return; /* it is closing after an interrupt */
    iris_bootstrap_note_departure(b, peer, (enum iris_departure)header->status);
    for (int other = 1; other < b->world_size; ++other)
        send_to(b, other, &notice, NULL, NULL, 0);
    advance_open(b);
}

void iris_bootstrap_hub_lost(struct iris_bootstrap *b, int peer)
{
    struct iris_wire_header notice = {
        .type = IRIS_WIRE_DEPARTED, .rank = peer, .status = IRIS_PEER_DIED};

    if ((b->gone >> peer & 1u) == 0) {
        iris_bootstrap_note_departure(b, peer, IRIS_PEER_DIED);
        for (int other = 1; other < b->world_size; ++other)
            send_to(b, other, &notice, NULL, NULL, 0);
        advance_open(b);
    }
    iris_wire_close_fds(&b->sockets[peer], 1);
}
