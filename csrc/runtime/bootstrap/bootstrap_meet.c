/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The two sides of the meeting. No system call here blocks: sockets do not, and waits are polls of
 * IRIS_WAIT_SLICE_MS at most, between which the deadline is looked at and the caller is asked
 * whether to go on.
 */
#include "bootstrap_meet.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/process.h"
#include "base/wait.h"
#include "bootstrap_name.h"

/* ---- instances: how many contexts of a run key this process has had, per rank ---- */

struct instance {
    struct instance *next;
    uint64_t generation; /* of the process: a forked child has had none yet */
    uint64_t key;
    int rank;
    uint64_t count;
};

static struct instance *instances; /* under the process's lock */

/* Reads the count, and adds `step` to it. */
static uint64_t instance_count(const struct iris_bootstrap_options *options, uint64_t step)
{
    const uint64_t key = iris_run_key_hash(options->run_key);
    const uint64_t generation = iris_process_generation();
    struct instance *entry;
    uint64_t count = 0;

    iris_process_lock();
    for (entry = instances; entry != NULL; entry = entry->next)
        if (entry->generation == generation && entry->key == key && entry->rank == options->rank)
            break;
    if (entry == NULL && (entry = calloc(1, sizeof *entry)) != NULL) {
        entry->generation = generation;
        entry->key = key;
        entry->rank = options->rank;
        entry->next = instances;
        instances = entry;
    }
    if (entry != NULL) {
        count = entry->count;
        entry->count += step;
    }
    iris_process_unlock();
    return count;
}

/* ---- time ---- */

/* Until the deadline, but no longer than a slice. */
static int milliseconds_until(uint64_t deadline)
{
    const uint64_t now = iris_clock_ns();
    const uint64_t left = deadline > now ? (deadline - now) / 1000000 + 1 : 0;

    return left > IRIS_WAIT_SLICE_MS ? IRIS_WAIT_SLICE_MS : (int)left;
}

static void sleep_ms(long ms)
{
    const struct timespec nap = {0, ms * 1000000};

    (void)nanosleep(&nap, NULL);
}

static enum iris_status interrupted(void)
{
    return IRIS_FAIL(IRIS_EINTERRUPTED, "init: it was interrupted");
}

/* ---- the meeting ---- */

/* A connection whose hello has not come yet; on rank 0. */
struct guest {
    int socket;
    uint64_t patience; /* until when it may keep silent */
};

enum { MAX_GUESTS = 64 };

struct meeting {
    const struct iris_bootstrap_options *options;
    struct iris_name name;
    void *scratch;
    int *sockets;
    uint64_t instance;
    uint64_t deadline;
    struct iris_name_holder holder; /* of the name, while it keeps the ranks from meeting */
    /* Rank 0: */
    int listener;
    struct guest guests[MAX_GUESTS];
    int num_guests;
    int not_accepted;  /* errno of a connection that waits, since it could not be taken; or 0 */
    char failure[256]; /* not empty: the meeting has failed, */
    enum iris_status failure_status;
    int failure_rank; /* and because of whom, or -1 */
    int num_told;     /* ranks that have been told so */
    /* The others: */
    bool was_early; /* rank 0 was met, but for another instance */
};

/* After a failed meeting, for ranks that are still on their way and shall hear the reason, too. */
static const uint64_t LINGER_NS = UINT64_C(5000000000);
/* A rank says hello at once. */
static const uint64_t GUEST_PATIENCE_NS = UINT64_C(2000000000);

/* Whether the owner of the meeting still has hope. */
static enum iris_status check_meeting(const struct meeting *m)
{
    const struct iris_bootstrap_options *options = m->options;

    return options->check_meeting != NULL ? options->check_meeting(options->check_meeting_arg)
                                          : IRIS_OK;
}

/* ---- rank 0 ---- */

/* Who listens under the name says more of itself to who connects: its process. */
static void probe_holder(struct meeting *m)
{
    int probe = -1;

    if (iris_wire_open(&probe) == IRIS_OK &&
        connect(probe, (struct sockaddr *)&m->name.address, m->name.length) == 0)
        m->holder = iris_name_peer(probe);
    iris_process_close(&probe);
}

