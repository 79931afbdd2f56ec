/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The host's primitives: see kernels/base/primitives.h.
 */
#ifndef IRIS_PRIMITIVES_HOST_H
#define IRIS_PRIMITIVES_HOST_H

#include <math.h>

#include "kernels/base/kernel.h"

namespace iris
{

template <class S> IRIS_INLINE S to_vector_registers(S value)
{
    return value;
}

IRIS_INLINE int32_t opaque(int32_t value)
{
    return value;
}

IRIS_INLINE float round_alone(float value)
{
    return value;
}

constexpr bool kLoadsPacketsFirst = false;

IRIS_INLINE float reciprocal_sqrt(float x)
{
    return 1.0f / sqrtf(x);
}

IRIS_INLINE iris_trace_role traced_role()
{
    return IRIS_TRACE_GROUP;
}

} // namespace iris

#endif
