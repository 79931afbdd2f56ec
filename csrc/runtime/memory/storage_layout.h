/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How much room a storage has, and where its parts lie.
 */
#ifndef IRIS_STORAGE_LAYOUT_H
#define IRIS_STORAGE_LAYOUT_H

#include "workspace.h"

bool iris_room_covers(const struct iris_op_needs *room, const struct iris_op_needs *needs);

/* To what both need. */
void iris_room_raise(struct iris_op_needs *room, const struct iris_op_needs *other);

/* Rounds the storage's room up and lays its parts out, by offsets from its beginning. Returns its
 * size in bytes. */
uint64_t iris_storage_lay_out(struct iris_storage *storage);

/* Makes the offsets those from the heap's base, once the block lies at `offset`. */
void iris_storage_put_at(struct iris_storage *storage, uint64_t offset);

#endif
