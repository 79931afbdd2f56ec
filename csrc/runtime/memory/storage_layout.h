/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A storage: how much room it has, and where its parts lie.
 */
#ifndef IRIS_STORAGE_LAYOUT_H
#define IRIS_STORAGE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "heap.h"
#include "runtime/ops/op_desc.h"
#include "runtime/ops/stream_order.h"

/* Beside the stream of a call: for the copies of a gathered operand, see op_plain.c. Events are
 * created when they are first recorded. */
struct iris_side_stream {
    void *stream;               /* NULL: none has been wanted */
    void *began, *ended;        /* events */
    void *come[IRIS_MAX_RANKS]; /* of each rank's shard */
};

struct iris_storage {
    struct iris_storage *next;
    uint32_t id;      /* equal on all ranks, 1 ... 65535 */
    int references;   /* this rank's handles */
    bool offered;     /* this rank has given the block back once */
    bool dirty;       /* a call on it was broken off: nobody may use it again */
    bool captured;    /* a graph holds its addresses: it is never given back */
    uint64_t checked; /* heap generation at which the block was last known to be live */
    struct iris_stream_order order;
    struct iris_block block;
    struct iris_op_needs room;
    uint64_t flags_offset; /* from the heap base */
    uint64_t packets_offset;
    uint64_t bare_offset;
    uint64_t data_offset;
    /* Of products by themselves, which are calls of a world of one rank with a control of their
     * own, and what they hand on; none of it where room has none. */
    uint64_t product_control_offset, product_flags_offset, product_data_offset;
    uint64_t buffer_offsets[IRIS_PLAIN_BUFFERS];
    struct iris_side_stream side;
    struct iris_memory blas_workspace; /* of the vendor's library; see op_plain.c */
};

bool iris_room_covers(const struct iris_op_needs *room, const struct iris_op_needs *needs);

/* To what both need. */
void iris_room_raise(struct iris_op_needs *room, const struct iris_op_needs *other);

/* Rounds the storage's room up and lays its parts out, by offsets from its beginning. Returns its
 * size in bytes. */
uint64_t iris_storage_lay_out(struct iris_storage *storage);

/* Makes the offsets those from the heap's base, once the block lies at `offset`. */
void iris_storage_put_at(struct iris_storage *storage, uint64_t offset);

#endif
