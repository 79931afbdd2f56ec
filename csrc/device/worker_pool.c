/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One mutex guards the pool. A run publishes its job under it, increments the generation and wakes
 * the workers; a worker runs its work-group without the lock and counts itself out under it.
 */
#include "worker_pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/wait.h"

struct worker {
    struct iris_worker_pool *pool;
    pthread_t thread;
    int32_t index; /* work-group it runs, >= 1 */
};

struct scratch {
    char *data;
    size_t nbytes;
};

struct iris_worker_pool {
    pthread_mutex_t run_lock; /* held through a run: one at a time */
    pthread_mutex_t lock;     /* guards what follows */
    pthread_cond_t job_ready;
    pthread_cond_t job_done;
    uint64_t generation; /* of the current job */
    iris_work work;
    const void *args;
    int32_t count;
    int32_t running; /* workers that have not finished the current job */
    int32_t stopping;
    int32_t workers;
    struct worker worker[IRIS_MAX_WORKERS];
    struct scratch scratch[IRIS_MAX_WORKERS];
};

static void *worker_main(void *arg)
{
    struct worker *self = arg;
    struct iris_worker_pool *pool = self->pool;
    uint64_t seen = 0;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stopping && pool->generation == seen)
            pthread_cond_wait(&pool->job_ready, &pool->lock);
        if (pool->stopping)
            break;
        seen = pool->generation;
        if (self->index >= pool->count)
            continue;
        const iris_work work = pool->work;
        const void *args = pool->args;
        const int32_t count = pool->count;
        pthread_mutex_unlock(&pool->lock);
        work(args, self->index, count, pool->scratch[self->index].data);
        pthread_mutex_lock(&pool->lock);
        if (--pool->running == 0)
            pthread_cond_signal(&pool->job_done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Signals are the business of the caller's threads. */
static int start_thread(struct worker *worker)
{
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static enum iris_status grow_workers(struct iris_worker_pool *pool, int32_t count)
{
    while (pool->workers < count - 1) {
        struct worker *worker = &pool->worker[pool->workers];
        worker->pool = pool;
        worker->index = pool->workers + 1;
        const int error = start_thread(worker);
        if (error != 0)
            return IRIS_FAIL(IRIS_EDRIVER, "worker thread %d of %d: %s", worker->index, count - 1,
                             strerror(error));
        ++pool->workers;
    }
    return IRIS_OK;
}

static enum iris_status grow_scratch(struct iris_worker_pool *pool, int32_t count, size_t nbytes)
{
    for (int32_t i = 0; i < count; ++i) {
        struct scratch *scratch = &pool->scratch[i];
        void *data = NULL;
        if (scratch->nbytes >= nbytes)
            continue;
        if (posix_memalign(&data, 64, nbytes) != 0)
            return IRIS_FAIL(IRIS_ENOMEM, "work-group scratch: %zu bytes could not be allocated",
                             nbytes);
        free(scratch->data);
        scratch->data = data;
        scratch->nbytes = nbytes;
    }
    return IRIS_OK;
}

/* Waits a slice of time for the workers; then asks the caller, without the lock. If the answer is
 * no, the abort word ends the workers' waits: they are still waited for. */
static void wait_slice(struct iris_worker_pool *pool)
{
    const uint64_t until = iris_clock_ns() + IRIS_WAIT_SLICE_MS * UINT64_C(1000000);
    const struct timespec slice = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};

    if (pthread_cond_timedwait(&pool->job_done, &pool->lock, &slice) != ETIMEDOUT)
        return;
    pthread_mutex_unlock(&pool->lock);
    (void)iris_wait_is_interrupted();
    pthread_mutex_lock(&pool->lock);
}

static void run_job(struct iris_worker_pool *pool, iris_work work, const void *args, int32_t count)
{
    if (count > 1) {
        pthread_mutex_lock(&pool->lock);
        pool->work = work;
        pool->args = args;
        pool->count = count;
        pool->running = count - 1;
        ++pool->generation;
        pthread_cond_broadcast(&pool->job_ready);
        pthread_mutex_unlock(&pool->lock);
    }
    work(args, 0, count, pool->scratch[0].data);
    if (count > 1) {
        pthread_mutex_lock(&pool->lock);
        while (pool->running > 0)
            wait_slice(pool);
        pthread_mutex_unlock(&pool->lock);
    }
}

enum iris_status iris_worker_pool_run(struct iris_worker_pool *pool, iris_work work,
                                      const void *args, int32_t count, size_t scratch_nbytes)
{
    enum iris_status status;

    if (count < 1 || count > IRIS_MAX_WORKERS)
        return IRIS_FAIL(IRIS_EINVAL, "work-groups: expected 1 to %d, got %d", IRIS_MAX_WORKERS,
                         count);
    pthread_mutex_lock(&pool->run_lock);
    status = grow_workers(pool, count);
    if (status == IRIS_OK)
        status = grow_scratch(pool, count, scratch_nbytes);
    if (status == IRIS_OK)
        run_job(pool, work, args, count);
    pthread_mutex_unlock(&pool->run_lock);
    return status;
}

enum iris_status iris_worker_pool_create(struct iris_worker_pool **out)
{
    struct iris_worker_pool *pool;
    pthread_condattr_t monotonic;

    IRIS_TRY(iris_alloc_zeroed(sizeof *pool, (void **)&pool));
    pthread_mutex_init(&pool->run_lock, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->job_ready, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->job_done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = pool;
    return IRIS_OK;
}

static void free_pool(struct iris_worker_pool *pool)
{
    for (int32_t i = 0; i < IRIS_MAX_WORKERS; ++i)
        free(pool->scratch[i].data);
    free(pool);
}

void iris_worker_pool_destroy(struct iris_worker_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = 1;
    pthread_cond_broadcast(&pool->job_ready);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->workers; ++i)
        pthread_join(pool->worker[i].thread, NULL);
    pthread_cond_destroy(&pool->job_done);
    pthread_cond_destroy(&pool->job_ready);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->run_lock);
    free_pool(pool);
}
