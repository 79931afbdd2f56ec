/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The bootstrap alone: meeting, collectives, and every way in which a rank can fail the others.
 *
 * Ranks are threads of one process where nobody dies, so that the sanitizers see all of them, and
 * forked processes where somebody is killed or stopped. After each test the process must have as
 * many open descriptors and threads as before. A test that takes too long is reported as a
 * possible deadlock.
 *
 * Build (from the repository's root; add -fsanitize=thread or -fsanitize=address,undefined):
 *     cc -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -pthread -o test_bootstrap
 *         tests/native/test_bootstrap.c $(find csrc/base csrc/runtime/bootstrap -name '*.c')
 * Run: test_bootstrap [names of tests ...]      default: all
 *      test_bootstrap latency                   microseconds per barrier instead
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/abi/abi.h"
#include "runtime/bootstrap/bootstrap.h"

/* In shared memory, so that forked ranks count and report too. */
struct shared {
    atomic_int failures;
    atomic_int ready;  /* ranks that have come to the point where the victim may fall */
    atomic_llong fell; /* when it fell, in nanoseconds */
};

static struct shared *shared;
static const char *test_name = "";

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            char check_text[2048];                                                                 \
            (void)snprintf(check_text, sizeof check_text, __VA_ARGS__);                            \
            fprintf(stderr, "FAIL %s, line %d: %s: %s\n", test_name, __LINE__, #condition,         \
                    check_text);                                                                   \
            atomic_fetch_add(&shared->failures, 1);                                                \
        }                                                                                          \
    } while (0)

#define MUST(call) CHECK((call) == IRIS_OK, "%s", iris_error_last()->message)

