/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Streams: queues with a thread each, so that launches are asynchronous. Events. Captures into
 * graphs, which are sequences of tasks here: forks are put in line.
 */
#include <stdlib.h>
#include <string.h>

#include "hip_double.h"

enum { MAX_STREAMS = 64, CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1 };

struct graph {
    struct task *first, *last;
};

struct stream {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t worker;
    bool has_worker, is_busy, is_used;
    struct task *first, *last;
    struct graph *capture;
};

struct event {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t recorded, done;
    struct graph *capture; /* recorded while this was captured */
};

/* [0]: the default stream. */
static struct stream streams[MAX_STREAMS] = {
    [0 ... MAX_STREAMS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER,
                               .changed = PTHREAD_COND_INITIALIZER}};
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;

static struct stream *stream_of(void *stream)
{
    return stream == NULL ? &streams[0] : stream;
}

static struct task *copy_of(const struct task *task)
{
    struct task *copy = malloc(task->nbytes);
    if (copy == NULL)
        abort();
    memcpy(copy, task, task->nbytes);
    copy->next = NULL;
    return copy;
}

static void append(struct task **first, struct task **last, struct task *task)
{
    if (*last != NULL)
        (*last)->next = task;
    else
        *first = task;
    *last = task;
}

static void *work(void *argument)
{
    struct stream *stream = argument;

    pthread_mutex_lock(&stream->lock);
    for (;;) {
        struct task *task = stream->first;
        if (task == NULL) {
            stream->is_busy = false;
            pthread_cond_broadcast(&stream->changed);
            pthread_cond_wait(&stream->changed, &stream->lock);
            continue;
        }
        stream->is_busy = true;
        stream->first = task->next;
        if (stream->first == NULL)
            stream->last = NULL;
        pthread_mutex_unlock(&stream->lock);
        task->run(task);
        free(task);
        pthread_mutex_lock(&stream->lock);
    }
    return NULL;
}

hip_result stream_add(void *handle, const struct task *task)
{
    struct stream *stream = stream_of(handle);
    struct task *copy = copy_of(task);

    pthread_mutex_lock(&stream->lock);
    if (stream->capture != NULL) {
        append(&stream->capture->first, &stream->capture->last, copy);
    } else {
        if (!stream->has_worker) {
            if (pthread_create(&stream->worker, NULL, work, stream) != 0)
                abort();
            (void)pthread_detach(stream->worker);
            stream->has_worker = true;
        }
        append(&stream->first, &stream->last, copy);
        stream->is_busy = true;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->lock);
    return HIP_SUCCESS;
}

static void drain(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->is_busy)
        pthread_cond_wait(&stream->changed, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
}

void streams_drain(void)
{
    for (int i = 0; i < MAX_STREAMS; ++i)
        drain(&streams[i]);
}

bool is_any_stream_capturing(void)
{
    bool capturing = false;

    for (int i = 0; i < MAX_STREAMS; ++i) {
        pthread_mutex_lock(&streams[i].lock);
        capturing = capturing || streams[i].capture != NULL;
        pthread_mutex_unlock(&streams[i].lock);
    }
    return capturing;
}

/* ---- streams ---- */

HIP_API hip_result hipStreamCreate(void **stream)
{
    hip_result result = HIP_OUT_OF_MEMORY;

    pthread_mutex_lock(&streams_lock);
    for (int i = 1; i < MAX_STREAMS && result != HIP_SUCCESS; ++i)
        if (!streams[i].is_used) {
            streams[i].is_used = true;
            *stream = &streams[i];
            result = HIP_SUCCESS;
        }
    pthread_mutex_unlock(&streams_lock);
    return result;
}

HIP_API hip_result hipStreamDestroy(struct stream *stream)
{
    drain(stream);
    pthread_mutex_lock(&streams_lock);
    stream->is_used = false; /* its thread serves the next one */
    pthread_mutex_unlock(&streams_lock);
    return HIP_SUCCESS;
}

HIP_API hip_result hipStreamSynchronize(void *stream)
{
    if (stream_of(stream)->capture != NULL)
        return HIP_CAPTURE_UNSUPPORTED;
    drain(stream_of(stream));
    return sticky_result();
}

HIP_API hip_result hipStreamQuery(void *handle)
{
    struct stream *stream = stream_of(handle);
    bool is_busy;

    if (stream->capture != NULL)
        return HIP_CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&stream->lock);
    is_busy = stream->is_busy;
    pthread_mutex_unlock(&stream->lock);
    return is_busy ? HIP_NOT_READY : sticky_result();
}

