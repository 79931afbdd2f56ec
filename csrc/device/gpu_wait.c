/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The thread that waits for a device, and the polling of a stream.
 */
#include "gpu_wait.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "base/wait.h"

enum { NOT_READY = 600 }; /* HIP and CUDA alike */
/* Of a polled stream: how long it is asked without a pause, and the pause after that. */
static const uint64_t SPIN_NS = 200000;
static const long NAP_NS = 50000;

static enum iris_status block(const struct gpu_device *gpu)
{
    enum iris_status status;

    GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, synchronize));
    return status;
}

/* ---- a device ---- */

void gpu_waiter_init(struct gpu_waiter *waiter)
{
    pthread_condattr_t monotonic;

    pthread_mutex_init(&waiter->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&waiter->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void gpu_waiter_destroy(struct gpu_waiter *waiter)
{
    if (waiter->runs) {
        pthread_mutex_lock(&waiter->lock);
        waiter->stopping = true;
        pthread_cond_broadcast(&waiter->changed);
        pthread_mutex_unlock(&waiter->lock);
        pthread_join(waiter->thread, NULL);
    }
    pthread_cond_destroy(&waiter->changed);
    pthread_mutex_destroy(&waiter->lock);
}

static void *waiter_main(void *arg)
{
    struct gpu_device *gpu = arg;
    struct gpu_waiter *waiter = &gpu->waiter;

    pthread_mutex_lock(&waiter->lock);
    while (!waiter->stopping) {
        const uint64_t asked = waiter->asked;
        enum iris_status status;

        if (waiter->answered == asked) {
            pthread_cond_wait(&waiter->changed, &waiter->lock);
            continue;
        }
        pthread_mutex_unlock(&waiter->lock);
        status = block(gpu);
        pthread_mutex_lock(&waiter->lock);
        iris_error_save(&waiter->error);
        waiter->error.status = status;
        waiter->answered = asked;
        pthread_cond_broadcast(&waiter->changed);
    }
    pthread_mutex_unlock(&waiter->lock);
    return NULL;
}

/* Under the waiter's lock. Signals are the business of the caller's threads. */
static bool start(struct gpu_device *gpu)
{
    struct gpu_waiter *waiter = &gpu->waiter;
    sigset_t all, before;

    if (waiter->runs)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    waiter->runs = pthread_create(&waiter->thread, NULL, waiter_main, gpu) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return waiter->runs;
}

/* Waits for the thread, a slice of time; then asks the caller, without the lock. true: go on. */
static bool wait_slice(struct gpu_waiter *waiter)
{
    const uint64_t until = iris_clock_ns() + IRIS_WAIT_SLICE_MS * UINT64_C(1000000);
    const struct timespec slice = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    bool goes_on = true;

    if (pthread_cond_timedwait(&waiter->changed, &waiter->lock, &slice) == ETIMEDOUT) {
        pthread_mutex_unlock(&waiter->lock);
        goes_on = !iris_wait_is_interrupted();
        pthread_mutex_lock(&waiter->lock);
    }
    return goes_on;
}

static enum iris_status interrupted(void)
{
    return IRIS_FAIL(IRIS_EINTERRUPTED, "interrupted while the host waited for the GPU");
}

enum iris_status gpu_wait_for_device(struct gpu_device *gpu)
{
    struct gpu_waiter *waiter = &gpu->waiter;
    enum iris_status status = IRIS_OK;
    uint64_t ticket;

    if (!iris_wait_can_be_interrupted())
        return block(gpu);
    pthread_mutex_lock(&waiter->lock);
    if (!start(gpu)) {
        pthread_mutex_unlock(&waiter->lock);
        return block(gpu);
    }
    /* An answer to an earlier question may not cover what the device was given since. */
    ticket = ++waiter->asked;
    pthread_cond_broadcast(&waiter->changed);
    while (waiter->answered < ticket && status == IRIS_OK)
        if (!wait_slice(waiter))
            status = interrupted();
    if (status == IRIS_OK && waiter->error.status != IRIS_OK) {
        status = waiter->error.status;
        iris_error_restore(&waiter->error);
    }
    pthread_mutex_unlock(&waiter->lock);
    return status;
}

/* ---- a stream ---- */

static enum iris_status poll_stream(const struct gpu_device *gpu, void *stream)
{
    const struct timespec nap = {0, NAP_NS};
    const uint64_t started = iris_clock_ns();
    uint64_t asked = 0;
    gpu_result result;
    bool waited = false;

    while ((result = gpu->driver->stream_query(stream)) == NOT_READY) {
        const uint64_t now = iris_clock_ns();

        waited = true;
        if (iris_wait_is_over(now, &asked))
            return interrupted();
        if (now - started > SPIN_NS)
            (void)nanosleep(&nap, NULL);
    }
    if (waited) /* "not ready" is an error too */
        gpu_driver_forget_error(gpu->driver);
    return gpu_driver_check(gpu->driver, offsetof(struct gpu_driver, stream_query), result);
}

enum iris_status gpu_wait_for_stream(struct gpu_device *gpu, void *stream)
{
    enum iris_status status;

    if (iris_wait_can_be_interrupted())
        GPU_IN_SCOPE(gpu, status, poll_stream(gpu, stream));
    else
        GPU_IN_SCOPE(gpu, status, GPU_CALL(gpu->driver, stream_synchronize, stream));
    return status;
}