enum { MS = 1000000 };
static const uint64_t LONG = UINT64_C(20000) * MS;

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_ms(int ms)
{
    struct timespec left = {ms / 1000, (long)(ms % 1000) * MS};

    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

/* ---- ranks ---- */

struct rank {
    int rank, world;
    const char *key;
    uint64_t timeout_ns;
    void (*body)(struct rank *self);
    struct iris_bootstrap *bootstrap;
    atomic_int left[IRIS_MAX_RANKS], died[IRIS_MAX_RANKS]; /* calls of on_departure */
    atomic_bool linger; /* on_departure returns only when this is false */
    /* What the call under test gave: */
    enum iris_status status;
    struct iris_error error;
    uint64_t took_ns;
    pthread_t thread;
    pid_t pid;
};

static void count_departure(void *arg, int rank, enum iris_departure departure)
{
    struct rank *self = arg;

    atomic_fetch_add(departure == IRIS_PEER_LEFT ? &self->left[rank] : &self->died[rank], 1);
    while (atomic_load(&self->linger))
        sleep_ms(1);
}

static enum iris_status create(struct rank *self)
{
    const struct iris_bootstrap_options options = {.run_key = self->key,
                                                   .rank = self->rank,
                                                   .world_size = self->world,
                                                   .timeout_ns = self->timeout_ns,
                                                   .on_departure = count_departure,
                                                   .on_departure_arg = self};

    self->bootstrap = NULL;
    return iris_bootstrap_create(&options, &self->bootstrap);
}

/* Keeps what `status` came with, for the comparison between ranks. */
static void note(struct rank *self, enum iris_status status, uint64_t since)
{
    self->status = status;
    self->error = *iris_error_last();
    self->took_ns = now_ns() - since;
}

static void note_create(struct rank *self)
{
    const uint64_t start = now_ns();

    note(self, create(self), start);
}

static void note_barrier(struct rank *self, const char *name)
{
    const uint64_t start = now_ns();

    note(self, iris_bootstrap_barrier(self->bootstrap, name), start);
}

static void check_error(const struct rank *self, enum iris_status status, int rank,
                        const char *part)
{
    CHECK(self->status == status, "rank %d got %d, wanted %d: %s", self->rank, self->status, status,
          self->error.message);
    if (self->status != status)
        return;
    CHECK(strstr(self->error.message, part) != NULL, "rank %d: '%s' lacks '%s'", self->rank,
          self->error.message, part);
    CHECK(status != IRIS_EPEER || self->error.rank == rank, "rank %d names %d, wanted %d",
          self->rank, self->error.rank, rank);
}

static void *thread_main(void *arg)
{
    struct rank *self = arg;

    self->body(self);
    return NULL;
}

static char *fresh_key(void)
{
    static char key[64];
    static int count;

    (void)snprintf(key, sizeof key, "test_bootstrap %d %d", (int)getpid(), ++count);
    return key;
}

static void make_ranks(struct rank *ranks, int world, uint64_t timeout_ns,
                       void (*body)(struct rank *self))
{
    const char *key = fresh_key();

    memset(ranks, 0, sizeof *ranks * (size_t)world);
    for (int rank = 0; rank < world; ++rank) {
        ranks[rank].rank = rank;
        ranks[rank].world = world;
        ranks[rank].key = key;
        ranks[rank].timeout_ns = timeout_ns;
        ranks[rank].body = body;
    }
}

static void run_threads(struct rank *ranks, int count)
{
    for (int i = 0; i < count; ++i)
        if (pthread_create(&ranks[i].thread, NULL, thread_main, &ranks[i]) != 0)
            abort();
    for (int i = 0; i < count; ++i)
        pthread_join(ranks[i].thread, NULL);
}

static void run(struct rank *ranks, int world, uint64_t timeout_ns, void (*body)(struct rank *self))
{
    make_ranks(ranks, world, timeout_ns, body);
    run_threads(ranks, world);
}

static void start_processes(struct rank *ranks, int world)
{
    atomic_store(&shared->ready, 0);
    for (int i = 0; i < world; ++i) {
        ranks[i].pid = fork();
        if (ranks[i].pid == 0) {
            ranks[i].body(&ranks[i]);
            iris_bootstrap_destroy(ranks[i].bootstrap);
            _exit(0);
        }
    }
    while (atomic_load(&shared->ready) < world)
        sleep_ms(1);
}

static void join_processes(const struct rank *ranks, int world, int killed)
{
    for (int i = 0; i < world; ++i) {
        int status = 0;
        while (waitpid(ranks[i].pid, &status, 0) < 0 && errno == EINTR)
            ;
        CHECK(i == killed ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0,
              "rank %d ended with wait status %#x", i, (unsigned)status);
    }
}

/* ---- what works ---- */

static unsigned char pattern(int rank, size_t index, unsigned seed)
{
    return (unsigned char)((index * 2654435761u + (unsigned)rank * 40503u + seed * 69069u) >> 9);
}

static void gather(struct rank *self, size_t nbytes, unsigned seed)
{
    unsigned char *in = malloc(nbytes + 1), *out = malloc(nbytes * (size_t)self->world + 1);
    size_t wrong = 0;

    for (size_t i = 0; i < nbytes; ++i)
        in[i] = pattern(self->rank, i, seed);
    MUST(iris_bootstrap_all_gather(self->bootstrap, "gather", in, nbytes, out));
    for (int rank = 0; rank < self->world; ++rank)
        for (size_t i = 0; i < nbytes; ++i)
            wrong += out[(size_t)rank * nbytes + i] != pattern(rank, i, seed);
    CHECK(wrong == 0, "%zu bytes wrong of %d x %zu", wrong, self->world, nbytes);
    free(in);
    free(out);
}

static void exchange(struct rank *self)
{
    int fds[IRIS_MAX_RANKS];
    int64_t values[IRIS_MAX_RANKS] = {0};
    const int own = memfd_create("test", MFD_CLOEXEC);

    CHECK(own >= 0 && ftruncate(own, sizeof values) == 0, "memfd: errno %d", errno);
    MUST(iris_bootstrap_exchange_fds(self->bootstrap, "exchange", own, fds));
    for (int peer = 0; peer < self->world; ++peer) {
        const int64_t value = 1000 * self->rank + peer;
        CHECK((fds[peer] < 0) == (peer == self->rank), "fds[%d] is %d", peer, fds[peer]);
        if (peer == self->rank)
            continue;
        CHECK((fcntl(fds[peer], F_GETFD) & FD_CLOEXEC) != 0, "fds[%d] survives exec", peer);
        CHECK(pwrite(fds[peer], &value, sizeof value, self->rank * 8) == 8, "errno %d", errno);
        close(fds[peer]);
    }
    MUST(iris_bootstrap_barrier(self->bootstrap, "written"));
    CHECK(pread(own, values, sizeof values, 0) == sizeof values, "errno %d", errno);
    for (int peer = 0; peer < self->world; ++peer)
        CHECK(values[peer] == (peer == self->rank ? 0 : 1000 * peer + self->rank),
              "rank %d wrote %lld", peer, (long long)values[peer]);
    close(own);
}

static void check_only_farewells(const struct rank *self)
{
    for (int peer = 0; peer < self->world; ++peer)
        CHECK(self->died[peer] == 0 && self->left[peer] <= 1, "rank %d: peer %d died %d, left %d",
              self->rank, peer, self->died[peer], self->left[peer]);
}

static void body_everything(struct rank *self)
{
    static const size_t sizes[] = {0, 1, 13, 4096, IRIS_BOOTSTRAP_MAX_BYTES};
    enum iris_departure departure;
    const int same = 42;
    int64_t maximum = 0;
    bool equal = false;
    char byte = 0;

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    for (unsigned i = 0; i < 25; ++i)
        gather(self, sizes[i % 5], i);
    MUST(iris_bootstrap_agree(self->bootstrap, "same", &same, sizeof same, -7 - self->rank, &equal,
                              &maximum));
    CHECK(equal && maximum == -7, "equal %d, maximum %lld", equal, (long long)maximum);
    MUST(iris_bootstrap_agree(self->bootstrap, "differ", &self->rank, sizeof self->rank, self->rank,
                              &equal, NULL));
    CHECK(equal == (self->world == 1), "equal %d", equal);
    MUST(iris_bootstrap_agree(self->bootstrap, "no bytes", NULL, 0, self->rank, NULL, &maximum));
    CHECK(maximum == self->world - 1, "maximum %lld", (long long)maximum);
    exchange(self);
    note(self,
         iris_bootstrap_all_gather(self->bootstrap, "big", &byte, IRIS_BOOTSTRAP_MAX_BYTES + 1,
                                   &byte),
         0);
    check_error(self, IRIS_EINVAL, -1, "8193");
    CHECK(iris_bootstrap_departed_rank(self->bootstrap, &departure) == -1, "nobody has left");
    MUST(iris_bootstrap_barrier(self->bootstrap, "end"));
    iris_bootstrap_destroy(self->bootstrap);
    check_only_farewells(self);
}

static void test_meeting(void)
{
    static const int worlds[] = {1, 2, 3, 4, 8, IRIS_MAX_RANKS};
    struct rank ranks[IRIS_MAX_RANKS];

    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; ++i)
        run(ranks, worlds[i], LONG, body_everything);
}

