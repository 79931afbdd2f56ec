/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The part of the host's matrix product that depends on vectors: packing and the micro-kernel.
 * gemm_host.cpp includes this file once per instruction set, inside a namespace of its own (so
 * there is no include guard), after it has defined there
 *
 *   TARGET               the attribute that lets a function use the instruction set
 *   kLanes, kRows        floats in a vector; rows that the micro-kernel keeps in registers
 *   vec                  the vector; zero, splat, fma, add, load, store on it
 *   load_part, store_part    the first n floats of a vector; the others are read as 0, not written
 *   widen(const T *, n)  n elements of a storage type as a vector, 0 beyond them
 *   transpose(vec *)     a kLanes x kLanes block, in place
 *
 * A template cannot take a target attribute as a parameter, and a function is inlined only into
 * one with the same target: hence the inclusion.
 *
 * Packed data is made of lines of kLanes floats.
 *   A   panels of up to kRows rows; in a panel, for every kLanes steps of k a group of one line per
 *       row. The micro-kernel reads it from front to back; a row-major A is packed by copying whole
 *       lines, a transposed one by transposing blocks.
 *   B   panels of two lines' width (the last of one or two); in a panel, the lines of k = 0, 1, ...
 */

template <iris_dtype kFormat> TARGET ALWAYS_INLINE vec widen(const float8<kFormat> *p, int32_t n)
{
    const float *values = iris_float8_values(kFormat);
    float lanes[kLanes] = {};

    for (int32_t i = 0; i < n; ++i)
        lanes[i] = values[p[i].bits];
    return load(lanes);
}

/* Writes `count` lines, `dst_step` floats apart; line l holds elements src + l * across + i * along
 * for i < length (at most kLanes), then zeros. */
template <typename T>
TARGET ALWAYS_INLINE void pack_lines(float *dst, int64_t dst_step, const T *src, int64_t along,
                                     int64_t across, int32_t count, int32_t length)
{
    if (along == 1) {
        if (length == kLanes)
            for (int32_t l = 0; l < count; ++l)
                store(dst + l * dst_step, widen(src + l * across, kLanes));
        else
            for (int32_t l = 0; l < count; ++l)
                store(dst + l * dst_step, widen(src + l * across, length));
    } else if (across == 1) {
        for (int32_t first = 0; first < count; first += kLanes) {
            const int32_t n = count - first < kLanes ? count - first : kLanes;
            vec block[kLanes];
            for (int32_t i = 0; i < kLanes; ++i)
                block[i] = i < length ? widen(src + first + i * along, n) : zero();
            transpose(block);
            for (int32_t l = 0; l < n; ++l)
                store(dst + (first + l) * dst_step, block[l]);
        }
    } else {
        for (int32_t l = 0; l < count; ++l) {
            T gathered[kLanes];
            for (int32_t i = 0; i < length; ++i)
                gathered[i] = src[l * across + i * along];
            store(dst + l * dst_step, widen(gathered, length));
        }
    }
}

template <typename T>
TARGET void pack_a(const char *address, int64_t stride_row, int64_t stride_col, int32_t rows,
                   int64_t kc, float *out)
{
    const T *src = reinterpret_cast<const T *>(address);
    const row_panels panels = row_panels_of(rows, kRows);
    const int64_t depth = (kc + kLanes - 1) / kLanes * kLanes;
    /* A transposed A is read along its columns, through all panels. */
    const bool by_column = stride_row == 1 && stride_col != 1;
    const int32_t strips = by_column ? 1 : panels.count;

    for (int32_t strip = 0; strip < strips; ++strip)
        for (int64_t k = 0; k < kc; k += kLanes)
            for (int32_t p = strip; p < (by_column ? panels.count : strip + 1); ++p) {
                const int32_t height = panels.height(p), start = panels.start(p);
                pack_lines(out + start * depth + k * height, kLanes,
                           src + start * stride_row + k * stride_col, stride_col, stride_row,
                           height, (int32_t)(kc - k < kLanes ? kc - k : kLanes));
            }
}

/* Row k of a row-major B into all its panels: to read it from front to back is twice as fast as to
 * fill one panel after the other. */
template <typename T>
TARGET ALWAYS_INLINE void pack_b_row(const T *row, int32_t cols, int64_t k, int64_t kc, float *out)
{
    constexpr int32_t kWidth = 2 * kLanes;
    int32_t j = 0;

    for (; j + kWidth <= cols; j += kWidth, out += kc * kWidth) {
        store(out + k * kWidth, widen(row + j, kLanes));
        store(out + k * kWidth + kLanes, widen(row + j + kLanes, kLanes));
    }
    if (cols - j > kLanes) {
        store(out + k * kWidth, widen(row + j, kLanes));
        store(out + k * kWidth + kLanes, widen(row + j + kLanes, cols - j - kLanes));
    } else if (cols > j) {
        store(out + k * kLanes, widen(row + j, cols - j));
    }
}