/* The name is taken until the deadline. */
static enum iris_status name_is_held(struct meeting *m)
{
    char holder[IRIS_NAME_HOLDER_NBYTES];

    probe_holder(m);
    if (!m->holder.known)
        m->holder = iris_name_find_holder(&m->name);
    iris_name_describe(&m->holder, holder);
    if (iris_name_is_own_user(&m->holder))
        return IRIS_FAIL(IRIS_EPEER,
                         "init: another rank 0 of run '%s' is meeting on this machine (%s); give "
                         "runs that overlap different MASTER_PORTs or TORCHELASTIC_RUN_IDs",
                         m->options->run_key, holder);
    return IRIS_FAIL(IRIS_EPEER,
                     "init: the name of run '%s' is held by %s; choose another "
                     "MASTER_PORT or TORCHELASTIC_RUN_ID",
                     m->options->run_key, holder);
}

static enum iris_status bind_name(struct meeting *m)
{
    bool probed = false;

    while (bind(m->listener, (struct sockaddr *)&m->name.address, m->name.length) != 0) {
        if (errno != EADDRINUSE)
            return IRIS_FAIL(IRIS_EDRIVER, "bind of the meeting socket: %s", strerror(errno));
        if (iris_clock_ns() > m->deadline)
            return name_is_held(m);
        if (!probed)
            probe_holder(m); /* before the others have filled its queue */
        probed = true;
        sleep_ms(5);
        if (iris_wait_is_interrupted())
            return interrupted();
        IRIS_TRY(check_meeting(m));
    }
    if (listen(m->listener, MAX_GUESTS) != 0)
        return IRIS_FAIL(IRIS_EDRIVER, "listen on the meeting socket: %s", strerror(errno));
    return IRIS_OK;
}

static void send_text(int socket, enum iris_wire_type type, int rank, const char *text)
{
    struct iris_wire_header header = {.type = type, .rank = rank, .nbytes = (uint32_t)strlen(text)};

    (void)iris_wire_send(socket, &header, text, NULL, 0);
}

static void fail_meeting(struct meeting *m, enum iris_status status, int rank)
{
    m->failure_status = status;
    m->failure_rank = rank;
}

/* Answers with the reason why the meeting has failed. */
static void tell_failure(struct meeting *m, int socket)
{
    send_text(socket, m->failure_status == IRIS_EINVAL ? IRIS_WIRE_REJECT : IRIS_WIRE_FAREWELL,
              m->failure_rank, m->failure);
    ++m->num_told;
}

