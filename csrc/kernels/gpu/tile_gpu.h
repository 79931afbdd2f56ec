/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the GPU targets' tile verbs share: 16-byte chunks of elements, their conversion to fp32 and
 * back, and plain bytes. A chunk is the widest access of a thread; neighbouring threads take
 * neighbouring chunks, so that a wave's access is one contiguous run.
 */
#ifndef IRIS_TILE_GPU_H
#define IRIS_TILE_GPU_H

#include "chunk.h"
#include "convert_gpu.h"
#include "kernels/abi/schedule.h"
#include "kernels/base/kernel.h"
#include "kernels/base/reduce_ops.h"
#include "kernels/protocol/sync.h"

namespace iris
{

IRIS_INLINE void store_chunk(char *target, const chunk16 &value)
{
    *reinterpret_cast<chunk16 *>(target) = value;
}

/* For other work-groups or ranks: see push. */
IRIS_INLINE void push_chunk(char *target, const chunk16 &value)
{
    push(reinterpret_cast<chunk16 *>(target), value);
}

/* A chunk's elements as fp32, and back with one rounding each. */
IRIS_INLINE void unpack(const chunk16 &c, float (&out)[4], float)
{
    for (int i = 0; i < 4; ++i)
        out[i] = bits_to_float(c.word[i]);
}

IRIS_INLINE chunk16 pack(const float (&values)[4], float)
{
    chunk16 c;
    for (int i = 0; i < 4; ++i)
        c.word[i] = float_to_bits(values[i]);
    return c;
}

IRIS_INLINE void unpack(const chunk16 &c, int32_t (&out)[4], int32_t)
{
    for (int i = 0; i < 4; ++i)
        out[i] = (int32_t)c.word[i];
}

IRIS_INLINE chunk16 pack(const int32_t (&values)[4], int32_t)
{
    chunk16 c;
    for (int i = 0; i < 4; ++i)
        c.word[i] = (uint32_t)values[i];
    return c;
}

IRIS_INLINE void unpack(const chunk16 &c, int64_t (&out)[2], int64_t)
{
    for (int i = 0; i < 2; ++i)
        out[i] = (int64_t)((uint64_t)c.word[2 * i + 1] << 32 | c.word[2 * i]);
}

IRIS_INLINE chunk16 pack(const int64_t (&values)[2], int64_t)
{
    chunk16 c;
    for (int i = 0; i < 2; ++i) {
        c.word[2 * i] = (uint32_t)values[i];
        c.word[2 * i + 1] = (uint32_t)((uint64_t)values[i] >> 32);
    }
    return c;
}

IRIS_INLINE void unpack(const chunk16 &c, double (&out)[2], double)
{
    for (int i = 0; i < 2; ++i)
        out[i] = bits_to_double((uint64_t)c.word[2 * i + 1] << 32 | c.word[2 * i]);
}

IRIS_INLINE chunk16 pack(const double (&values)[2], double)
{
    chunk16 c;
    for (int i = 0; i < 2; ++i) {
        c.word[2 * i] = (uint32_t)double_to_bits(values[i]);
        c.word[2 * i + 1] = (uint32_t)(double_to_bits(values[i]) >> 32);
    }
    return c;
}

/* Integers of a byte. */
template <typename T> IRIS_INLINE void unpack(const chunk16 &c, int32_t (&out)[16], T)
{
    for (int i = 0; i < 16; ++i)
        out[i] = (T)(c.word[i / 4] >> (8 * (i % 4)));
}

template <typename T> IRIS_INLINE chunk16 pack(const int32_t (&values)[16], T)
{
    chunk16 c = {{0, 0, 0, 0}};
    for (int i = 0; i < 16; ++i)
        c.word[i / 4] |= ((uint32_t)values[i] & 0xffu) << (8 * (i % 4));
    return c;
}

template <typename T> IRIS_INLINE void unpack(const chunk16 &c, float (&out)[8], T)
{
    for (int i = 0; i < 4; ++i) {
        out[2 * i] = to_float(T{(uint16_t)c.word[i]});
        out[2 * i + 1] = to_float(T{(uint16_t)(c.word[i] >> 16)});
    }
}

template <typename T> IRIS_INLINE chunk16 pack(const float (&values)[8], T)
{
    chunk16 c;
    for (int i = 0; i < 4; ++i)
        c.word[i] = pack_pair<T>(values[2 * i], values[2 * i + 1]);
    return c;
}

/* One row's run of a matrix in memory, of which `count` elements exist, possibly none; the rest is
 * zero. `vector`: the run is contiguous and 16-byte aligned. */
template <typename T>
IRIS_INLINE chunk16 load_run(const T *source, int64_t stride, int32_t count, bool vector)
{
    if (vector && count >= kChunk<T>)
        return load_chunk(reinterpret_cast<const char *>(source));
    acc_t<T> values[kChunk<T>];
    if (count <= 0)
        return chunk16{{0, 0, 0, 0}};
    /* The last element stands in for those that are missing, whose bits are then cleared: neither a
     * branch nor a mask register for each of them. */
#pragma unroll
    for (int i = 0; i < kChunk<T>; ++i) {
        const int32_t past = i - opaque(count); /* < 0: the element exists */
        const T element = source[(past < 0 ? i : count - 1) * stride];
        if constexpr (is_integer<T>::value)
            values[i] = element & (T)(past >> 31);
        else if constexpr (kSumsInFloat<T>)
            values[i] = bits_to_float(float_to_bits(to_float(element)) & (uint32_t)(past >> 31));
    }
    return pack(values, T{}); /* exact */
}

IRIS_INLINE chunk16 load_run(const double *source, int64_t stride, int32_t count, bool vector)
{
    return load_run(reinterpret_cast<const int64_t *>(source), stride, count, vector);
}

IRIS_INLINE chunk16 load_run(const float8_t *source, int64_t stride, int32_t count, bool vector)
{
    return load_run(reinterpret_cast<const uint8_t *>(source), stride, count, vector);
}

/* Whom a store is for: this launch's own work-group and later launches, or others too. */
enum class reader { own, all };

template <reader kReader = reader::all, typename T>
IRIS_INLINE void store_for(T *target, const T &value)
{
    if constexpr (kReader == reader::all)
        push(target, value);
    else
        *target = value;
}

template <reader kReader = reader::all, typename T>
IRIS_INLINE void store_run(T *target, int64_t stride, int32_t count, bool vector, const chunk16 &c)
{
    if (vector && count >= kChunk<T>) {
        store_for<kReader>(reinterpret_cast<chunk16 *>(target), c);
        return;
    }
    acc_t<T> values[kChunk<T>];
    unpack(c, values, T{});
#pragma unroll
    for (int i = 0; i < kChunk<T>; ++i) {
        if (i >= opaque(count))
            continue;
        if constexpr (kSumsInFloat<T>)
            store_for<kReader>(target + i * stride, from_float<T>(values[i]));
        else
            store_for<kReader>(target + i * stride, (T)values[i]);
    }
}

IRIS_INLINE void store_run(float8_t *target, int64_t stride, int32_t count, bool vector,
                           const chunk16 &c)
{
    store_run(reinterpret_cast<uint8_t *>(target), stride, count, vector, c);
}

/* Whether rows of the matrix can be accessed by chunks that start at multiples of a chunk. */
template <typename T> IRIS_INLINE bool has_vector_rows(uint64_t address, int64_t row, int64_t col)
{
    return col == 1 && is_aligned(address) && is_aligned((uint64_t)row * sizeof(T));
}

/* How sums are rounded: `careful` takes any; `finite` those of finite terms and of one that may be
 * anything of the dtype. */
struct careful {
    template <typename T> static IRIS_INLINE uint32_t pair(float low, float high)
    {
        return pack_pair<T>(low, high);
    }
};

struct finite {
    template <typename T> static IRIS_INLINE uint32_t pair(float low, float high)
    {
        return pack_finite_pair<T>(low, high);
    }
};

/* Neighbouring elements of shared memory, aligned to their own size. */
template <class Rounding> IRIS_INLINE void store_values(float *target, const float (&values)[1])
{
    *target = values[0];
}

template <class Rounding> IRIS_INLINE void store_values(float *target, const float (&values)[4])
{
    store_chunk(reinterpret_cast<char *>(target), pack(values, 0.0f));
}

template <class Rounding, typename T>
IRIS_INLINE void store_values(T *target, const float (&values)[4])
{
    struct alignas(8) pairs {
        uint32_t word[2];
    };
    *reinterpret_cast<pairs *>(target) = pairs{{Rounding::template pair<T>(values[0], values[1]),
                                                Rounding::template pair<T>(values[2], values[3])}};
}

/* ---- rows, by the whole group ---- */

/* This thread's chunks of a matrix, one after the other: row by row, neighbouring threads with
 * neighbouring chunks. No division but for the first: a thread has little else to do. */
class chunk_walk
{
  public:
    IRIS_INLINE chunk_walk(work_group wg, int32_t row_chunks)
        : row_chunks_(row_chunks), row_(wg.thread / row_chunks), chunk_(wg.thread % row_chunks),
          rows_(wg.threads / row_chunks), chunks_(wg.threads % row_chunks)
    {
    }