/* Nothing but the barrier keeps the ranks together: some leave while others are still in it. */
static void body_cycles(struct rank *self)
{
    for (int cycle = 0; cycle < 200; ++cycle) {
        MUST(create(self));
        if (self->bootstrap == NULL)
            return;
        MUST(iris_bootstrap_barrier(self->bootstrap, "cycle"));
        iris_bootstrap_destroy(self->bootstrap);
        check_only_farewells(self);
        for (int peer = 0; peer < self->world; ++peer)
            atomic_store(&self->left[peer], 0);
    }
}

static void test_cycles(void)
{
    struct rank ranks[4];

    run(ranks, 2, LONG, body_cycles);
    run(ranks, 4, LONG, body_cycles);
}

static void body_side_by_side(struct rank *self)
{
    struct rank first = *self, second = *self;

    /* Rank 2 is late: rank 1 has the first context's hello waiting, others come for the second
     * only when the first has met. */
    if (self->rank == 2)
        sleep_ms(50);
    MUST(create(&first));
    MUST(create(&second));
    for (unsigned i = 0; i < 20; ++i) {
        gather(&first, 8, i);
        gather(&second, 16, i);
    }
    exchange(&second);
    iris_bootstrap_destroy(self->rank == 1 ? second.bootstrap : first.bootstrap);
    iris_bootstrap_destroy(self->rank == 1 ? first.bootstrap : second.bootstrap);
    check_only_farewells(&first);
    check_only_farewells(&second);
}

static void test_side_by_side(void)
{
    struct rank ranks[3];

    run(ranks, 3, LONG, body_side_by_side);
}

