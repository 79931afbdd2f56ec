/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What a target has to provide beside memory order (sync.h) and tiles (tile.h): small functions
 * whose bodies are an instruction or two, or words to its compiler. Where a target needs nothing,
 * its function does nothing.
 *
 *   everywhere
 *   opaque                the value, not known before this point
 *   to_vector_registers   a structure of words that is the same for all lanes, held in each of them
 *   round_alone           a float that is rounded by itself, not with the operation that follows
 *   kLoadsPacketsFirst    whether packets that are awaited together are all loaded before the first
 *                         is looked at: where the compiler would wait for each in turn
 *   reciprocal_sqrt       within two units in the last place
 *   traced_role           as whom this thread records traces
 *
 *   GPUs
 *   block_index, block_count, thread_index   of the launch; the number of blocks of `threads`
 *   uniform               a value held in each lane that is the same in all: branches on it need no
 *                         mask
 *   bits_to_float, float_to_bits, bits_to_double, double_to_bits, to_float(half_t), pack_pair
 *                         conversions
 *   pack_finite_pair      as pack_pair, of no NaN but those that are widened from the dtype
 *   low_halves, high_halves   of two words, side by side
 *   low_bytes, high_bytes     of their lower or upper halves, in turn
 *   narrow                a word that the compiler may not widen to 64 bits outside a loop
 *   load_chunk            memory that this thread reads once
 *   kDirectBytes          room in shared memory for stages that go there without registers
 *   kStageRows            how rows of 64 bytes lie in a stage of gemm_block.h
 *   kSumBatch, kScatteredSumBatch   chunks of a tile that a thread sums at once
 */
#ifndef IRIS_PRIMITIVES_H
#define IRIS_PRIMITIVES_H

#include "kernel.h"
#include IRIS_TARGET_PRIMITIVES

#endif
