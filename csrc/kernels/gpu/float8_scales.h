/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The scales of float8 operands (kernels/abi/scaling.h), as a tile needs them: of its rows and
 * columns, which multiply its sum over K, or of each block of K, which multiply the sum over that.
 */
#ifndef IRIS_FLOAT8_SCALES_H
#define IRIS_FLOAT8_SCALES_H

#include "kernels/base/kernel.h"

namespace iris
{

IRIS_INLINE bool scales_by_blocks(const iris_scaling &scaling)
{
    return IRIS_SCALES_BY_BLOCKS(scaling.a.kind) || IRIS_SCALES_BY_BLOCKS(scaling.b.kind);
}

constexpr int32_t kBlockShift = 7;
static_assert(1 << kBlockShift == IRIS_SCALE_BLOCK, "a division by it");

/* Of the rows of A, or the columns of B, of one tile. Past the matrix's edge, where nothing is
 * stored, they are those of the edge. */
struct tile_scales {
    iris_scale_args scales;
    int64_t first;
    int32_t count;

    IRIS_INLINE float at(int32_t index, int64_t block) const
    {
        const int64_t mn = first + (index < count ? index : count - 1);
        const int32_t shift = scales.kind == IRIS_SCALE_SQUARE ? kBlockShift : 0;
        return device_pointer<const float>(
            scales.address)[(mn >> shift) * scales.stride_mn + block * scales.stride_k];
    }
};

} // namespace iris

#endif
