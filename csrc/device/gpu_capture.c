/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The graph that a stream is being captured into: which it is, and when it is gone.
 *
 * CUDA lets a graph hold references to objects of the user's. Executable graphs take references
 * over from the graph they are made of, and launches from them, so an object's end is the end of
 * all of them. HIP is not asked for this: what executable graphs hold there is not documented.
 */
#include "gpu_capture.h"

#include "gpu_device.h"

enum { CAPTURE_ACTIVE = 1 };
enum { NO_DESTRUCTOR_SYNC = 1 }; /* CU_USER_OBJECT_NO_DESTRUCTOR_SYNC */
enum { MOVE_REFERENCES = 1 };    /* CU_GRAPH_USER_OBJECT_MOVE */

static enum iris_status capture_in_scope(const struct gpu_device *gpu, void *stream, uint64_t *id,
                                         void **graph)
{
    const void *const *dependencies;
    unsigned long long number = 0;
    size_t count;
    int status = 0;

    if (gpu->driver->stream_capture_info == NULL) { /* before ROCm 5.3 */
        IRIS_TRY(GPU_CALL(gpu->driver, stream_capturing, stream, &status));
        *id = 0;
        return status == 0 ? IRIS_OK
                           : IRIS_FAIL(IRIS_EDRIVER, "the driver has no name for a capture");
    }
    IRIS_TRY(GPU_CALL(gpu->driver, stream_capture_info, stream, &status, &number, graph,
                      &dependencies, &count));
    *id = status == CAPTURE_ACTIVE ? number : 0;
    return IRIS_OK;
}

enum iris_status gpu_stream_capture(struct iris_device *device, void *stream, uint64_t *id)
{
    enum iris_status status;
    void *graph;

    GPU_IN_SCOPE(as_gpu(device), status, capture_in_scope(as_gpu(device), stream, id, &graph));
    return status;
}

static enum iris_status watch_in_scope(const struct gpu_device *gpu, void *stream,
                                       void (*ended)(void *arg), void *arg, bool *watched)
{
    void *graph, *object;
    uint64_t id = 0;

    if (gpu->driver->platform != GPU_CUDA || gpu->driver->user_object_create == NULL ||
        gpu->driver->graph_retain == NULL)
        return IRIS_OK;
    IRIS_TRY(capture_in_scope(gpu, stream, &id, &graph));
    if (id == 0)
        return IRIS_OK;
    IRIS_TRY(GPU_CALL(gpu->driver, user_object_create, &object, arg, ended, 1, NO_DESTRUCTOR_SYNC));
    *watched = true;
    /* An object that the graph does not take is not released: that would tell of an end. */
    (void)GPU_SUCCEEDS(gpu->driver, graph_retain, graph, object, 1, MOVE_REFERENCES);
    return IRIS_OK;
}

bool gpu_stream_capture_watch(struct iris_device *device, void *stream, void (*ended)(void *arg),
                              void *arg)
{
    bool watched = false;
    enum iris_status status;

    GPU_IN_SCOPE(as_gpu(device), status,
                 watch_in_scope(as_gpu(device), stream, ended, arg, &watched));
    return status == IRIS_OK && watched;
}
