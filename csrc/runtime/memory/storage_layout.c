/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The parts of a storage, in the order of their addresses: control, flags, packets, bare packets,
 * staging; then what products by themselves need: control, flags, staging and the buffers.
 */
#include "storage_layout.h"

#include "kernels/abi/schedule.h"

bool iris_room_covers(const struct iris_op_needs *room, const struct iris_op_needs *needs)
{
    bool enough = room->flags_count >= needs->flags_count &&
                  room->half_nbytes >= needs->half_nbytes && room->packets >= needs->packets &&
                  room->bare >= needs->bare &&
                  room->product_flags_count >= needs->product_flags_count &&
                  room->product_half_nbytes >= needs->product_half_nbytes;

    for (int i = 0; i < IRIS_PLAIN_BUFFERS; ++i)
        enough = enough && room->buffers[i] >= needs->buffers[i];
    return enough;
}

static void raise_to(uint64_t *value, uint64_t other)
{
    if (other > *value)
        *value = other;
}

void iris_room_raise(struct iris_op_needs *room, const struct iris_op_needs *other)
{
    raise_to(&room->flags_count, other->flags_count);
    raise_to(&room->half_nbytes, other->half_nbytes);
    raise_to(&room->packets, other->packets);
    raise_to(&room->bare, other->bare);
    raise_to(&room->product_flags_count, other->product_flags_count);
    raise_to(&room->product_half_nbytes, other->product_half_nbytes);
    for (int i = 0; i < IRIS_PLAIN_BUFFERS; ++i)
        raise_to(&room->buffers[i], other->buffers[i]);
}

static void round_up(struct iris_op_needs *room)
{
    room->flags_count = iris_round_up(room->flags_count, 64);
    room->half_nbytes = iris_round_up(room->half_nbytes, IRIS_HEAP_ALIGNMENT);
    room->packets = iris_round_up(room->packets, 16);
    room->bare = iris_round_up(room->bare, 16);
    room->product_flags_count = iris_round_up(room->product_flags_count, 64);
    room->product_half_nbytes = iris_round_up(room->product_half_nbytes, IRIS_HEAP_ALIGNMENT);
    for (int i = 0; i < IRIS_PLAIN_BUFFERS; ++i)
        room->buffers[i] = iris_round_up(room->buffers[i], IRIS_HEAP_ALIGNMENT);
}

uint64_t iris_storage_lay_out(struct iris_storage *storage)
{
    struct iris_op_needs *const room = &storage->room;
    const uint64_t control_nbytes =
        iris_round_up(sizeof(struct iris_workspace_control), IRIS_HEAP_ALIGNMENT);
    uint64_t end;

    round_up(room);
    storage->flags_offset = control_nbytes;
    storage->packets_offset = storage->flags_offset + room->flags_count * 2 * sizeof(uint32_t);
    storage->bare_offset = storage->packets_offset + room->packets * 2 * sizeof(struct iris_packet);
    storage->data_offset = storage->bare_offset + room->bare * 2 * sizeof(struct iris_packet);
    end = storage->data_offset + 2 * room->half_nbytes;
    storage->product_control_offset = end;
    storage->product_flags_offset = end + (room->product_flags_count > 0 ? control_nbytes : 0);
    storage->product_data_offset =
        storage->product_flags_offset + room->product_flags_count * 2 * sizeof(uint32_t);
    end = storage->product_data_offset + 2 * room->product_half_nbytes;
    for (int i = 0; i < IRIS_PLAIN_BUFFERS; ++i) {
        storage->buffer_offsets[i] = end;
        end += room->buffers[i];
    }
    return end;
}

void iris_storage_put_at(struct iris_storage *storage, uint64_t offset)
{
    storage->flags_offset += offset;
    storage->packets_offset += offset;
    storage->bare_offset += offset;
    storage->data_offset += offset;
    storage->product_control_offset += offset;
    storage->product_flags_offset += offset;
    storage->product_data_offset += offset;
    for (int i = 0; i < IRIS_PLAIN_BUFFERS; ++i)
        storage->buffer_offsets[i] += offset;
}
