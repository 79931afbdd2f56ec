/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What there is once in a process, and what becomes of it in a forked child.
 *
 * One lock guards all data of static storage. A fork waits for it, so a child never finds it held
 * by a thread that it does not have; it is therefore held for moments only, around nothing that
 * waits, but for the loading and initialisation of a GPU's driver. A child gets its parent's
 * contexts, whose own locks may be held for ever: they are told by the generation in which they
 * were made and left alone. Sockets that a child inherited would hide its parent's death from the
 * peers: they are registered here, and the child closes them.
 */
#ifndef IRIS_PROCESS_H
#define IRIS_PROCESS_H

#include <stdint.h>

#include "status.h"

/* Differs between a process and its forked children. */
uint64_t iris_process_generation(void);

void iris_process_lock(void);
void iris_process_unlock(void);

/* Under the lock, which also covers the call that made `fd`: a child forked later closes it.
 * IRIS_ENOMEM: it is not registered. */
enum iris_status iris_process_register(int fd);

/* Closes `*fd` if it is >= 0, registered or not, and sets it to -1. Takes the lock. */
void iris_process_close(int *fd);

#endif