static void ignore_signal(int signal)
{
    (void)signal;
}

static void body_interrupted(struct rank *self)
{
    sleep_ms(80 * (self->world - 1 - self->rank)); /* the last rank waits longest for the hub */
    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    for (unsigned i = 0; i < 200; ++i)
        gather(self, 64, i);
    exchange(self);
    iris_bootstrap_destroy(self->bootstrap);
    check_only_farewells(self);
}

/* Signals without SA_RESTART, a thousand a second, to every rank's thread. */
static void test_interrupted(void)
{
    const struct sigaction action = {.sa_handler = ignore_signal};
    struct rank ranks[3];

    sigaction(SIGUSR1, &action, NULL);
    make_ranks(ranks, 3, LONG, body_interrupted);
    for (int i = 0; i < 3; ++i)
        if (pthread_create(&ranks[i].thread, NULL, thread_main, &ranks[i]) != 0)
            abort();
    for (int i = 0; i < 250; ++i) {
        for (int rank = 0; rank < 3; ++rank)
            pthread_kill(ranks[rank].thread, SIGUSR1);
        sleep_ms(1);
    }
    for (int i = 0; i < 3; ++i)
        pthread_join(ranks[i].thread, NULL);
}

/* ---- ranks that disagree ---- */

static void check_same_message(const struct rank *ranks, int count)
{
    for (int i = 1; i < count; ++i)
        CHECK(strcmp(ranks[i].error.message, ranks[0].error.message) == 0, "'%s' and '%s'",
              ranks[i].error.message, ranks[0].error.message);
}

static void body_mismatch(struct rank *self)
{
    char bytes[4 * 64] = {0};
    int fds[4];

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    note_barrier(self, self->rank == 1 ? "apple" : "pear");
    check_error(self, IRIS_EINVAL, -1, "apple");
    check_error(self, IRIS_EINVAL, -1, "pear");
    check_error(self, IRIS_EINVAL, -1, "rank 1");
    MUST(iris_bootstrap_barrier(self->bootstrap, "usable"));

    note(
        self,
        iris_bootstrap_all_gather(self->bootstrap, "size", bytes, self->rank == 2 ? 48 : 64, bytes),
        0);
    check_error(self, IRIS_EINVAL, -1, "48");
    check_error(self, IRIS_EINVAL, -1, "64");
    gather(self, 32, 1);

    if (self->rank == 0)
        note_barrier(self, "kind");
    else
        note(self, iris_bootstrap_exchange_fds(self->bootstrap, "kind", STDERR_FILENO, fds), 0);
    check_error(self, IRIS_EINVAL, -1, "descriptor");
    exchange(self);
    iris_bootstrap_destroy(self->bootstrap);
    check_only_farewells(self);
}

static void test_mismatch(void)
{
    struct rank ranks[3];

    run(ranks, 3, LONG, body_mismatch);
    check_same_message(ranks, 3);
}

static void test_duplicate_rank(void)
{
    struct rank ranks[3];

    make_ranks(ranks, 3, LONG, note_create);
    ranks[2].rank = 1;
    run_threads(ranks, 3);
    for (int i = 0; i < 3; ++i)
        check_error(&ranks[i], IRIS_EINVAL, -1, "rank 1");
    check_same_message(ranks, 3);
}

static void body_late_last(struct rank *self)
{
    if (self->rank == 3)
        sleep_ms(300);
    note_create(self);
}

/* The last rank comes when the meeting has already failed, and must learn why. */
static void test_world_size(void)
{
    struct rank ranks[4];

    make_ranks(ranks, 4, LONG, body_late_last);
    ranks[1].world = 5;
    run_threads(ranks, 4);
    for (int i = 0; i < 4; ++i) {
        check_error(&ranks[i], IRIS_EINVAL, -1, "world_size");
        check_error(&ranks[i], IRIS_EINVAL, -1, "4 on rank 0 and 5 on rank 1");
        CHECK(ranks[i].took_ns < UINT64_C(3000) * MS, "took %g s", (double)ranks[i].took_ns * 1e-9);
    }
    check_same_message(ranks, 4);
}

