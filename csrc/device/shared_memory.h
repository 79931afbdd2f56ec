/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Host memory that several ranks map: anonymous files (memfd), mapped at most once per process.
 *
 * Mapping the same file again returns the same address with one more reference. Ranks that are
 * threads of one process thus see one address for one word, which is what lets a thread
 * sanitizer follow their signals.
 */
#ifndef IRIS_SHARED_MEMORY_H
#define IRIS_SHARED_MEMORY_H

#include <stddef.h>

#include "base/status.h"

/* Creates `nbytes` of zeroed memory (sparse: pages are taken when touched). `name` is for
 * /proc/PID/maps. *fd is close-on-exec and the caller's. */
enum iris_status iris_shared_memory_create(const char *name, size_t nbytes, int *fd, void **data);

/* Maps the memory behind `fd`, which stays the caller's. */
enum iris_status iris_shared_memory_map(int fd, size_t nbytes, void **data);

/* Drops one reference to a mapping; NULL is fine. */
void iris_shared_memory_unmap(void *data);

#endif