static bool has_hung_up(int socket)
{
    struct pollfd p = {.fd = socket, .events = POLLIN};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

/* Fails the meeting if `hello` of `rank` does not go with it. */
static void judge(struct meeting *m, int rank, const struct iris_wire_hello *hello)
{
    const int world_size = m->options->world_size;

    if (hello->version != IRIS_WIRE_VERSION)
        (void)snprintf(m->failure, sizeof m->failure,
                       "init: rank %d runs another version of iris_c", rank);
    else if (hello->world_size != world_size)
        (void)snprintf(m->failure, sizeof m->failure,
                       "world_size: expected the same on all ranks, got %d on rank 0 and %d on "
                       "rank %d",
                       world_size, hello->world_size, rank);
    else if (rank < 1 || rank >= world_size)
        (void)snprintf(m->failure, sizeof m->failure, "rank: expected 1 to %d, got %d",
                       world_size - 1, rank);
    else if (m->sockets[rank] >= 0 && !has_hung_up(m->sockets[rank]))
        (void)snprintf(m->failure, sizeof m->failure,
                       "rank: expected different ranks in all processes, got rank %d twice", rank);
    if (m->failure[0] != '\0')
        fail_meeting(m, IRIS_EINVAL, -1);
}

/* What a guest has said: it becomes a member, is asked to come again, or makes the meeting fail. */
static void hear_guest(struct meeting *m, int socket)
{
    const struct iris_wire_hello *hello = m->scratch;
    struct iris_wire_message message;
    int rank;

    if (iris_wire_receive(socket, &message, m->scratch) != IRIS_WIRE_OK)
        goto drop;
    iris_wire_close_fds(message.fds, message.num_fds);
    if (message.header.type != IRIS_WIRE_HELLO || message.header.nbytes != sizeof *hello)
        goto drop;
    rank = message.header.rank;
    if (hello->version == IRIS_WIRE_VERSION && hello->instance != m->instance) {
        send_text(socket, IRIS_WIRE_RETRY, -1, "");
        goto drop;
    }
    if (m->failure[0] == '\0')
        judge(m, rank, hello);
    if (m->failure[0] != '\0') {
        tell_failure(m, socket);
        goto drop;
    }
    iris_process_close(&m->sockets[rank]);
    m->sockets[rank] = socket;
    return;
drop:
    iris_process_close(&socket);
}

/* A member that waits for the others says nothing, unless it gives up. */
static void hear_member(struct meeting *m, int rank)
{
    struct iris_wire_message message;
    const enum iris_wire_result result = iris_wire_receive(m->sockets[rank], &message, m->scratch);

    if (result == IRIS_WIRE_AGAIN)
        return;
    if (result == IRIS_WIRE_OK) {
        iris_wire_close_fds(message.fds, message.num_fds);
        if (message.header.type == IRIS_WIRE_FAREWELL &&
            message.header.status == IRIS_PEER_INTERRUPTED && m->failure[0] == '\0') {
            (void)snprintf(m->failure, sizeof m->failure, "init: rank %d %s", rank,
                           iris_bootstrap_departure_text(IRIS_PEER_INTERRUPTED));
            fail_meeting(m, IRIS_EPEER, rank);
        }
    }
    /* It is missing again; another process may come in its place. */
    iris_process_close(&m->sockets[rank]);
}

/* Takes what connections there are. */
static void accept_guests(struct meeting *m)
{
    while (m->num_guests < MAX_GUESTS) {
        struct iris_name_holder peer;
        int socket = iris_wire_accept(m->listener);

        if (socket < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                m->not_accepted = errno;
                sleep_ms(5); /* it stays readable; another thread may close something */
            }
            return;
        }
        m->not_accepted = 0;
        peer = iris_name_peer(socket);
        if (iris_name_is_own_user(&peer))
            m->guests[m->num_guests++] =
                (struct guest){socket, iris_clock_ns() + GUEST_PATIENCE_NS};
        else
            iris_process_close(&socket);
    }
}

/* Hears whoever has something to say, for a slice of time at most. */
static void hear_all(struct meeting *m, uint64_t deadline)
{
    struct pollfd polled[1 + MAX_GUESTS + IRIS_MAX_RANKS];
    const int num_guests = m->num_guests;
    nfds_t count = 0;
    int kept = 0;

    polled[count++] =
        (struct pollfd){.fd = num_guests < MAX_GUESTS ? m->listener : -1, .events = POLLIN};
    for (int i = 0; i < num_guests; ++i)
        polled[count++] = (struct pollfd){.fd = m->guests[i].socket, .events = POLLIN};
    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank) /* poll skips those that are not there */
        polled[count++] = (struct pollfd){.fd = m->sockets[rank], .events = POLLIN};
    if (poll(polled, count, milliseconds_until(deadline)) < 0)
        return;
    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
        if (m->sockets[rank] >= 0 && polled[1 + num_guests + rank].revents != 0)
            hear_member(m, rank);
    for (int i = 0; i < num_guests; ++i) {
        if (polled[1 + i].revents != 0)
            hear_guest(m, m->guests[i].socket);
        else if (iris_clock_ns() > m->guests[i].patience)
            iris_process_close(&m->guests[i].socket);
        else
            m->guests[kept++] = m->guests[i];
    }
    m->num_guests = kept;
    if (polled[0].revents != 0)
        accept_guests(m);
}

static int count_missing(const struct meeting *m, char *names, size_t size)
{
    int missing = 0;
    size_t used = 0;

    names[0] = '\0';
    for (int rank = 1; rank < m->options->world_size; ++rank) {
        if (m->sockets[rank] >= 0)
            continue;
        if (used + 8 < size)
            used +=
                (size_t)snprintf(names + used, size - used, "%s%d", missing > 0 ? ", " : "", rank);
        ++missing;
    }
    return missing;
}

/* Sees to it that as many as should have come know why the meeting has failed. A disagreement waits
 * a while for those who are still on their way; time that is up and interrupts do not wait. */
