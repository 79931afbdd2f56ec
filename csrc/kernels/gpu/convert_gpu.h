/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * fp16 and bf16 to fp32 and back on GPUs, to nearest with ties to even. NaN stays NaN.
 */
#ifndef IRIS_CONVERT_GPU_H
#define IRIS_CONVERT_GPU_H

#include "kernels/base/primitives.h"

namespace iris
{

IRIS_INLINE float to_float(float value)
{
    return value;
}

IRIS_INLINE float to_float(bfloat16_t value)
{
    return bits_to_float((uint32_t)value.bits << 16);
}

template <typename T> IRIS_INLINE T from_float(float value)
{
    return T{(uint16_t)pack_pair<T>(value, 0.0f)};
}

template <> IRIS_INLINE float from_float<float>(float value)
{
    return value;
}

} // namespace iris

#endif