static void test_options(void)
{
    struct rank ranks[1];

    for (int i = 0; i < 5; ++i) {
        static const int worlds[] = {0, IRIS_MAX_RANKS + 1, 2, 2, 2};
        static const int own[] = {0, 0, 2, -1, 0};
        make_ranks(ranks, 1, LONG, note_create);
        ranks[0].world = worlds[i];
        ranks[0].rank = own[i];
        ranks[0].key = i == 4 ? NULL : ranks[0].key;
        note_create(ranks);
        check_error(ranks, IRIS_EINVAL, -1, i < 2 ? "world_size" : i < 4 ? "rank" : "run_key");
    }
}

/* ---- ranks that do not come ---- */

static void body_absent(struct rank *self)
{
    sleep_ms(self->timeout_ns < 200 * MS ? 50 : 0);
    note_create(self);
}

static void test_missing_rank(void)
{
    struct rank ranks[4];

    make_ranks(ranks, 4, 300 * MS, body_absent);
    run_threads(ranks, 3);
    for (int i = 0; i < 3; ++i)
        check_error(&ranks[i], IRIS_EPEER, 3, "rank(s) 3 did not arrive within 0.3 s");
}

static void test_missing_hub(void)
{
    struct rank ranks[3];

    make_ranks(ranks, 3, 300 * MS, body_absent);
    run_threads(ranks + 1, 2);
    for (int i = 1; i < 3; ++i)
        check_error(&ranks[i], IRIS_EPEER, 0, "rank 0");
}

static void test_two_hubs(void)
{
    struct rank ranks[2];

    make_ranks(ranks, 2, 300 * MS, body_absent);
    ranks[1].rank = 0;
    ranks[1].timeout_ns = 100 * MS;
    run_threads(ranks, 2);
    check_error(&ranks[0], IRIS_EPEER, 1, "rank(s) 1 did not arrive");
    check_error(&ranks[1], IRIS_EPEER, -1, "another rank 0");
}

static int absentee;

static void body_late(struct rank *self)
{
    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    MUST(iris_bootstrap_barrier(self->bootstrap, "start"));
    if (self->rank == absentee)
        sleep_ms(700);
    for (int i = 0; i < 3; ++i) { /* broken for good, and later calls fail at once */
        char wanted[64];
        (void)snprintf(wanted, sizeof wanted, "rank(s) %d did not arrive at 'late' within 0.4 s",
                       absentee);
        note_barrier(self, i == 0 ? "late" : "later");
        check_error(self, IRIS_EPEER, absentee, wanted);
        CHECK((i == 0 && self->rank != absentee) || self->took_ns < 200 * MS, "took %g s",
              (double)self->took_ns * 1e-9);
    }
    /* Nobody may leave while others still want to hear of the timeout. */
    sleep_ms(self->rank == absentee ? 0 : 700);
    iris_bootstrap_destroy(self->bootstrap);
}

static void test_late_rank(void)
{
    struct rank ranks[3];

    for (absentee = 0; absentee < 3; ++absentee)
        run(ranks, 3, 400 * MS, body_late);
}

/* ---- ranks that leave ---- */

static int leaver;

static void body_leave(struct rank *self)
{
    enum iris_departure departure = IRIS_PEER_DIED;
    char wanted[64];

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    MUST(iris_bootstrap_barrier(self->bootstrap, "start"));
    if (self->rank != leaver) {
        (void)snprintf(wanted, sizeof wanted, "rank %d closed its context", leaver);
        for (int i = 0; i < 3; ++i) {
            if (i == 1)
                sleep_ms(50 * self->rank); /* at a failed collective, ranks come apart */
            note_barrier(self, "left");
            check_error(self, IRIS_EPEER, leaver, wanted);
        }
        CHECK(iris_bootstrap_departed_rank(self->bootstrap, &departure) == leaver &&
                  departure == IRIS_PEER_LEFT,
              "departure %d", departure);
        sleep_ms(300);
        CHECK(self->left[leaver] == 1, "told %d times", self->left[leaver]);
    } else {
        sleep_ms(50);
    }
    iris_bootstrap_destroy(self->bootstrap);
    check_only_farewells(self);
}

static void test_leave(void)
{
    struct rank ranks[3];

    for (leaver = 0; leaver < 3; ++leaver)
        run(ranks, 3, LONG, body_leave);
}

