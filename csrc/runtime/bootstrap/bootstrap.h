/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How the ranks of one node meet, agree, and notice that one of them is gone.
 *
 * Rank 0 is the hub: it listens on an abstract AF_UNIX socket whose name is derived from the run
 * key and the user, every other rank keeps one connection to it for the life of the context. One
 * monitor thread per rank reads its connections, so a peer's death (end of file without a
 * farewell) is noticed at once, whatever the rank's other threads are doing, and the hub tells
 * everybody.
 *
 * All collectives here are host-side, block, and must be called by all ranks in the same order;
 * calls from several threads of a rank are serialised. Each carries a short name: ranks that meet
 * in collectives of different names, or of different sizes, all get the same IRIS_EINVAL naming
 * both, and the next collective works again. A dead or departed rank ends every waiting and every
 * later collective with IRIS_EPEER; error->rank is the first that went, since others often follow
 * it. A rank that has left after its part of a collective came does not fail that one. A rank that
 * does not arrive within the timeout, counted from the first that did, ends the collective with
 * IRIS_EPEER on all ranks and breaks the bootstrap for good: every later collective fails at once
 * with the same message. A world of one never opens a socket.
 *
 * Every wait asks whether it may go on (base/wait.h) and ends with IRIS_EINTERRUPTED if not; the
 * peers are then told by iris_bootstrap_interrupt, and in a meeting at once. A forked child holds
 * none of the sockets and must not use the bootstrap.
 */
#ifndef IRIS_BOOTSTRAP_H
#define IRIS_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct iris_bootstrap;

enum iris_departure {
    IRIS_PEER_DIED,        /* its connection ended without a farewell */
    IRIS_PEER_LEFT,        /* it closed its context */
    IRIS_PEER_INTERRUPTED, /* its caller ended a call before it was complete */
    IRIS_PEER_WENT_ON,     /* it goes on with the survivors, in another context */
};

/* "died", "closed its context", "was interrupted", "called survivors()". */
const char *iris_bootstrap_departure_text(enum iris_departure departure);

struct iris_bootstrap_options {
    /* Names the run: equal on the ranks that belong together, different for all others of the
     * same user at the same time. Any length; it is hashed. */
    const char *run_key;
    int rank;
    int world_size;
    uint64_t timeout_ns; /* for meeting, and for each later collective */
    /* Called on the monitor thread, at most once per peer, when a peer died or left. May be
     * NULL. Must not call back into the bootstrap. */
    void (*on_departure)(void *arg, int rank, enum iris_departure departure);
    void *on_departure_arg;
    /* Asked now and then while the ranks meet: IRIS_OK, or the error to give up with. May be NULL.
     */
    enum iris_status (*check_meeting)(void *arg);
    void *check_meeting_arg;
};

/* The largest contribution of one rank to one collective, in bytes. */
enum { IRIS_BOOTSTRAP_MAX_BYTES = 8192 };

/* Meets the other ranks: returns when all `world_size` ranks have. IRIS_EINVAL with one message on
 * every rank when they disagree on the world size or two claim one rank (rank 0 stays up to 5 s
 * longer to tell those who are still on their way); IRIS_EPEER naming the missing ranks when the
 * timeout passes. Contexts may be created one after the other and side by side under one run key,
 * as long as every rank creates them in the same order; attempts that failed do not count. */
enum iris_status iris_bootstrap_create(const struct iris_bootstrap_options *options,
                                       struct iris_bootstrap **out);

/* Says farewell, joins the monitor thread, closes the connections. Not collective. NULL is fine. */
void iris_bootstrap_destroy(struct iris_bootstrap *bootstrap);
/* The same, with another reason than that the context is closed. */
void iris_bootstrap_depart(struct iris_bootstrap *bootstrap, enum iris_departure reason);

/* The caller gives up a collective, or something that the peers take part in: they are told that
 * this rank was interrupted, and every collective of this rank fails with IRIS_EINTERRUPTED, one
 * that another thread is in at once. Waits for nobody. NULL is fine. */
void iris_bootstrap_interrupt(struct iris_bootstrap *bootstrap);

/* Every rank contributes `nbytes` (0 to IRIS_BOOTSTRAP_MAX_BYTES, equal on all ranks); `out`
 * receives world_size * nbytes, in rank order. */
enum iris_status iris_bootstrap_all_gather(struct iris_bootstrap *bootstrap, const char *name,
                                           const void *in, size_t nbytes, void *out);

enum iris_status iris_bootstrap_barrier(struct iris_bootstrap *bootstrap, const char *name);

/* Tells all ranks whether `bytes` are equal everywhere, and the maximum of `value`. `equal` and
 * `maximum` may be NULL. */
enum iris_status iris_bootstrap_agree(struct iris_bootstrap *bootstrap, const char *name,
                                      const void *bytes, size_t nbytes, int64_t value, bool *equal,
                                      int64_t *maximum);

/* Every rank hands over one file descriptor and receives a new one (close-on-exec) for each
 * peer's, in fds[peer]; fds[own rank] is set to -1. The caller owns what it receives and keeps
 * what it gave. IRIS_EDRIVER if one does not arrive because a process has no descriptor free (on
 * all ranks if it is rank 0, otherwise on that rank alone); the next collective works again. */
enum iris_status iris_bootstrap_exchange_fds(struct iris_bootstrap *bootstrap, const char *name,
                                             int fd, int *fds);

/* The first rank known to have died or left, or -1; *departure says which. */
int iris_bootstrap_departed_rank(struct iris_bootstrap *bootstrap, enum iris_departure *departure);

#endif
