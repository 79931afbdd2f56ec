/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Packets: what travels without a flag behind it (protocol/sync.h). A part of abi.h.
 */
#ifndef IRIS_PACKET_H
#define IRIS_PACKET_H

#include <stdint.h>

/* Eight bytes of data that carry their own signal: each word holds four of them in its low half and
 * the call's signal value in its high half. A word is stored and loaded whole. */
struct iris_packet {
    uint64_t word[2];
} __attribute__((aligned(16)));

/* A bare packet is all data, and both of its words hold this until it is there. Half of a word of
 * it is a NaN, which no rounding makes; whoever would send it as data sends another. */
#define IRIS_EMPTY_WORD UINT64_MAX

/* Whether elements of the dtype travel in bare packets, and the data of a packet. */
#define IRIS_TRAVELS_BARE(dtype)                                                                   \
    ((dtype) == IRIS_DTYPE_F32 || (dtype) == IRIS_DTYPE_F16 || (dtype) == IRIS_DTYPE_BF16)
#define IRIS_PACKET_DATA_NBYTES(dtype) (IRIS_TRAVELS_BARE(dtype) ? 16 : 8)

#endif