    IRIS_INLINE int32_t row() const
    {
        return row_;
    }

    /* Of the row. */
    IRIS_INLINE int32_t chunk() const
    {
        return chunk_;
    }

    IRIS_INLINE void advance()
    {
        row_ += rows_;
        chunk_ += chunks_;
        if (chunk_ >= row_chunks_) {
            chunk_ -= row_chunks_;
            ++row_;
        }
    }

  private:
    int32_t row_chunks_, row_, chunk_, rows_, chunks_;
};

/* Copies the rows of a matrix to `count` others, target(i), which all have the strides and the
 * alignment of the first. Each element is read once. */
template <typename T, class Target>
IRIS_INLINE void copy_runs(work_group wg, extent size, const matrix<const T> &source, int32_t count,
                           Target target)
{
    /* In flight: enough to hide the latency of memory among some dozens of groups. More would only
     * queue before a link, where what others load and store has to pass too. */
    constexpr int32_t kBatch = 4;
    constexpr int64_t kNone = INT64_MIN; /* of chunks */
    const matrix<T> first = target(0);
    const bool whole =
        size.cols % kChunk<T> == 0 &&
        has_vector_rows<T>((uint64_t)source.data, source.stride_row, source.stride_col) &&
        has_vector_rows<T>((uint64_t)first.data, first.stride_row, first.stride_col);
    chunk_walk at(wg, (size.cols + kChunk<T> - 1) / kChunk<T>);

    if (!whole) {
        IRIS_NO_UNROLL
        for (; at.row() < size.rows; at.advance()) {
            const int32_t col = at.chunk() * kChunk<T>;
            const chunk16 c = load_run(source.tile(at.row(), col).data, source.stride_col,
                                       size.cols - col, false);
            IRIS_NO_UNROLL
            for (int32_t t = 0; t < count; ++t)
                store_run(target(t).tile(at.row(), col).data, first.stride_col, size.cols - col,
                          false, c);
        }
        return;
    }
    IRIS_NO_UNROLL
    while (at.row() < size.rows) {
        chunk16 c[kBatch];
        int64_t offset[kBatch];
#pragma unroll
        for (int32_t b = 0; b < kBatch; ++b, at.advance()) {
            const int32_t col = at.chunk() * kChunk<T>;
            offset[b] = at.row() < size.rows ? at.row() * first.stride_row + col : kNone;
            if (offset[b] != kNone)
                c[b] = load_chunk(reinterpret_cast<const char *>(
                    source.data + at.row() * source.stride_row + col));
        }
        IRIS_NO_UNROLL
        for (int32_t t = 0; t < count; ++t) {
            T *const to = target(t).data;
#pragma unroll
            for (int32_t b = 0; b < kBatch; ++b)
                if (offset[b] != kNone)
                    push_chunk(reinterpret_cast<char *>(to + offset[b]), c[b]);
        }
    }
}

/* ---- plain bytes, by the whole group ---- */

IRIS_INLINE void clear_bytes(work_group wg, void *target, uint64_t nbytes)
{
    char *bytes = static_cast<char *>(target);
    const uint64_t whole = is_aligned((uint64_t)bytes) ? nbytes / kChunkBytes * kChunkBytes : 0;
    for (uint64_t i = (uint64_t)wg.thread * kChunkBytes; i < whole;
         i += (uint64_t)wg.threads * kChunkBytes)
        push_chunk(bytes + i, chunk16{{0, 0, 0, 0}});
    for (uint64_t i = whole + (uint64_t)wg.thread; i < nbytes; i += (uint64_t)wg.threads)
        push(bytes + i, (char)0);
}

IRIS_INLINE void copy_bytes(work_group wg, void *target, const void *source, uint64_t nbytes)
{
    char *to = static_cast<char *>(target);
    const char *from = static_cast<const char *>(source);
    const bool aligned = is_aligned((uint64_t)to) && is_aligned((uint64_t)from);
    const uint64_t step = (uint64_t)wg.threads * kChunkBytes;
    const uint64_t whole = aligned ? nbytes / kChunkBytes * kChunkBytes : 0;
    uint64_t i = (uint64_t)wg.thread * kChunkBytes;

    for (; i + 3 * step < whole; i += 4 * step) { /* four in flight */
        chunk16 c[4];
#pragma unroll
        for (int k = 0; k < 4; ++k)
            c[k] = load_chunk(from + i + k * step);
#pragma unroll
        for (int k = 0; k < 4; ++k)
            push_chunk(to + i + k * step, c[k]);
    }
    for (; i < whole; i += step)
        push_chunk(to + i, load_chunk(from + i));
    for (i = whole + (uint64_t)wg.thread; i < nbytes; i += (uint64_t)wg.threads) {
        const char byte = from[i];
        push(to + i, byte);
    }
}

} // namespace iris

#endif
