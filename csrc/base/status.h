/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Status codes, and the error that goes with the last one that was not IRIS_OK.
 *
 * Every fallible function of the core returns enum iris_status and writes its results through
 * pointers only on success. The function in which something fails describes it, once, with
 * IRIS_FAIL; its callers hand the status on with IRIS_TRY. The description lies in thread-local
 * memory until the next IRIS_FAIL of the same thread, so clean-up code must not call functions
 * that can fail in between, or must bracket them with iris_error_save and iris_error_restore.
 */
#ifndef IRIS_STATUS_H
#define IRIS_STATUS_H

#include <stddef.h>
#include <stdint.h>

enum iris_status {
    IRIS_OK = 0,
    IRIS_EINVAL,       /* an argument: ValueError */
    IRIS_ETYPE,        /* an argument's type: TypeError */
    IRIS_ENOMEM,       /* host memory: MemoryError */
    IRIS_EHEAP,        /* the symmetric heap is full: HeapExhausted */
    IRIS_ETIMEDOUT,    /* a signal did not come in time: SignalTimeout */
    IRIS_EPEER,        /* a rank died, left or never arrived: PeerError */
    IRIS_EDRIVER,      /* the operating system or a GPU driver refused: BackendError */
    IRIS_ESTATE,       /* closed context, context of the parent process: RuntimeError */
    IRIS_EINTERRUPTED, /* the caller wants to wait no longer; see base/wait.h. It knows why */
};

/* What failed. Fields that do not apply to the status hold 0, ranks and tiles -1. */
struct iris_error {
    enum iris_status status;
    char message[768];
    int rank;           /* EPEER, ETIMEDOUT: the rank that was waited for, -1 unknown */
    int tile;           /* ETIMEDOUT: the tile waited for, -1 for a signal of the whole call */
    uint32_t call;      /* EPEER, ETIMEDOUT: the call counter of the call that failed */
    uint32_t wanted;    /* ETIMEDOUT: signal value waited for */
    uint32_t seen;      /* ETIMEDOUT: signal value last read */
    uint64_t asked;     /* EHEAP: bytes asked for */
    uint64_t free;      /* EHEAP: bytes free, in total */
    uint64_t heap_size; /* EHEAP: the heap's bytes */
    uint64_t needed;    /* EHEAP: a heap_size with which this allocation would have fitted */
};

/* The calling thread's last error. Never NULL. */
struct iris_error *iris_error_last(void);

/* Records `status` with a printf-style message, resets the detail fields, returns `status`. */
enum iris_status iris_error_set(enum iris_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* For an error about a peer (IRIS_EPEER, IRIS_ETIMEDOUT): says in which call it came. Puts `call`
 * in front of the last error's message, in place of `name` where the message begins with that.
 * Returns `status`. */
enum iris_status iris_error_in_call(enum iris_status status, const char *name, const char *call);

/* Copies the last error out and back in around clean-up that may itself fail. */
void iris_error_save(struct iris_error *saved);
void iris_error_restore(const struct iris_error *saved);

#define IRIS_FAIL(status, ...) iris_error_set((status), __VA_ARGS__)

#define IRIS_TRY(expr)                                                                             \
    do {                                                                                           \
        const enum iris_status iris_try_status = (expr);                                           \
        if (iris_try_status != IRIS_OK)                                                            \
            return iris_try_status;                                                                \
    } while (0)

#define IRIS_TRY_GOTO(st, expr, label)                                                             \
    do {                                                                                           \
        (st) = (expr);                                                                             \
        if ((st) != IRIS_OK)                                                                       \
            goto label;                                                                            \
    } while (0)

/* calloc with a status. The block is freed with free(). */
enum iris_status iris_alloc_zeroed(size_t nbytes, void **out);

#endif
