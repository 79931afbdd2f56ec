/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The inside of a context, for the runtime's own files.
 */
#ifndef IRIS_CONTEXT_H
#define IRIS_CONTEXT_H

#include <pthread.h>
#include <stdatomic.h>

#include "control.h"
#include "device/device.h"
#include "iris.h"
#include "runtime/bootstrap/bootstrap.h"
#include "runtime/bootstrap/lifelines.h"
#include "runtime/memory/heap.h"
#include "runtime/ops/op_desc.h"
#include "runtime/ops/stream_order.h"

struct iris_storage;

/* What a file that is built on contexts keeps in one, and how it lets go of that when the context
 * ends (context_end.c). Each function may be NULL, and is also called for a half-built context. */
struct iris_context_part {
    /* Closing begins: the device is idle, the peers know nothing of it yet. Under op_lock. */
    void (*at_farewell)(struct iris_context *ctx);
    /* Before the device is closed. Under op_lock. */
    void (*at_close)(struct iris_context *ctx);
    /* With the last reference, when the device is closed and before the heap goes. */
    void (*at_end)(struct iris_context *ctx);
};

struct iris_context {
    atomic_int references;
    atomic_bool closed;
    atomic_bool closing;          /* a signal's handler asked for it while its thread was inside */
    atomic_bool interrupted;      /* nothing works any more but closing */
    atomic_uintptr_t owner;       /* names the thread that holds op_lock; 0: nobody */
    _Atomic(const char *) inside; /* the call that it makes; NULL: none, or it closes */
    atomic_int inside_kind;       /* enum iris_call_kind of entry.h; set before `inside` */
    uint64_t generation;          /* of the process that made it; see base/process.h */
    int rank, world_size;
    int pool;        /* from 1: the functions that give torch this context's arena; see pool.c */
    uint32_t number; /* the how manieth context of the process, from 1; see ownership.h */
    char *run_key;   /* owned */
    uint64_t timeout_ns;
    uint64_t faults_address; /* control->faults as the device sees it; 0: not registered */
    bool debug;
    const struct iris_device_ops *ops;
    /* Stopped by closing, and there until the last reference goes: a call looks at its facts before
     * it enters, when another thread may close. */
    struct iris_device *device;
    struct iris_bootstrap *bootstrap;
    struct iris_control *control;
    struct iris_heap *heap;
    uint64_t heap_size, local_size;
    bool has_blas;    /* the device multiplies by the vendor's library, on all ranks */
    bool has_packets; /* every rank's memory shows a packet without a fence */
    /* As given, for the context of the survivors. */
    int local_rank, num_threads;
    char *kernel_directory;
    const struct iris_context_part *parts; /* static; see creation.c */
    int part_count;
    /* Closed by whoever closes the context; see survivors.c. */
    struct iris_lifelines lifelines;

    /* Held through every operation: a rank's operations on one context start in one order. Taken by
     * iris_context_enter, and by closing; see context_lock.h. */
    pthread_mutex_t op_lock;
    uint64_t op_number;          /* calls described on the board; under op_lock */
    struct iris_op_desc last_op; /* the last call launched; under op_lock */

    pthread_mutex_t storages_lock; /* guards workspaces' and storages' fields; held for moments */
    struct iris_storage *storages;
    uint32_t storage_ids;                             /* handed out so far, equal on all ranks */
    struct iris_workspace *workspaces[IRIS_OP_COUNT]; /* for callers that pass none */

    /* The channels of messages between two ranks, behind the device barrier's control; see
     * op_messages.c. Sends and receipts are ordered each among themselves. */
    uint64_t zeros_offset; /* in the heap: IRIS_HEAP_ALIGNMENT bytes of zeros */
    uint64_t channels_offset;
    int32_t channel_lanes; /* equal on all ranks */
    struct iris_stream_order sends, receipts;
    atomic_uint sent_to; /* bit p: rank p has been sent something */

    struct iris_memory trace; /* see trace_buffer.c; under op_lock, as is the next */
    uint32_t traced_calls;

    struct iris_context *next_listed; /* see ownership.c */
};

/* IRIS_ESTATE for a forked child's context alone: to be asked before any of its locks is taken. */
enum iris_status iris_context_check_process(const struct iris_context *ctx);

/* The part of a kernel's arguments that is the same for all calls of the context. */
void iris_context_call_args(const struct iris_context *ctx, enum iris_operation operation,
                            struct iris_call_args *args);

/* Whether `stream` is being captured into a graph. */
bool iris_context_is_capturing(const struct iris_context *ctx, void *stream);

/* The device barrier's number of completed calls. Waits for the device. */
enum iris_status iris_context_barriers(const struct iris_context *ctx, uint64_t *out);

#endif