static enum iris_status end_failed(struct meeting *m)
{
    const uint64_t until = iris_clock_ns() + LINGER_NS;
    const uint64_t deadline = until < m->deadline ? until : m->deadline;

    for (int peer = 1; peer < m->options->world_size; ++peer)
        if (m->sockets[peer] >= 0)
            tell_failure(m, m->sockets[peer]);
    while (m->failure_status == IRIS_EINVAL && m->num_told < m->options->world_size - 1 &&
           iris_clock_ns() < deadline && !iris_wait_is_interrupted())
        hear_all(m, deadline);
    for (int i = 0; i < m->num_guests; ++i)
        tell_failure(m, m->guests[i].socket);
    IRIS_FAIL(m->failure_status, "%s", m->failure);
    iris_error_last()->rank = m->failure_rank;
    return m->failure_status;
}

static enum iris_status gather_ranks(struct meeting *m)
{
    char missing[96];

    while (m->failure[0] == '\0' && count_missing(m, missing, sizeof missing) > 0) {
        if (iris_clock_ns() >= m->deadline) {
            (void)snprintf(m->failure, sizeof m->failure,
                           "init: rank(s) %s did not arrive within %g s%s%s", missing,
                           (double)m->options->timeout_ns * 1e-9,
                           m->not_accepted != 0 ? "; rank 0 cannot take their connections: " : "",
                           m->not_accepted != 0 ? strerror(m->not_accepted) : "");
            fail_meeting(m, IRIS_EPEER, (int)strtol(missing, NULL, 10));
            break;
        }
        IRIS_TRY(check_meeting(m));
        hear_all(m, m->deadline);
        if (m->failure[0] == '\0' && iris_wait_is_interrupted()) {
            (void)snprintf(m->failure, sizeof m->failure, "init: rank 0 %s",
                           iris_bootstrap_departure_text(IRIS_PEER_INTERRUPTED));
            fail_meeting(m, IRIS_EPEER, 0);
            (void)end_failed(m);
            return interrupted();
        }
    }
    if (m->failure[0] != '\0')
        return end_failed(m);
    for (int peer = 1; peer < m->options->world_size; ++peer)
        send_text(m->sockets[peer], IRIS_WIRE_WELCOME, -1, "");
    return IRIS_OK;
}

static enum iris_status meet_as_hub(struct meeting *m)
{
    enum iris_status status;

    IRIS_TRY(iris_wire_open(&m->listener));
    status = bind_name(m);
    if (status == IRIS_OK)
        status = gather_ranks(m);
    for (int i = 0; i < m->num_guests; ++i)
        iris_process_close(&m->guests[i].socket);
    iris_process_close(&m->listener);
    return status;
}

/* ---- the other ranks ---- */

/* Waits for rank 0's answer. AGAIN: it did not come in time. */
static enum iris_wire_result wait_for_answer(struct meeting *m, int socket,
                                             struct iris_wire_message *answer)
{
    /* A second more: rank 0 says who is missing when its own time is up. */
    const uint64_t deadline = m->deadline + UINT64_C(1000000000);
    const struct iris_wire_header farewell = {.type = IRIS_WIRE_FAREWELL,
                                              .status = IRIS_PEER_INTERRUPTED};
    struct pollfd p = {.fd = socket, .events = POLLIN};

    do {
        if (poll(&p, 1, milliseconds_until(deadline)) > 0) {
            const enum iris_wire_result result = iris_wire_receive(socket, answer, m->scratch);
            if (result != IRIS_WIRE_AGAIN)
                return result;
        }
        if (iris_wait_is_interrupted()) {
            (void)iris_wire_send(socket, &farewell, NULL, NULL, 0);
            break;
        }
    } while (iris_clock_ns() < deadline && check_meeting(m) == IRIS_OK);
    return IRIS_WIRE_AGAIN;
}

