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

struct iris_context {
    atomic_int references;
    atomic_bool closed;
    atomic_bool closing;          /* a signal's handler asked for it while its thread was inside */
    atomic_bool interrupted;      /* nothing works any more but closing */
    atomic_uintptr_t owner;       /* names the thread that holds op_lock; 0: nobody */
    _Atomic(const char *) inside; /* the call that it makes; NULL: none, or it closes */
    atomic_int inside_kind;       /* enum iris_call_kind; set before `inside` */
    uint64_t generation;          /* of the process that made it; see base/process.h */
    int rank, world_size;
    uint32_t number; /* the how manieth context of the process, from 1; see ownership.h */
    char *run_key;   /* owned */
    uint64_t timeout_ns;
    uint64_t faults_address; /* control->faults as the device sees it; 0: not registered */
    bool debug;
    const struct iris_device_ops *ops;
    struct iris_device *device;
    struct iris_bootstrap *bootstrap;
    struct iris_control *control;
    struct iris_heap *heap;
    uint64_t heap_size;
    /* As given, for the context of the survivors. */
    int local_rank, num_threads;
    char *kernel_directory;
    /* Closed by whoever closes the context; see survivors.c. */
    struct iris_lifelines lifelines;

    /* Held through every operation: a rank's operations on one context start in one order. Taken by
     * iris_context_enter, and by closing. */
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
    uint32_t sent_to; /* bit p: rank p has been sent something */

    struct iris_memory trace; /* see trace_buffer.c; under op_lock, as is the next */
    uint32_t traced_calls;

    struct iris_context *next_listed; /* see ownership.c */
};

/* What a call may wait for, inside the context. */
enum iris_call_kind {
    IRIS_CALL_BRIEF,    /* nobody */
    IRIS_CALL_OF_TWO,   /* on the cpu: another rank, whose calls need no order with this one's */
    IRIS_CALL_OF_ALL,   /* all ranks: they make such calls in one order */
    IRIS_CALL_CONTINUES /* nobody, and it is the rest of a call that has begun: never refused */
};

/* Begins a call: on IRIS_OK the caller holds op_lock until iris_context_leave. IRIS_ESTATE in a
 * forked child, whose copy of the lock may be held for ever by a thread that it does not have, and
 * for a closed context. Whatever reads or changes more of a context than its constants enters.
 * IRIS_ESTATE also, at once, beside another thread's call if waiting for its end could be waiting
 * for ever: NOTE [threads] in entry.c. `name` of the call, as messages have it, is kept meanwhile.
 */
enum iris_status iris_context_enter(struct iris_context *ctx, const char *name,
                                    enum iris_call_kind kind);
void iris_context_leave(struct iris_context *ctx);
/* The same for the one that closes: waits for who is inside, and cuts it short when interrupted, or
 * at once if this rank `goes_on`, with survivors. false: it is closed, or will be when this thread
 * leaves the call that it is in; or it was interrupted, and cannot go on. */
bool iris_context_enter_to_close(struct iris_context *ctx, bool goes_on);

/* The caller wants to wait no longer: ends this rank's waits and its peers', who hear that this
 * rank was interrupted. From any thread; the second time it does nothing. */
void iris_context_interrupt(struct iris_context *ctx);
/* Between the two, an interrupt of this thread's call is one of the context's. For creation; who
 * enters has it. */
void iris_context_begin_interruptible(struct iris_context *ctx);
void iris_context_end_interruptible(void);

/* Leaves the peers as iris_context_close does, unless the context is closed: then false. With
 * `goes_on` the lifelines stay, waits of this rank that are under way end at once, and peers'
 * memory is unmapped when they have. */
bool iris_context_depart(struct iris_context *ctx, bool goes_on);

/* IRIS_ESTATE for a forked child's context alone: to be asked before any of its locks is taken. */
enum iris_status iris_context_check_process(const struct iris_context *ctx);

/* What the device has found out since the last look: IRIS_OK, or why the context is broken. On a
 * GPU a mismatch of the call before is settled here, together with the peers. Under
 * op_lock. `operation` names what was under way. */
enum iris_status iris_context_poll(struct iris_context *ctx, enum iris_operation operation);

/* What an abort word and its fault mean, as a status with a message. `operation` names what was
 * under way. */
enum iris_status iris_context_abort_status(struct iris_context *ctx, enum iris_operation operation);

/* The part of a kernel's arguments that is the same for all calls of the context. */
void iris_context_call_args(const struct iris_context *ctx, enum iris_operation operation,
                            struct iris_call_args *args);

/* Waits for all that the device has been given, in a call or outside of one, also of a closed
 * context; an interrupt is the context's. */
enum iris_status iris_context_wait_for_device(struct iris_context *ctx);

/* Whether `stream` is being captured into a graph. */
bool iris_context_is_capturing(const struct iris_context *ctx, void *stream);

/* The device barrier's number of completed calls. Waits for the device. */
enum iris_status iris_context_barriers(const struct iris_context *ctx, uint64_t *out);

/* Runs the device barrier kernel on `stream`. */
enum iris_status iris_context_launch_barrier(struct iris_context *ctx, void *stream);

/* Frees the context's own workspaces and all storages; when the last reference goes. */
void iris_context_free_workspaces(struct iris_context *ctx);

#endif
