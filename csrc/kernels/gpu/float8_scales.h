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
    return IRIS_ANY_SCALES_BY_BLOCKS(scaling.a.kind, scaling.b.kind);
}

/* Of the rows of A, or the columns of B, of one tile. Past the matrix's edge, where nothing is
 * stored, they are those of the edge. */
struct tile_scales {
    iris_scale_args scales;
    int64_t first;
    int32_t count;

    IRIS_INLINE float at(int32_t index, int64_t block) const
    {
        return *scale_address(scales, first + (index < count ? index : count - 1), block);
    }
};

} // namespace iris

#endif
