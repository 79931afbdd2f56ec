/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The target's way with tiles: on gfx and sm_90a the matrix units (tile_cdna.h, tile_sm90.h)
 * beside what GPUs share (tile_gpu.h); on the host, where a work-group is one thread with vector
 * loops, the verbs below (tile_host.h), which are all that a kernel does with data.
 *
 *   tile_gemm        accumulator  = A[m0.., :] @ B[:, n0..]
 *   tile_gemm_store  a tile in memory = the same, rounded to the tile's dtype
 *   tile_load        accumulator  = a tile in memory
 *   tile_rank_sum    accumulator  = sum over ranks, in rank order, of partial tiles in memory
 *                                   and the accumulator itself at its own rank's place
 *   tile_add         accumulator += a tile in memory (broadcast by stride 0)
 *   tile_store       a tile in memory = accumulator, rounded to the tile's dtype
 *   tile_atomic_add  a tile of float in memory += accumulator, element by element, atomically
 *   tile_add_into    a packed tile of float in memory += accumulator, under the caller's lock
 *   copy_runs        rows of several matrices = rows of one
 *   copy_bytes, clear_bytes   plain bytes
 *
 * Accumulators are fp32 whatever the dtype in memory. Verbs handle tiles cut by the matrix's edge
 * (`extent`). copy_runs, copy_bytes and clear_bytes are there on every target.
 */
#ifndef IRIS_TILE_H
#define IRIS_TILE_H

#include "kernel.h"

#include IRIS_TARGET_TILE

#endif
