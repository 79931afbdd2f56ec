/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The fork handlers, and the list of registered descriptors: a few for each context.
 */
#include "process.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* Recursive: who holds it may fork, as drivers do to run a helper. */
static const pthread_mutex_t unlocked = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_once_t handlers = PTHREAD_ONCE_INIT;
static atomic_ullong generation;
/* Under the lock: */
static int *registered;
static size_t count, room;

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

/* Only what may be called between fork and exec: the parent may have had other threads. */
static void after_fork_in_child(void)
{
    atomic_fetch_add(&generation, 1);
    for (size_t i = 0; i < count; ++i)
        (void)close(registered[i]);
    count = 0;
    lock = unlocked; /* its holder was a thread of the parent by number */
}

static void install_handlers(void)
{
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

uint64_t iris_process_generation(void)
{
    (void)pthread_once(&handlers, install_handlers);
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

void iris_process_lock(void)
{
    (void)pthread_once(&handlers, install_handlers);
    pthread_mutex_lock(&lock);
}

void iris_process_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

enum iris_status iris_process_register(int fd)
{
    if (count == room) {
        const size_t larger = room == 0 ? 64 : 2 * room;
        int *list = realloc(registered, larger * sizeof *list);

        if (list == NULL)
            return IRIS_FAIL(IRIS_ENOMEM, "host memory: %zu bytes could not be allocated",
                             larger * sizeof *list);
        registered = list;
        room = larger;
    }
    registered[count++] = fd;
    return IRIS_OK;
}

void iris_process_close(int *fd)
{
    const int closing = *fd;

    if (closing < 0)
        return;
    *fd = -1;
    iris_process_lock();
    for (size_t i = 0; i < count; ++i) {
        if (registered[i] != closing)
            continue;
        registered[i] = registered[--count];
        break;
    }
    (void)close(closing);
    iris_process_unlock();
}