template <typename T>
TARGET void pack_b(const char *address, int64_t stride_row, int64_t stride_col, int32_t cols,
                   int64_t kc, float *out)
{
    const T *src = reinterpret_cast<const T *>(address);

    if (stride_col == 1) {
        for (int64_t k = 0; k < kc; ++k)
            pack_b_row(src + k * stride_row, cols, k, kc, out);
        return;
    }
    for (int64_t k = 0; k < kc; k += kLanes) {
        const int32_t count = (int32_t)(kc - k < kLanes ? kc - k : kLanes);
        float *panel = out;
        for (int32_t j = 0; j < cols; j += 2 * kLanes) {
            const int32_t lines = cols - j > kLanes ? 2 : 1;
            for (int32_t l = 0; l < lines; ++l) {
                const int32_t first = j + l * kLanes;
                pack_lines(panel + (k * lines + l) * kLanes, (int64_t)lines * kLanes,
                           src + k * stride_row + first * stride_col, stride_col, stride_row, count,
                           cols - first < kLanes ? cols - first : kLanes);
            }
            panel += kc * lines * kLanes;
        }
    }
}

/* One group of lines of A: up to kLanes steps of k. */
template <int kHeight, int kLines>
TARGET ALWAYS_INLINE void multiply_step(const float *a, const float *b, vec (&sum)[kHeight][kLines])
{
    vec line[kLines];

    UNROLL for (int l = 0; l < kLines; ++l) line[l] = load(b + l * kLanes);
    UNROLL for (int i = 0; i < kHeight; ++i)
    {
        const vec x = splat(a + i * kLanes);
        UNROLL for (int l = 0; l < kLines; ++l) sum[i][l] = fma(x, line[l], sum[i][l]);
    }
}

/* kHeight rows of out (+)= a panel of A times a panel of B; see micro_kernel. */
template <int kHeight, int kLines>
TARGET void micro(int64_t kc, const float *a, const float *b, const uintptr_t *soon, float *out,
                  int64_t ld, int32_t last, bool add_to_out)
{
    vec sum[kHeight][kLines];

    UNROLL for (int i = 0; i < kHeight; ++i)
    {
        UNROLL for (int l = 0; l < kLines; ++l) sum[i][l] = zero();
        __builtin_prefetch(out + i * ld, 1);
        __builtin_prefetch(out + i * ld + kLines * kLanes - 1, 1);
    }
    for (uintptr_t ahead = 0; kc >= kLanes;
         kc -= kLanes, a += kHeight * kLanes, ahead += kFetchStep) {
        UNROLL for (int i = 0; i < kFetches; ++i)
            __builtin_prefetch(reinterpret_cast<const void *>(soon[i] + ahead), 0, 2);
        for (int k = 0; k < kLanes; ++k, b += kLines * kLanes)
            multiply_step<kHeight, kLines>(a + k, b, sum);
    }
    for (int k = 0; k < kc; ++k, b += kLines * kLanes)
        multiply_step<kHeight, kLines>(a + k, b, sum);

    UNROLL for (int i = 0; i < kHeight; ++i)
    {
        float *row = out + i * ld;
        UNROLL for (int l = 0; l < kLines; ++l)
        {
            float *at = row + l * kLanes;
            if (l < kLines - 1 || last == kLanes)
                store(at, add_to_out ? add(load(at), sum[i][l]) : sum[i][l]);
            else
                store_part(at, add_to_out ? add(load_part(at, last), sum[i][l]) : sum[i][l], last);
        }
    }
}

/* kernels[height - 1][lines - 1], from 1 to kHeight */
template <int kHeight> struct micro_table {
    static constexpr void fill(micro_kernel (&kernels)[kMaxRows][2])
    {
        micro_table<kHeight - 1>::fill(kernels);
        kernels[kHeight - 1][0] = micro<kHeight, 1>;
        kernels[kHeight - 1][1] = micro<kHeight, 2>;
    }
};
template <> struct micro_table<0> {
    static constexpr void fill(micro_kernel (&)[kMaxRows][2])
    {
    }
};

template <typename T> constexpr void add_packing(instruction_set &set, iris_dtype dtype)
{
    set.pack_a[packing_of(dtype)] = pack_a<T>;
    set.pack_b[packing_of(dtype)] = pack_b<T>;
}

constexpr instruction_set describe(const char *name)
{
    instruction_set set = {};

    set.name = name;
    set.lanes = kLanes;
    set.rows = kRows;
    add_packing<float>(set, IRIS_DTYPE_F32);
    add_packing<half>(set, IRIS_DTYPE_F16);
    add_packing<bfloat16>(set, IRIS_DTYPE_BF16);
    add_packing<float8<IRIS_DTYPE_F8_E4M3FN>>(set, IRIS_DTYPE_F8_E4M3FN);
    add_packing<float8<IRIS_DTYPE_F8_E5M2>>(set, IRIS_DTYPE_F8_E5M2);
    add_packing<float8<IRIS_DTYPE_F8_E4M3FNUZ>>(set, IRIS_DTYPE_F8_E4M3FNUZ);
    add_packing<float8<IRIS_DTYPE_F8_E5M2FNUZ>>(set, IRIS_DTYPE_F8_E5M2FNUZ);
    micro_table<kRows>::fill(set.kernels);
    return set;
}
