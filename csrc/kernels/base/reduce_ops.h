/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What reductions do to elements: the type they are accumulated in, the reduction, and words of
 * eight bytes of them.
 */
#ifndef IRIS_REDUCE_OPS_H
#define IRIS_REDUCE_OPS_H

#include "primitives.h"
#if defined(IRIS_GPU)
#include "kernels/gpu/convert_gpu.h"
#else
#include "kernels/cpu/rows_host.h"
#endif

namespace iris
{

template <typename T> struct accumulated {
    typedef float type;
};
template <> struct accumulated<int32_t> {
    typedef int32_t type;
};
template <> struct accumulated<int64_t> {
    typedef int64_t type;
};
template <> struct accumulated<double> {
    typedef double type;
};
template <> struct accumulated<int8_t> {
    typedef int32_t type;
};
template <> struct accumulated<uint8_t> {
    typedef int32_t type;
};
/* fp32 for floating point of up to 32 bits, 32 bits for bytes, else the same type. Integers wrap,
 * bytes when they are stored. */
template <typename T> using acc_t = typename accumulated<T>::type;

template <typename T> struct is_integer {
    static constexpr bool value = false;
};
template <> struct is_integer<int8_t> {
    static constexpr bool value = true;
};
template <> struct is_integer<uint8_t> {
    static constexpr bool value = true;
};
template <> struct is_integer<int32_t> {
    static constexpr bool value = true;
};
template <> struct is_integer<int64_t> {
    static constexpr bool value = true;
};

/* Whether T is added up in fp32. */
template <typename A> struct is_float {
    static constexpr bool value = false;
};
template <> struct is_float<float> {
    static constexpr bool value = true;
};
template <typename T> constexpr bool kSumsInFloat = is_float<acc_t<T>>::value;

IRIS_INLINE float added(float a, float b)
{
    return a + b;
}
IRIS_INLINE int32_t added(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a + (uint32_t)b);
}
IRIS_INLINE int64_t added(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
IRIS_INLINE double added(double a, double b)
{
    return a + b;
}
IRIS_INLINE float multiplied(float a, float b)
{
    return a * b;
}
IRIS_INLINE int32_t multiplied(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a * (uint32_t)b);
}
IRIS_INLINE int64_t multiplied(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

IRIS_INLINE double multiplied(double a, double b)
{
    return a * b;
}

/* The larger, or the smaller one; a NaN on either side stays. */
template <typename A> IRIS_INLINE A extreme(A a, A b, bool larger)
{
    const bool first = larger ? a >= b : a <= b;
    return first || a != a ? a : b;
}

/* `op` is the same for all threads. Selected, not branched to: unrolled, the branches would be most
 * of a kernel, which has to be fetched before it runs. */
template <typename A> IRIS_INLINE A reduced(A a, A b, uint32_t op)
{
    const A moved = op == IRIS_REDUCE_PROD ? multiplied(a, b) : added(a, b);
    const A kept = extreme(a, b, op == IRIS_REDUCE_MAX);
    return op == IRIS_REDUCE_MAX || op == IRIS_REDUCE_MIN ? kept : moved;
}

/* After the last rank's. `scale` is that of iris_reduce_args. */
template <typename A> IRIS_INLINE A concluded(A value, uint32_t op, int32_t world, float)
{
    return op == IRIS_REDUCE_AVG ? value / (A)world : value;
}
/* `scale`, made exact by Newton's iteration: a division takes some dozens of instructions. */
template <> IRIS_INLINE double concluded(double value, uint32_t op, int32_t world, float scale)
{
    const double first = (double)scale, divisor = (double)-world;
    const double second = first * (2.0 + divisor * first);
    const double third = second * (2.0 + divisor * second);
    return op == IRIS_REDUCE_AVG ? value * third : value;
}
template <> IRIS_INLINE float concluded(float value, uint32_t, int32_t, float scale)
{
    return round_alone(value * scale); /* before the conversion that follows */
}

/* ---- words ---- */

constexpr int32_t kWordBytes = 8;
template <typename T> constexpr int32_t kWord = kWordBytes / (int32_t)sizeof(T);

template <int kBytes> struct bits_of_size;
template <> struct bits_of_size<1> {
    typedef uint8_t type;
};
template <> struct bits_of_size<2> {
    typedef uint16_t type;
};
template <> struct bits_of_size<4> {
    typedef uint32_t type;
};
template <> struct bits_of_size<8> {
    typedef uint64_t type;
};

/* The bits of the object at `source`, which is aligned to their size. */
template <int kBytes> IRIS_INLINE uint64_t load_bits(const void *source)
{
    typedef typename bits_of_size<kBytes>::type bits_t;
#if defined(IRIS_GPU)
    return *static_cast<const bits_t *>(source);
#else
    bits_t bits;
    __builtin_memcpy(&bits, source, kBytes); /* of whatever type it is */
    return bits;
#endif
}

template <int kBytes> IRIS_INLINE void store_bits(void *target, uint64_t value)
{
    typedef typename bits_of_size<kBytes>::type bits_t;
    const bits_t bits = (bits_t)value;
#if defined(IRIS_GPU)
    *static_cast<bits_t *>(target) = bits;
#else
    __builtin_memcpy(target, &bits, kBytes);
#endif
}

/* Elements of T, of which `count` exist, the rest zero. `aligned`: to a word. */
template <typename T> IRIS_INLINE uint64_t load_word(const T *source, int64_t count, bool aligned)
{
    constexpr int32_t kSize = (int32_t)sizeof(T);
    uint64_t word = 0;
    if (aligned && count >= kWord<T>)
        return load_bits<kWordBytes>(source);
    IRIS_NO_UNROLL
    for (int32_t i = 0; i < kWord<T> && i < count; ++i)
        word |= load_bits<kSize>(source + i) << (8 * kSize * i);
    return word;
}

template <typename T>
IRIS_INLINE void store_word(T *target, int64_t count, bool aligned, uint64_t word)
{
    constexpr int32_t kSize = (int32_t)sizeof(T);
    if (aligned && count >= kWord<T>)
        return store_bits<kWordBytes>(target, word);
    IRIS_NO_UNROLL
    for (int32_t i = 0; i < kWord<T> && i < count; ++i)
        store_bits<kSize>(target + i, word >> (8 * kSize * i));
}

template <typename T> IRIS_INLINE void unpack_word(uint64_t word, acc_t<T> (&out)[kWord<T>])
{
    if constexpr (is_integer<T>::value) {
        for (int32_t i = 0; i < kWord<T>; ++i)
            out[i] = (T)(word >> (8 * (int32_t)sizeof(T) * i));
    } else {
#if defined(IRIS_GPU)
        for (int32_t i = 0; i < kWord<T>; ++i) {
            if constexpr (sizeof(T) == 4)
                out[i] = bits_to_float((uint32_t)(word >> (32 * i)));
            else
                out[i] = to_float(T{(uint16_t)(word >> (16 * i))});
        }
#else
        iris_row_ops_for(dtype_of<T>::value)->load(out, &word, kWord<T>);
#endif
    }
}

template <typename T> IRIS_INLINE uint64_t pack_word(const acc_t<T> (&values)[kWord<T>])
{
    uint64_t word = 0;
    if constexpr (is_integer<T>::value) {
        for (int32_t i = 0; i < kWord<T>; ++i)
            word |= load_bits<(int)sizeof(T)>(&values[i]) << (8 * (int32_t)sizeof(T) * i);
    } else {
#if defined(IRIS_GPU)
        if constexpr (sizeof(T) == 4)
            return (uint64_t)float_to_bits(values[1]) << 32 | float_to_bits(values[0]);
        else
            return (uint64_t)pack_pair<T>(values[2], values[3]) << 32 |
                   pack_pair<T>(values[0], values[1]);
#else
        iris_row_ops_for(dtype_of<T>::value)->store(&word, values, kWord<T>);
#endif
    }
    return word;
}

} // namespace iris

#endif
