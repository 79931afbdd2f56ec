/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A test double of libamdhip64: the entry points that csrc/device/gpu_driver.h binds, and those
 * with which a test captures graphs, over the emulator. Each process drives one emulated GPU per
 * ordinal; memory is shared memory, so that the processes' GPUs reach each other's.
 */
#ifndef EMULATOR_HIP_DOUBLE_H
#define EMULATOR_HIP_DOUBLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch.h"

#define HIP_API __attribute__((visibility("default")))

typedef int hip_result;
/* HIP's numbers. */
enum {
    HIP_SUCCESS = 0,
    HIP_INVALID_VALUE = 1,
    HIP_OUT_OF_MEMORY = 2,
    HIP_NO_DEVICE = 100,
    HIP_INVALID_DEVICE = 101,
    HIP_INVALID_CONTEXT = 201,
    HIP_NO_BINARY = 209,
    HIP_INVALID_HANDLE = 400,
    HIP_NOT_FOUND = 500,
    HIP_LAUNCH_TIMEOUT = 702,
    HIP_HOST_MEMORY_REGISTERED = 712,
    HIP_LAUNCH_FAILURE = 719,
    HIP_NOT_READY = 600,
    HIP_CAPTURE_UNSUPPORTED = 900,
    HIP_CAPTURE_INVALID = 901,
};

/* A kernel that has failed makes its process' device fail for good, as on a real one. */
hip_result sticky_result(void);
void set_sticky_result(hip_result result);

/* The device of the calling thread; NULL: the architecture in EMULATOR_ARCH is not known. */
struct device *current_device(void);

/* ---- work that is queued ---- */

struct task {
    struct task *next;
    void (*run)(struct task *task);
    size_t nbytes; /* of the whole task, for copies of it */
};

/* Queues a copy of the task, or adds it to the graph that the stream is being captured into. */
hip_result stream_add(void *stream, const struct task *task);
/* All streams of the process have nothing left to do. */
void streams_drain(void);
bool is_any_stream_capturing(void);

#endif
