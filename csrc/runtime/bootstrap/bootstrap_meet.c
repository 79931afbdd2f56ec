/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The two sides of the meeting.
 */
#include "bootstrap_meet.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "bootstrap_state.h"

/* ---- instances: how many contexts of a run key this process has had, per rank ---- */

struct instance {
    struct instance *next;
    uint64_t key;
    int rank;
    uint64_t count;
};

static pthread_mutex_t instances_lock = PTHREAD_MUTEX_INITIALIZER;
static struct instance *instances;

static uint64_t hash_key(const char *key)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */

    for (; *key != '\0'; ++key)
        hash = (hash ^ (unsigned char)*key) * UINT64_C(1099511628211);
    return hash;
}

/* Reads the count, and adds `step` to it. */
static uint64_t instance_count(const struct iris_bootstrap_options *options, uint64_t step)
{
    const uint64_t key = hash_key(options->run_key);
    struct instance *entry;
    uint64_t count = 0;

    pthread_mutex_lock(&instances_lock);
    for (entry = instances; entry != NULL; entry = entry->next)
        if (entry->key == key && entry->rank == options->rank)
            break;
    if (entry == NULL && (entry = calloc(1, sizeof *entry)) != NULL) {
        entry->key = key;
        entry->rank = options->rank;
        entry->next = instances;
        instances = entry;
    }
    if (entry != NULL) {
        count = entry->count;
        entry->count += step;
    }
    pthread_mutex_unlock(&instances_lock);
    return count;
}

/* ---- time and addresses ---- */

static int milliseconds_until(uint64_t deadline)
{
    const uint64_t now = iris_clock_ns();
    const uint64_t left = deadline > now ? (deadline - now) / 1000000 + 1 : 0;

    return left > 1000000 ? 1000000 : (int)left;
}

/* Whether there is something to read or to accept before the deadline. */
static bool wait_readable(int socket, uint64_t deadline)
{
    struct pollfd p = {.fd = socket, .events = POLLIN};

    for (;;) {
        const int ready = poll(&p, 1, milliseconds_until(deadline));
        if (ready > 0)
            return true;
        if ((ready < 0 && errno != EINTR) || iris_clock_ns() >= deadline)
            return false;
    }
}

static void sleep_ms(long ms)
{
    const struct timespec nap = {0, ms * 1000000};

    (void)nanosleep(&nap, NULL);
}

static socklen_t make_address(const char *run_key, struct sockaddr_un *address)
{
    int length;

    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    /* A leading zero byte: the abstract name space. */
    length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "iris_c/%u/%016llx",
                      (unsigned)geteuid(), (unsigned long long)hash_key(run_key));
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static bool is_same_user(int socket)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           peer.uid == geteuid();
}

/* ---- rank 0 ---- */

struct meeting {
    const struct iris_bootstrap_options *options;
    void *scratch;
    int *sockets;
    uint64_t instance;
    uint64_t deadline;
    /* Rank 0: */
    char rejection[256]; /* not empty: the meeting has failed */
    int num_rejected;    /* ranks that have been told so */
    /* The others: */
    bool was_early; /* rank 0 was met, but for another instance */
};

/* After a failed meeting, for ranks that are still on their way and shall hear the reason, too. */
static const uint64_t LINGER_NS = UINT64_C(5000000000);

static enum iris_status listen_as_hub(const struct meeting *m, int *out)
{
    struct sockaddr_un address;
    const socklen_t length = make_address(m->options->run_key, &address);
    const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (listener < 0)
        return IRIS_FAIL(IRIS_EDRIVER, "socket(AF_UNIX): %s", strerror(errno));
    while (bind(listener, (struct sockaddr *)&address, length) != 0) {
        if (errno != EADDRINUSE || iris_clock_ns() > m->deadline) {
            const int error = errno;
            close(listener);
            if (error != EADDRINUSE)
                return IRIS_FAIL(IRIS_EDRIVER, "bind of the meeting socket: %s", strerror(error));
            return IRIS_FAIL(IRIS_EPEER,
                             "init: another rank 0 of run '%s' is meeting on this machine; give "
                             "runs that overlap different MASTER_PORTs or TORCHELASTIC_RUN_IDs",
                             m->options->run_key);
        }
        sleep_ms(5);
    }
    if (listen(listener, 64) != 0) {
        const int error = errno;
        close(listener);
        return IRIS_FAIL(IRIS_EDRIVER, "listen on the meeting socket: %s", strerror(error));
    }
    *out = listener;
    return IRIS_OK;
}