/* Rank 2 leaves, the hub leaves because of it, and rank 1 comes to the next collective after that:
 * it must hear of rank 2. */
static void body_follow(struct rank *self)
{
    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    MUST(iris_bootstrap_barrier(self->bootstrap, "start"));
    sleep_ms(self->rank == 1 ? 200 : 0);
    if (self->rank != 2) {
        note_barrier(self, "follow");
        check_error(self, IRIS_EPEER, 2, "rank 2 closed its context");
    }
    iris_bootstrap_destroy(self->bootstrap);
}

static void test_follow(void)
{
    struct rank ranks[3];

    run(ranks, 3, LONG, body_follow);
}

/* Rank 1 leaves while its monitor is busy with rank 4's farewell and those of ranks 3 and 2 lie
 * unread: no reason to be taken for dead. */
static void body_unread(struct rank *self)
{
    static const int leave_after_ms[] = {400, 250, 150, 100, 50};

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    atomic_store(&self->linger, self->rank == 1);
    sleep_ms(leave_after_ms[self->rank]);
    if (self->rank == 0) {
        atomic_store(&self[1].linger, false);
        sleep_ms(200);
    }
    iris_bootstrap_destroy(self->bootstrap);
    check_only_farewells(self);
    CHECK(self->rank > 0 || self->left[1] == 1, "rank 0 heard %d farewells", self->left[1]);
}

static void test_unread(void)
{
    struct rank ranks[5];

    run(ranks, 5, LONG, body_unread);
}

/* ---- ranks that die ---- */

static int victim;
static bool in_collective;

static void wait_for_fall(struct rank *self)
{
    const uint64_t until = now_ns() + LONG;

    while (atomic_load(&self->died[victim]) == 0 && now_ns() < until)
        sleep_ms(1);
}

static void body_killed(struct rank *self)
{
    char wanted[64];
    uint64_t noticed;

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    MUST(iris_bootstrap_barrier(self->bootstrap, "start"));
    atomic_fetch_add(&shared->ready, 1);
    if (self->rank == victim)
        for (;;)
            pause();
    if (in_collective)
        note_barrier(self, "waiting");
    else
        wait_for_fall(self);
    noticed = now_ns();
    CHECK(noticed - (uint64_t)atomic_load(&shared->fell) < UINT64_C(1000) * MS,
          "noticed after %g s", (double)(noticed - (uint64_t)atomic_load(&shared->fell)) * 1e-9);
    (void)snprintf(wanted, sizeof wanted, "rank %d died", victim);
    for (int i = 0; i < 3; ++i) {
        note_barrier(self, "again");
        check_error(self, IRIS_EPEER, victim, wanted);
    }
    wait_for_fall(self);
    /* Nobody leaves before all have seen the death. */
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->ready) < 2 * self->world - 1)
        sleep_ms(1);
    CHECK(self->died[victim] == 1 && self->left[victim] == 0, "told %d times", self->died[victim]);
}

static void test_killed(void)
{
    struct rank ranks[3];

    for (int variant = 0; variant < 6; ++variant) {
        victim = variant % 3;
        in_collective = variant < 3;
        make_ranks(ranks, 3, LONG, body_killed);
        start_processes(ranks, 3);
        sleep_ms(100);
        atomic_store(&shared->fell, (long long)now_ns());
        kill(ranks[victim].pid, SIGKILL);
        join_processes(ranks, 3, victim);
    }
}

static void body_stopped(struct rank *self)
{
    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    MUST(iris_bootstrap_barrier(self->bootstrap, "start"));
    atomic_fetch_add(&shared->ready, 1);
    if (self->rank == victim)
        for (;;)
            pause();
    sleep_ms(200);
    note_barrier(self, "stopped");
    check_error(self, IRIS_EPEER, victim, "within 0.5 s");
    CHECK(self->took_ns < UINT64_C(2500) * MS, "took %g s", (double)self->took_ns * 1e-9);
    sleep_ms(200);
    note_barrier(self, "again");
    check_error(self, IRIS_EPEER, victim, "within 0.5 s");
}

