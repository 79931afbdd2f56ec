/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the caller's side, the monitor and the hub all do to a bootstrap.
 */
#include "bootstrap_state.h"

#include <string.h>
#include <unistd.h>

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

void iris_bootstrap_finish(struct iris_bootstrap *b, const struct iris_wire_header *header,
                           const void *payload, const int *fds)
{
    struct iris_bootstrap_outcome *outcome = &b->outcome;

    /* Left from a collective that nobody waited for to the end. */
    iris_wire_close_fds(outcome->fds, IRIS_MAX_RANKS);
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

void iris_bootstrap_wake(struct iris_bootstrap *b)
{
    const uint64_t one = 1;
    ssize_t ignored = write(b->wake, &one, sizeof one);

    (void)ignored;
}