static void send_simple(int socket, enum iris_wire_type type, int rank, const char *text)
{
    struct iris_wire_header header = {.type = type, .rank = rank, .nbytes = (uint32_t)strlen(text)};

    (void)iris_wire_send(socket, &header, text, NULL, 0);
}

static bool has_hung_up(int socket)
{
    struct pollfd p = {.fd = socket, .events = POLLIN};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

/* Fills m->rejection if `hello` of `rank` makes the meeting fail. */
static void judge(struct meeting *m, int rank, const struct iris_wire_hello *hello)
{
    const int world_size = m->options->world_size;

    if (hello->version != IRIS_WIRE_VERSION)
        (void)snprintf(m->rejection, sizeof m->rejection,
                       "init: rank %d runs another version of iris_c", rank);
    else if (hello->world_size != world_size)
        (void)snprintf(m->rejection, sizeof m->rejection,
                       "world_size: expected the same on all ranks, got %d on rank 0 and %d on "
                       "rank %d",
                       world_size, hello->world_size, rank);
    else if (rank < 1 || rank >= world_size)
        (void)snprintf(m->rejection, sizeof m->rejection, "rank: expected 1 to %d, got %d",
                       world_size - 1, rank);
    else if (m->sockets[rank] >= 0 && !has_hung_up(m->sockets[rank]))
        (void)snprintf(m->rejection, sizeof m->rejection,
                       "rank: expected different ranks in all processes, got rank %d twice", rank);
}

/* Admits the connection, turns it away, or finds the reason why the meeting fails. Owns `socket`.
 */
static void admit(struct meeting *m, int socket)
{
    const struct timeval patience = {.tv_sec = 2};
    struct iris_wire_message message;
    const struct iris_wire_hello *hello = m->scratch;
    int rank;

    /* A peer says hello at once; one that does not must not hold up the others for long. */
    (void)setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!is_same_user(socket) || iris_wire_receive(socket, &message, m->scratch) != IRIS_WIRE_OK)
        goto drop;
    iris_bootstrap_close_fds(message.fds, message.num_fds);
    if (message.header.type != IRIS_WIRE_HELLO || message.header.nbytes != sizeof *hello)
        goto drop;
    rank = message.header.rank;
    if (hello->version == IRIS_WIRE_VERSION && hello->instance != m->instance) {
        send_simple(socket, IRIS_WIRE_RETRY, -1, "");
        goto drop;
    }
    if (m->rejection[0] == '\0')
        judge(m, rank, hello);
    if (m->rejection[0] != '\0') {
        send_simple(socket, IRIS_WIRE_REJECT, -1, m->rejection);
        ++m->num_rejected;
        goto drop;
    }
    iris_bootstrap_close_fds(&m->sockets[rank], 1);
    m->sockets[rank] = socket;
    return;
drop:
    close(socket);
}