static void test_stopped(void)
{
    struct rank ranks[3];

    for (victim = 0; victim < 2; ++victim) {
        make_ranks(ranks, 3, 500 * MS, body_stopped);
        start_processes(ranks, 3);
        kill(ranks[victim].pid, SIGSTOP);
        sleep_ms(2800);
        kill(ranks[victim].pid, SIGKILL);
        join_processes(ranks, 3, victim);
    }
}

static void body_short(struct rank *self)
{
    MUST(create(self));
    iris_bootstrap_destroy(self->bootstrap);
}

static void body_second(struct rank *self)
{
    atomic_store(&self->left[1 - self->rank], 0);
    sleep_ms(self->rank == 1 ? 300 : 0); /* rank 0 is alone with the stale one first */
    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    gather(self, 8, 1);
    iris_bootstrap_destroy(self->bootstrap);
    check_only_farewells(self);
}

/* A process that has missed the first context knocks at the second as rank 1: it is kept off, and
 * does not disturb. */
static void body_stale(struct rank *self)
{
    while (atomic_load(&shared->ready) < 2)
        sleep_ms(1);
    note_create(self);
    check_error(self, IRIS_EPEER, 0, "another context of the run");
}

static void test_stale(void)
{
    struct rank ranks[2], stale[1];

    make_ranks(ranks, 2, LONG, body_short);
    stale[0] = ranks[1];
    stale[0].timeout_ns = 600 * MS;
    stale[0].body = body_stale;
    atomic_store(&shared->ready, 1);
    stale[0].pid = fork();
    if (stale[0].pid == 0) {
        body_stale(stale);
        _exit(0);
    }
    run_threads(ranks, 2);
    ranks[0].body = ranks[1].body = body_second;
    atomic_store(&shared->ready, 2);
    run_threads(ranks, 2);
    join_processes(stale, 1, -1);
}

static int count_entries(const char *path)
{
    DIR *const folder = opendir(path);
    int count = 0;

    while (folder != NULL && readdir(folder) != NULL)
        ++count;
    if (folder != NULL)
        closedir(folder);
    return count;
}

/* Rank 1 forks a child that outlives it: the others must not wait for the child. */
static void body_forks(struct rank *self)
{
    const int before = count_entries("/proc/self/fd");

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    if (self->rank == 1) {
        int ends[2];
        char byte = 0;
        pid_t child;

        CHECK(pipe(ends) == 0, "errno %d", errno);
        child = fork();
        if (child == 0) {
            close(ends[0]);
            CHECK(count_entries("/proc/self/fd") == before + 1, "%d descriptors, had %d",
                  count_entries("/proc/self/fd"), before);
            byte = 1;
            if (write(ends[1], &byte, 1) != 1)
                _exit(1);
            sleep_ms(1500);
            _exit(0);
        }
        close(ends[1]);
        CHECK(read(ends[0], &byte, 1) == 1, "errno %d", errno);
    }
    gather(self, 100, 3); /* the child has not said farewell for its parent */
    atomic_fetch_add(&shared->ready, 1);
    if (self->rank == 1)
        for (;;)
            pause();
    note_barrier(self, "waiting");
    check_error(self, IRIS_EPEER, 1, "rank 1 died");
    CHECK(now_ns() - (uint64_t)atomic_load(&shared->fell) < UINT64_C(1000) * MS, "too late");
}

static void test_forks(void)
{
    struct rank ranks[2];

    victim = 1;
    make_ranks(ranks, 2, LONG, body_forks);
    start_processes(ranks, 2);
    atomic_store(&shared->fell, (long long)now_ns());
    kill(ranks[1].pid, SIGKILL);
    join_processes(ranks, 2, 1);
}

/* No descriptor is free to receive into: an error that says so, not a death. */
static void body_exhausted(struct rank *self)
{
    struct rlimit limit;
    int fds[3];

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (self->rank == victim) {
        const struct rlimit none = {3, limit.rlim_max};
        setrlimit(RLIMIT_NOFILE, &none);
    }
    note(self, iris_bootstrap_exchange_fds(self->bootstrap, "exchange", STDERR_FILENO, fds), 0);
    if (self->rank == victim || victim == 0)
        check_error(self, IRIS_EDRIVER, -1, "limit on open files");
    else
        for (int peer = 0; peer < 3 && self->status == IRIS_OK; ++peer)
            if (peer != self->rank)
                close(fds[peer]);
    setrlimit(RLIMIT_NOFILE, &limit);
    MUST(iris_bootstrap_barrier(self->bootstrap, "limit restored"));
    exchange(self);
    atomic_fetch_add(&shared->ready, 1);
}