/* Connects and says hello. false: nobody of this user is there, or it has no room just now. */
static bool say_hello(struct meeting *m, int socket)
{
    const struct iris_wire_hello hello = {.version = IRIS_WIRE_VERSION,
                                          .world_size = m->options->world_size,
                                          .instance = m->instance};
    const struct iris_wire_header header = {
        .type = IRIS_WIRE_HELLO, .rank = m->options->rank, .nbytes = sizeof hello};

    if (connect(socket, (struct sockaddr *)&m->name.address, m->name.length) != 0)
        return false; /* at once, also with a full queue: EAGAIN */
    m->holder = iris_name_peer(socket);
    return iris_name_is_own_user(&m->holder) &&
           iris_wire_send(socket, &header, &hello, NULL, 0) == IRIS_WIRE_OK;
}

/* One attempt: AGAIN asks for another. On IRIS_WIRE_OK *status says how the meeting ended. */
static enum iris_wire_result try_to_join(struct meeting *m, enum iris_status *status)
{
    struct iris_wire_message answer;
    char *text = m->scratch;
    int sock = -1;

    *status = iris_wire_open(&sock);
    if (*status != IRIS_OK)
        return IRIS_WIRE_OK;
    if (!say_hello(m, sock) || wait_for_answer(m, sock, &answer) != IRIS_WIRE_OK)
        goto again;
    iris_wire_close_fds(answer.fds, answer.num_fds);
    text[answer.header.nbytes] = '\0';
    switch (answer.header.type) {
    case IRIS_WIRE_WELCOME:
        m->sockets[0] = sock;
        return IRIS_WIRE_OK;
    case IRIS_WIRE_REJECT:
        *status = IRIS_FAIL(IRIS_EINVAL, "%s", text);
        break;
    case IRIS_WIRE_FAREWELL:
        *status = IRIS_FAIL(IRIS_EPEER, "%s", text);
        iris_error_last()->rank = answer.header.rank;
        break;
    case IRIS_WIRE_RETRY:
        m->was_early = true;
        goto again;
    default:
        goto again;
    }
    iris_process_close(&sock);
    return IRIS_WIRE_OK;
again:
    iris_process_close(&sock);
    return IRIS_WIRE_AGAIN;
}

static enum iris_status did_not_meet(struct meeting *m)
{
    char holder[IRIS_NAME_HOLDER_NBYTES], who[IRIS_NAME_HOLDER_NBYTES + 64] = "";

    if (!m->holder.known)
        m->holder = iris_name_find_holder(&m->name);
    iris_name_describe(&m->holder, holder);
    if (m->holder.known && !m->was_early)
        (void)snprintf(who, sizeof who, "; the run's name is held by %s%s", holder,
                       iris_name_is_own_user(&m->holder) ? ", which did not answer" : "");
    IRIS_FAIL(IRIS_EPEER, "init: rank 0 of run '%s' was not met within %g s%s%s",
              m->options->run_key, (double)m->options->timeout_ns * 1e-9, who,
              m->was_early ? "; it was meeting for another context of the run: do all ranks "
                             "create the same contexts in the same order?"
                           : "");
    iris_error_last()->rank = 0;
    return IRIS_EPEER;
}

static enum iris_status meet_as_member(struct meeting *m)
{
    enum iris_status status = IRIS_OK;
    long nap = 1;

    while (try_to_join(m, &status) == IRIS_WIRE_AGAIN) {
        if (iris_wait_is_interrupted())
            return interrupted();
        IRIS_TRY(check_meeting(m));
        if (iris_clock_ns() >= m->deadline)
            return did_not_meet(m);
        sleep_ms(nap);
        nap = nap < 16 ? nap * 2 : 16;
    }
    return status;
}

enum iris_status iris_bootstrap_meet(const struct iris_bootstrap_options *options, void *scratch,
                                     int sockets[IRIS_MAX_RANKS])
{
    struct meeting m = {.options = options, .scratch = scratch, .sockets = sockets, .listener = -1};
    enum iris_status status;

    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
        sockets[rank] = -1;
    iris_name_of(options->run_key, &m.name);
    m.instance = instance_count(options, 0);
    m.deadline = iris_clock_ns() + options->timeout_ns;
    status = options->rank == 0 ? meet_as_hub(&m) : meet_as_member(&m);
    if (status == IRIS_OK) {
        (void)instance_count(options, 1);
        return IRIS_OK;
    }
    iris_wire_close_fds(sockets, IRIS_MAX_RANKS);
    return status;
}
