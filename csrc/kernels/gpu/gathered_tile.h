/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What all_gather_matmul's forms on GPUs share: a walk over the parts of K that lie on one rank,
 * and the bias of a tile. Some threads send this rank's shard (gathered_operand.h) while others
 * multiply what has arrived. Results go straight to C, which is this rank's alone.
 */
#ifndef IRIS_GATHERED_TILE_H
#define IRIS_GATHERED_TILE_H

#include "kernels/base/tile.h"
#include "kernels/protocol/gathered_operand.h"

namespace iris
{

/* Loops over K and tiles keep their counters in vector registers while their bodies run (`next`):
 * on gfx the product leaves too few scalar registers for them. */

/* K in parts that lie on one rank: of shards of columns one for each rank, from `source` on. */
template <class Visit>
IRIS_INLINE bool for_each_k_part(const iris_gather_args &args, int32_t source, Visit visit)
{
    const iris_reduce_args &r = args.product.reduce;
    const int32_t world = r.call.world_size;
    const int32_t parts = args.share_k != 0 ? world : 1;
    const int64_t length = args.share_k != 0 ? args.share_k : r.K;
    IRIS_NO_UNROLL
    for (int32_t next = 0;;) {
        const int32_t hop = (int32_t)uniform(next);
        if (hop >= parts)
            return true;
        next = opaque(hop + 1);
        const int32_t part = (source + hop) % world;
        if (!visit(part, part * args.share_k, length))
            return false;
    }
}

/* The bias as an addend to a tile. Past the matrix's edge, where nothing is stored, it is that of
 * the edge. */
template <typename T> struct bias_addend {
    const iris_matrix_args &bias;
    const iris_tile_coord &at;

    IRIS_INLINE bias_addend(const iris_reduce_args &args, const iris_tile_coord &tile)
        : bias(args.bias), at(tile)
    {
    }

    IRIS_INLINE const T *row(int32_t index) const
    {
        const int32_t inside = index < at.rows ? index : at.rows - 1;
        return as_matrix<const T>(bias).tile(at.row + inside, at.col).data;
    }

    IRIS_INLINE float element(const T *of_row, int32_t col) const
    {
        return to_float(of_row[(col < at.cols ? col : at.cols - 1) * bias.stride_col]);
    }
};

} // namespace iris

#endif
