/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The threads that run a launch's work-groups side by side on the cpu: work-group 0 on the calling
 * thread, each other one on a thread of its own, so that work-groups may wait for one another. The
 * threads persist between launches and are started when first needed.
 */
#ifndef IRIS_WORKER_POOL_H
#define IRIS_WORKER_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct iris_worker_pool;

/* More work-groups than this are refused: each is a thread. */
enum { IRIS_MAX_WORKERS = 256 };

typedef void (*iris_work)(const void *args, int32_t index, int32_t count, char *scratch);

enum iris_status iris_worker_pool_create(struct iris_worker_pool **out);
/* Joins the threads. NULL is fine. */
void iris_worker_pool_destroy(struct iris_worker_pool *pool);

/* Runs work(args, i, count, scratch_i) for every i < count, returns when all have returned. Each
 * has `scratch_nbytes` of private memory, 64-byte aligned, contents undefined. One run at a time
 * per pool; a second caller waits. On failure nothing has run. */
enum iris_status iris_worker_pool_run(struct iris_worker_pool *pool, iris_work work,
                                      const void *args, int32_t count, size_t scratch_nbytes);

#endif