/* Takes the next connection, if one comes before the deadline. */
static bool admit_next(struct meeting *m, int listener, uint64_t deadline)
{
    int socket;

    if (!wait_readable(listener, deadline))
        return false;
    socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (socket >= 0)
        admit(m, socket);
    else if (errno == EMFILE || errno == ENFILE)
        sleep_ms(5); /* the connection stays readable; another thread may close something */
    return true;
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

/* Returns how many there were to be told. */
static int tell_all(const struct meeting *m, enum iris_wire_type type, int rank, const char *text)
{
    int count = 0;

    for (int peer = 1; peer < m->options->world_size; ++peer) {
        if (m->sockets[peer] < 0)
            continue;
        send_simple(m->sockets[peer], type, rank, text);
        ++count;
    }
    return count;
}

/* The meeting has failed by disagreement: sees to it that as many as should have come know why. */
static void reject_the_rest(struct meeting *m, int listener)
{
    const uint64_t until = iris_clock_ns() + LINGER_NS;
    const uint64_t deadline = until < m->deadline ? until : m->deadline;

    m->num_rejected += tell_all(m, IRIS_WIRE_REJECT, -1, m->rejection);
    while (m->num_rejected < m->options->world_size - 1)
        if (!admit_next(m, listener, deadline))
            return;
}

static enum iris_status meet_as_hub(struct meeting *m)
{
    char missing[96];
    int listener = -1;

    IRIS_TRY(listen_as_hub(m, &listener));
    while (m->rejection[0] == '\0' && count_missing(m, missing, sizeof missing) > 0)
        if (!admit_next(m, listener, m->deadline))
            break;
    if (m->rejection[0] != '\0')
        reject_the_rest(m, listener);
    close(listener);
    if (m->rejection[0] != '\0')
        return IRIS_FAIL(IRIS_EINVAL, "%s", m->rejection);
    if (count_missing(m, missing, sizeof missing) > 0) {
        (void)snprintf(m->rejection, sizeof m->rejection,
                       "init: rank(s) %s did not arrive within %g s", missing,
                       (double)m->options->timeout_ns * 1e-9);
        (void)tell_all(m, IRIS_WIRE_FAREWELL, atoi(missing), m->rejection);
        IRIS_FAIL(IRIS_EPEER, "%s", m->rejection);
        iris_error_last()->rank = atoi(missing);
        return IRIS_EPEER;
    }
    (void)tell_all(m, IRIS_WIRE_WELCOME, -1, "");
    return IRIS_OK;
}

/* ---- the other ranks ---- */

/* One attempt: AGAIN asks for another. On IRIS_WIRE_OK *status says how the meeting ended. */
static enum iris_wire_result try_to_join(struct meeting *m, enum iris_status *status)
{
    const struct iris_wire_hello hello = {.version = IRIS_WIRE_VERSION,
                                          .world_size = m->options->world_size,
                                          .instance = m->instance};
    const struct iris_wire_header header = {
        .type = IRIS_WIRE_HELLO, .rank = m->options->rank, .nbytes = sizeof hello};
    struct iris_wire_message answer;
    struct sockaddr_un address;
    const socklen_t length = make_address(m->options->run_key, &address);
    char *text = m->scratch;
    const int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    *status = IRIS_OK;
    if (sock < 0) {
        *status = IRIS_FAIL(IRIS_EDRIVER, "socket(AF_UNIX): %s", strerror(errno));
        return IRIS_WIRE_OK;
    }
    if (connect(sock, (struct sockaddr *)&address, length) != 0 || !is_same_user(sock) ||
        iris_wire_send(sock, &header, &hello, NULL, 0) != IRIS_WIRE_OK ||
        !wait_readable(sock, m->deadline) ||
        iris_wire_receive(sock, &answer, m->scratch) != IRIS_WIRE_OK)
        goto again;
    iris_bootstrap_close_fds(answer.fds, answer.num_fds);
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
    default: /* RETRY */
        m->was_early = true;
        goto again;
    }
    close(sock);
    return IRIS_WIRE_OK;
again:
    close(sock);
    return IRIS_WIRE_AGAIN;
}

static enum iris_status meet_as_member(struct meeting *m)
{
    enum iris_status status = IRIS_OK;
    long nap = 1;

    while (try_to_join(m, &status) == IRIS_WIRE_AGAIN) {
        if (iris_clock_ns() >= m->deadline) {
            IRIS_FAIL(IRIS_EPEER, "init: rank 0 of run '%s' was not met within %g s%s",
                      m->options->run_key, (double)m->options->timeout_ns * 1e-9,
                      m->was_early ? "; it was meeting for another context of the run: do all "
                                     "ranks create the same contexts in the same order?"
                                   : "");
            iris_error_last()->rank = 0;
            return IRIS_EPEER;
        }
        sleep_ms(nap);
        nap = nap < 16 ? nap * 2 : 16;
    }
    return status;
}

enum iris_status iris_bootstrap_meet(const struct iris_bootstrap_options *options, void *scratch,
                                     int sockets[IRIS_MAX_RANKS])
{
    struct meeting m = {.options = options, .scratch = scratch, .sockets = sockets};
    enum iris_status status;

    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
        sockets[rank] = -1;
    m.instance = instance_count(options, 0);
    /* A second more for members: the hub says who is missing when its own time is up. */
    m.deadline = iris_clock_ns() + options->timeout_ns + (options->rank == 0 ? 0 : 1000000000u);
    status = options->rank == 0 ? meet_as_hub(&m) : meet_as_member(&m);
    if (status == IRIS_OK) {
        (void)instance_count(options, 1);
        return IRIS_OK;
    }
    iris_bootstrap_close_fds(sockets, IRIS_MAX_RANKS);
    return status;
}