static void test_exhausted(void)
{
    struct rank ranks[3];

    for (victim = 0; victim < 2; ++victim) {
        make_ranks(ranks, 3, LONG, body_exhausted);
        start_processes(ranks, 3);
        join_processes(ranks, 3, -1);
    }
}

/* ---- latency ---- */

static void body_latency(struct rank *self)
{
    enum { WARM_UP = 2000, CALLS = 20000 };
    uint64_t start = 0;

    MUST(create(self));
    if (self->bootstrap == NULL)
        return;
    for (int i = 0; i < WARM_UP + CALLS; ++i) {
        if (i == WARM_UP)
            start = now_ns();
        MUST(iris_bootstrap_barrier(self->bootstrap, "latency"));
    }
    if (self->rank == 0)
        printf("%d ranks: %.1f us per barrier\n", self->world,
               (double)(now_ns() - start) / 1e3 / CALLS);
    fflush(stdout);
    atomic_fetch_add(&shared->ready, 1);
}

static void measure_latency(void)
{
    struct rank ranks[4];

    for (int world = 2; world <= 4; world += 2) {
        for (int repeat = 0; repeat < 3; ++repeat) {
            make_ranks(ranks, world, LONG, body_latency);
            start_processes(ranks, world);
            join_processes(ranks, world, -1);
        }
    }
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"killed", test_killed},
    {"stopped", test_stopped},
    {"forks", test_forks},
    {"exhausted", test_exhausted},
    {"stale", test_stale},
    {"options", test_options},
    {"meeting", test_meeting},
    {"cycles", test_cycles},
    {"side_by_side", test_side_by_side},
    {"interrupted", test_interrupted},
    {"mismatch", test_mismatch},
    {"duplicate_rank", test_duplicate_rank},
    {"world_size", test_world_size},
    {"missing_rank", test_missing_rank},
    {"missing_hub", test_missing_hub},
    {"two_hubs", test_two_hubs},
    {"late_rank", test_late_rank},
    {"leave", test_leave},
    {"follow", test_follow},
    {"unread", test_unread},
};

static void do_nothing(struct rank *self)
{
    (void)self;
}

static void report_deadlock(int signal)
{
    ssize_t ignored = write(STDERR_FILENO, test_name, strlen(test_name));

    (void)signal;
    ignored = write(STDERR_FILENO, ": possible deadlock\n", 20);
    (void)ignored;
    _exit(1);
}

static bool is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; ++i)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    struct rank first[1];

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    signal(SIGALRM, report_deadlock);
    if (argc == 2 && strcmp(argv[1], "latency") == 0) {
        measure_latency();
        return atomic_load(&shared->failures) != 0;
    }
    run(first, 1, LONG, do_nothing); /* with it, a sanitizer starts a thread of its own */
    for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i) {
        const int failed = atomic_load(&shared->failures);
        const uint64_t start = now_ns();
        int fds, threads, patience = 1000;

        if (!is_wanted(tests[i].name, argc, argv))
            continue;
        test_name = tests[i].name;
        fds = count_entries("/proc/self/fd");
        threads = count_entries("/proc/self/task");
        alarm(60);
        tests[i].run();
        alarm(0);
        /* A thread that has been joined may take a moment more to vanish from /proc. */
        while (count_entries("/proc/self/task") != threads && --patience > 0)
            sleep_ms(1);
        CHECK(count_entries("/proc/self/fd") == fds, "%d open, %d before",
              count_entries("/proc/self/fd"), fds);
        CHECK(count_entries("/proc/self/task") == threads, "%d threads, %d before",
              count_entries("/proc/self/task"), threads);
        printf("%s: %s, %.1f s\n", tests[i].name,
               atomic_load(&shared->failures) == failed ? "ok" : "FAILED",
               (double)(now_ns() - start) * 1e-9);
        fflush(stdout);
    }
    return atomic_load(&shared->failures) != 0;
}
