/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The tile verbs on the host: a work-group is one thread, a tile is a loop over rows and columns
 * that the compiler vectorises, an accumulator is a row-major fp32 array in the work-group's
 * scratch memory. The matrix product is in gemm_host.cpp.
 */
#ifndef IRIS_TILE_HOST_H
#define IRIS_TILE_HOST_H

#include "gemm_host.h"

namespace iris
{

/* One thread of the cpu device, running one work-group of a launch. */
struct work_group {
    int32_t index;
    int32_t count;
    void *scratch; /* 64-byte aligned, as large as the launch asked for */
};

struct accumulator {
    float *data;
    int64_t ld;
    iris_gemm_scratch *gemm;
};

} // namespace iris

#endif
