/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the choices know about a chip and about the links between chips of one node: one table of
 * named figures. A figure that has been measured says so in chips.c; none depends on the shape of a
 * call. Rates are bytes or operations a second, times are seconds.
 */
#ifndef IRIS_CHIPS_H
#define IRIS_CHIPS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/abi/abi.h"

struct iris_chip {
    const char *arch, *backend;
    bool is_gpu;
    bool sm90; /* see kernels/abi/launch_limits.h */
    /* Whether the forms DECODE and PLAIN, or its steps, have been run on such chips, so that they
     * may be chosen. */
    bool decode_shown, plain_shown;
    int xcds, compute_units, max_work_groups;
    /* The float8 formats that its products take: IRIS_FLOAT8_BIT of each. Where there are none, its
     * code object has no rows of IRIS_SCALED_INSTANCES. */
    uint32_t float8;
    /* Whether results of those may be of float32. */
    bool float8_to_float32;

    /* A product's main loop: 16-bit operations a second of one compute unit with the chip's wide
     * and with its narrow tile; what a round of tiles costs besides; the rate at which the threads
     * that reduce a tile read its partials. */
    double wide_rate, narrow_rate, round_seconds, reduce_rate;
    /* Few rows: the rate of the memory, and of what one unit gets from the chip's cache. */
    double memory_rate, unit_cache_rate;
    /* Tiles whose operand is larger than the chip's cache, bytes: what a unit gets from memory. */
    double cache_nbytes, unit_memory_rate;
    /* The form PLAIN: a launch; operations a second of a unit in the vendor's products; what the
     * links carry for reductions with barriers that come after a product; all_gather by copies. */
    double launch_seconds, library_rate, step_rate, gather_seconds, gather_rate;
    /* Gathers by copy engines: all ranks meeting, a copy, and what one copy engine reads of a peer,
     * beside a product; 0: they are not shown. */
    double meet_seconds, pull_seconds, pull_rate;
    /* The form TILES: the start of a product whose sum is scattered; by how much a product takes
     * longer that waits for its operand unit by unit. */
    double scatter_seconds, gathered_slowness;
    /* The form DECODE: its start beside the packets', and what a cluster's blocks take to join
     * their sums of a tile; what a unit gets of weights, and of weights and tokens together, alone
     * in its pair of units, [0], and with its neighbour, [1]; what all units get of weights; what a
     * rank sends of its sums while others stream; the most rows with which its ring has the stages
     * to hide the memory's latency. */
    double decode_seconds, cluster_seconds;
    double weights_unit_rate[2], stage_unit_rate[2], weights_rate, decode_packet_rate;
    int decode_rows;
    /* gfx, that form: bytes a second of weights that a unit gets when it has memory to itself,
     * which is what it has on its way over the memory's latency; what it takes to hand the sums of
     * a tile over to another work-group, and the rate of the sums that one collects. */
    double stream_unit_rate, join_seconds, join_rate;
    double product_rate; /* of one unit over a long product, all units busy */

    /* Links: what a GPU sends to all its peers together, as plain stores. */
    double link_rate;

    /* Senders of a gathered shard. A compute unit that does nothing else sends so much, the
     * order in which receivers need it included; a product whose units do not send gets what it
     * needs first that much later. Units that also multiply send together
     * shared_rate * n / (n + shared_units / peers), and slow the product down by a part of the
     * sending time: slowdown + slowdown_peer * peers * n / units. */
    double sender_rate, sender_seconds;
    double shared_rate, shared_units, slowdown, slowdown_peer;

    /* all_reduce: a call by packets over one hop, as an all_gather is too, and over two; a call
     * with barriers. */
    double one_hop_seconds, two_hop_seconds, barrier_seconds, packet_rate;
    double hop_peer_seconds; /* each peer after the first, to a call by packets */
};

/* NULL: there is no such chip. */
const struct iris_chip *iris_chip_find(const char *arch);

/* The chip, or where it has no row the first of its backend. */
const struct iris_chip *iris_chip_of(const char *arch, const char *backend);

/* Whether its products take operands of this float8 dtype; false for others. */
bool iris_chip_takes(const struct iris_chip *chip, enum iris_dtype dtype);

#endif
