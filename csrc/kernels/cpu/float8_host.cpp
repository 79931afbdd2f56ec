/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The values of the float8 formats, from their definitions: "OCP 8-bit Floating Point
 * Specification" 1.0 (E4M3FN has no infinities, E5M2 is as IEEE 754 would have it), and Noune et
 * al., "8-bit Numerical Formats for Deep Neural Networks" (FNUZ: a bias larger by one; what would
 * be the negative zero is the only NaN).
 */
#include "float8_host.h"

#include <math.h>
#include <stdint.h>

namespace
{

struct format {
    int mantissa_bits, bias;
    bool is_fnuz, has_infinities;
};

constexpr format e4m3fn = {3, 7, false, false}, e5m2 = {2, 15, false, true};
constexpr format e4m3fnuz = {3, 8, true, false}, e5m2fnuz = {2, 16, true, false};

constexpr float power_of_two(int exponent)
{
    float value = 1.0f;

    for (; exponent > 0; --exponent)
        value *= 2.0f;
    for (; exponent < 0; ++exponent)
        value *= 0.5f;
    return value;
}

constexpr float value_of(const format &f, int bits)
{
    const int magnitude = bits & 0x7f, exponent = magnitude >> f.mantissa_bits;
    const int mantissa = magnitude & ((1 << f.mantissa_bits) - 1);
    const int largest = 0x7f >> f.mantissa_bits;
    const float unit = power_of_two((exponent > 0 ? exponent : 1) - f.bias - f.mantissa_bits);
    const float size = (float)(mantissa + (exponent > 0 ? 1 << f.mantissa_bits : 0)) * unit;
    const bool is_nan = f.is_fnuz          ? bits == 0x80
                        : f.has_infinities ? exponent == largest && mantissa != 0
                                           : magnitude == 0x7f;

    if (is_nan)
        return NAN;
    if (f.has_infinities && exponent == largest)
        return bits < 0x80 ? INFINITY : -INFINITY;
    return bits < 0x80 ? size : -size;
}

struct table {
    float values[256];

    constexpr explicit table(const format &f) : values()
    {
        for (int bits = 0; bits < 256; ++bits)
            values[bits] = value_of(f, bits);
    }
};

constexpr format formats[] = {e4m3fn, e5m2, e4m3fnuz, e5m2fnuz};
constexpr table tables[] = {table(e4m3fn), table(e5m2), table(e4m3fnuz), table(e5m2fnuz)};

/* The bits of the largest finite value. */
constexpr int largest_bits(const format &f)
{
    return f.is_fnuz ? 0x7f : f.has_infinities ? 0x7b : 0x7e;
}

/* Of a finite |value| that is not too large, as a multiple of the units of its binade; one that is
 * rounded up to the next binade has the bits that follow. */
int bits_of_size(const format &f, float size)
{
    const int least = 1 - f.bias;
    int exponent;

    if (size == 0)
        return 0;
    (void)frexpf(size, &exponent); /* size < 2 ** exponent */
    exponent = exponent - 1 > least ? exponent - 1 : least;
    return ((exponent - least) << f.mantissa_bits) +
           (int)nearbyintf(ldexpf(size, f.mantissa_bits - exponent));
}

uint8_t bits_of(const format &f, float largest, float value)
{
    const float size = fabsf(value);
    const int sign = signbit(value) ? 0x80 : 0;

    if (isnan(value))
        return f.is_fnuz ? 0x80 : (uint8_t)(sign | 0x7f);
    const int bits = size < largest ? bits_of_size(f, size) : largest_bits(f);
    return (uint8_t)(f.is_fnuz && bits == 0 ? 0 : sign | bits);
}

} // namespace

const float *iris_float8_values(enum iris_dtype dtype)
{
    return tables[dtype - IRIS_DTYPE_F8_E4M3FN].values;
}

float iris_float8_largest(enum iris_dtype dtype)
{
    return iris_float8_values(dtype)[largest_bits(formats[dtype - IRIS_DTYPE_F8_E4M3FN])];
}

void iris_float8_store(enum iris_dtype dtype, uint8_t *out, const float *in, int64_t n)
{
    const format &f = formats[dtype - IRIS_DTYPE_F8_E4M3FN];
    const float largest = iris_float8_largest(dtype);

    for (int64_t i = 0; i < n; ++i)
        out[i] = bits_of(f, largest, in[i]);
}