HIP_API hip_result hipDeviceSynchronize(void)
{
    if (is_any_stream_capturing())
        return HIP_CAPTURE_UNSUPPORTED;
    streams_drain();
    return sticky_result();
}

/* ---- events ---- */

struct event_task {
    struct task task;
    struct event *event;
    uint64_t ticket;
};

static void run_record(struct task *task)
{
    const struct event_task *record = (struct event_task *)task;
    struct event *event = record->event;

    pthread_mutex_lock(&event->lock);
    if (event->done < record->ticket)
        event->done = record->ticket;
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->lock);
}

static void run_wait(struct task *task)
{
    const struct event_task *wait = (struct event_task *)task;
    struct event *event = wait->event;

    pthread_mutex_lock(&event->lock);
    while (event->done < wait->ticket)
        pthread_cond_wait(&event->changed, &event->lock);
    pthread_mutex_unlock(&event->lock);
}

HIP_API hip_result hipEventCreateWithFlags(void **event, unsigned int flags)
{
    struct event *made = calloc(1, sizeof *made);

    (void)flags;
    if (made == NULL)
        return HIP_OUT_OF_MEMORY;
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->changed, NULL);
    *event = made;
    return HIP_SUCCESS;
}

HIP_API hip_result hipEventRecord(struct event *event, void *handle)
{
    struct stream *stream = stream_of(handle);
    struct event_task record = {{NULL, run_record, sizeof record}, event, 0};

    pthread_mutex_lock(&event->lock);
    event->capture = stream->capture;
    if (event->capture == NULL)
        record.ticket = ++event->recorded;
    pthread_mutex_unlock(&event->lock);
    return stream->capture != NULL ? HIP_SUCCESS : stream_add(handle, &record.task);
}

HIP_API hip_result hipStreamWaitEvent(void *handle, struct event *event, unsigned int flags)
{
    struct stream *stream = stream_of(handle);
    struct event_task wait = {{NULL, run_wait, sizeof wait}, event, 0};
    struct graph *capture;

    (void)flags;
    pthread_mutex_lock(&event->lock);
    capture = event->capture;
    wait.ticket = event->recorded;
    pthread_mutex_unlock(&event->lock);
    if (capture == NULL && stream->capture != NULL)
        return HIP_CAPTURE_UNSUPPORTED; /* work outside the capture */
    if (capture == NULL)
        return stream_add(handle, &wait.task);
    pthread_mutex_lock(&stream->lock);
    stream->capture = capture; /* the waiting stream joins the capture */
    pthread_mutex_unlock(&stream->lock);
    return HIP_SUCCESS;
}

HIP_API hip_result hipEventDestroy(struct event *event)
{
    streams_drain();
    pthread_cond_destroy(&event->changed);
    pthread_mutex_destroy(&event->lock);
    free(event);
    return HIP_SUCCESS;
}

/* ---- capture ---- */

HIP_API hip_result hipStreamBeginCapture(struct stream *stream, int mode)
{
    (void)mode;
    if (stream == NULL || stream->capture != NULL)
        return HIP_CAPTURE_UNSUPPORTED;
    stream->capture = calloc(1, sizeof *stream->capture);
    return stream->capture != NULL ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}

HIP_API hip_result hipStreamEndCapture(struct stream *stream, void **graph)
{
    struct graph *capture = stream->capture;

    if (capture == NULL)
        return HIP_CAPTURE_INVALID;
    for (int i = 0; i < MAX_STREAMS; ++i)
        if (streams[i].capture == capture)
            streams[i].capture = NULL;
    *graph = capture;
    return HIP_SUCCESS;
}

HIP_API hip_result hipStreamIsCapturing(void *stream, int *status)
{
    *status = stream_of(stream)->capture != NULL ? CAPTURE_ACTIVE : CAPTURE_NONE;
    return HIP_SUCCESS;
}

/* A graph is its own executable form. */
HIP_API hip_result hipGraphLaunch(struct graph *graph, void *stream)
{
    if (sticky_result() != HIP_SUCCESS)
        return sticky_result();
    for (const struct task *task = graph->first; task != NULL; task = task->next)
        (void)stream_add(stream, task);
    return HIP_SUCCESS;
}

HIP_API hip_result hipGraphDestroy(struct graph *graph)
{
    while (graph->first != NULL) {
        struct task *task = graph->first;
        graph->first = task->next;
        free(task);
    }
    free(graph);
    return HIP_SUCCESS;
}
