/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A wave's part of a product of few rows on CDNA: 64 columns of C by all rows, summed over steps of
 * 64 of K. The weights, B, are streamed from memory to be used once; their columns are the M of
 * MFMA, the tokens, A's rows, its N, in blocks of 32. So a lane holds runs of four neighbouring
 * columns of C, which are words of the exchange.
 *
 * Waves share nothing but the chip's caches: each loads, turns and multiplies what it needs in LDS
 * of its own, without a barrier. A step is 8 KiB of weights, a line of 128 bytes of each column, or
 * of each k: 16 bytes a lane, eight lanes a line. The next step's loads are issued as soon as this
 * one's have left their registers, so that a wave has 8 KiB on their way at any time, and a compute
 * unit 32 KiB, also from one tile to the next. What a memory of 5.3 TB/s that answers after a
 * microsecond needs of each of 304 units is 17 KiB.
 *
 *   LDS of a wave     written as                                     read as
 *   weights, 8 KiB    64 rows of 128 bytes of K, chunks exchanged    fragments of MFMA
 *   tokens, 4 KiB     32 rows, in the same way, block after block    the same
 */
#ifndef IRIS_DECODE_STREAM_CDNA_H
#define IRIS_DECODE_STREAM_CDNA_H

#include "tile_cdna.h"

namespace iris
{

constexpr int32_t kDecodeWaves = 4;
constexpr int32_t kLineChunks = 8;                    /* of 128 bytes */
constexpr int32_t kDecodeStep = IRIS_DECODE_STEP;     /* elements of K: a line */
constexpr int32_t kDecodeTokens = 32;                 /* of a block */
constexpr int32_t kDecodeColumns = IRIS_DECODE_COLS;  /* of a tile */
constexpr int32_t kWeightChunks = kDecodeColumns / 8; /* of a lane and a step */
constexpr int32_t kTokenChunks = kDecodeTokens / 8;   /* of a lane and a block */
constexpr int32_t kLineBytes = kLineChunks * kChunkBytes;

struct decode_wave_shared {
    alignas(16) char weights[kDecodeColumns * kLineBytes];
    alignas(16) char tokens[kDecodeTokens * kLineBytes];
};

/* A value that is the same in all lanes, so that branches on it need no mask. */
IRIS_INLINE int32_t of_wave(int32_t value)
{
    return __builtin_amdgcn_readfirstlane(value);
}

/* Chunk c of row r lies at place c ^ low(r mod 8) ^ high(r / 8) of the row: writes of eight lanes,
 * of one row or of one chunk of every eighth row, and the reads that LDS serves at once (see
 * kStageRows) meet no bank twice. On gfx950 rows of the same parity share banks. */
#if defined(__gfx950__)
IRIS_INLINE constexpr int32_t low_exchange(int32_t row)
{
    return row / 2;
}
IRIS_INLINE constexpr int32_t high_exchange(int32_t rows8)
{
    return rows8 ^ (rows8 & 2) << 1;
}
#else
IRIS_INLINE constexpr int32_t low_exchange(int32_t row)
{
    return row;
}
IRIS_INLINE constexpr int32_t high_exchange(int32_t rows8)
{
    return rows8;
}
#endif

IRIS_INLINE int32_t line_offset(int32_t rows8, int32_t row, int32_t chunk)
{
    return (rows8 * 8 + row) * kLineBytes +
           (chunk ^ low_exchange(row) ^ high_exchange(rows8)) * kChunkBytes;
}

/* ---- operands ---- */

/* Rows of K of 16-bit elements: tokens, or the columns of the weights. */
template <typename T> struct decode_operand {
    uint64_t address;
    int64_t stride_mn, stride_k;
    int32_t count; /* of rows */
    operand_order order;

    IRIS_INLINE const T *at(int64_t mn, int64_t k) const
    {
        return device_pointer<const T>(address) + mn * stride_mn + k * stride_k;
    }
    IRIS_INLINE uint64_t address_of(int64_t mn, int64_t k) const
    {
        return (uint64_t)uniform(
            (int64_t)(address + (uint64_t)(mn * stride_mn + k * stride_k) * sizeof(T)));
    }
};

/* mn_runs only where all runs are whole. Offsets of `reach` rows or k have 32 bits. */
template <typename T>
IRIS_INLINE decode_operand<T> decode_operand_of(const iris_matrix_args &matrix, int64_t stride_mn,
                                                int64_t stride_k, int32_t count, int32_t reach)
{
    constexpr int64_t kMost = INT64_C(1) << 30;
    operand_order order = operand_order::elements;
    if (count == 1)
        stride_mn = 0;
    if (has_vector_rows<T>(matrix.address, stride_mn, stride_k) &&
        stride_mn * reach * (int64_t)sizeof(T) < kMost)
        order = operand_order::k_runs;
    else if (has_vector_rows<T>(matrix.address, stride_k, stride_mn) && count % kChunk<T> == 0 &&
             stride_k * kDecodeStep * (int64_t)sizeof(T) < kMost)
        order = operand_order::mn_runs;
    return {matrix.address, stride_mn, stride_k, count, order};
}

/* Loads and stores the rows [first, first + 8 kCount) from k on, as far as there are any, element
 * by element; beyond K zeros, beyond the last row that row again. */
template <typename T, int32_t kCount>
IRIS_INLINE void move_elements(char *lines, const decode_operand<T> &operand, int32_t first,
                               int64_t k, int64_t K, int32_t lane)
{
    const int64_t at = k + lane % kLineChunks * kChunk<T>, left = K - at;
    const int32_t n = left >= kChunk<T> ? kChunk<T> : left > 0 ? (int32_t)left : 0;
    const int32_t last = operand.count - 1;
    IRIS_NO_UNROLL
    for (int32_t i = 0; i < kCount; ++i) {
        const int32_t wanted = first + 8 * i + lane / kLineChunks;
        store_chunk(
            lines + line_offset(i, lane / kLineChunks, lane % kLineChunks),
            load_run(operand.at(wanted < last ? wanted : last, at), operand.stride_k, n, false));
    }
}

/* Loads step after step of a tile's weights: from an address that is the same in all lanes and
 * moves on, at offsets that stay. Columns that the tile lacks are copies of its last ones. */
template <typename T, bool kMn> class weight_stream
{
  public:
    IRIS_INLINE weight_stream(const decode_operand<T> &operand, int32_t lane)
        : operand_(operand), lane_(lane)
    {
    }

    /* The columns from col on are next. */
    IRIS_INLINE void aim(int32_t col)
    {
        const int32_t left = operand_.count - col;
#pragma unroll
        for (int32_t i = 0; i < kWeightChunks; ++i) {
            const int32_t last = left - (kMn ? kChunk<T> : 1);
            const int32_t wanted = kMn ? lane_ % kLineChunks * kChunk<T> : 8 * i + lane_ / 8;
            const int32_t mn = wanted < last ? wanted : last;
            const int64_t at = kMn ? (lane_ / 8 * 8 + i) * operand_.stride_k + mn
                                   : mn * operand_.stride_mn + lane_ % kLineChunks * kChunk<T>;
            offset_[i] = (uint32_t)(at * (int64_t)sizeof(T));
        }
    }

    /* Where the step that begins at k begins, of the columns from col on. */
    IRIS_INLINE uint64_t address_of(int32_t col, int64_t k) const
    {
        return operand_.address_of(col, k);
    }

    /* From there to `inner` k later, in bytes. */
    IRIS_INLINE uint64_t advance(int32_t inner) const
    {
        return (kMn ? (uint64_t)(uint32_t)of_wave((int32_t)operand_.stride_k) : 1) *
               (uint64_t)(inner * (int32_t)sizeof(T));
    }

    IRIS_INLINE void load(uint64_t address)
    {
        const char *base = device_pointer<const char>(address);
#pragma unroll
        for (int32_t i = 0; i < kWeightChunks; ++i)
            chunks_[i] = load_chunk(base + narrow(offset_[i]));
    }

    /* What has been loaded. */
    IRIS_INLINE void store(char *lines) const
    {
        if constexpr (!kMn) {
#pragma unroll
            for (int32_t i = 0; i < kWeightChunks; ++i)
                store_chunk(lines + line_offset(i, lane_ / 8, lane_ % 8), chunks_[i]);
        } else { /* eight columns of eight k: turned in registers */
#pragma unroll
            for (int32_t j = 0; j < 8; ++j) {
                chunk16 row;
#pragma unroll
                for (int32_t pair = 0; pair < 4; ++pair) {
                    const uint32_t first = chunks_[2 * pair].word[j / 2];
                    const uint32_t second = chunks_[2 * pair + 1].word[j / 2];
                    row.word[pair] =
                        j % 2 == 0 ? low_halves(first, second) : high_halves(first, second);
                }
                store_chunk(lines + line_offset(lane_ % 8, j, lane_ / 8), row);
            }
        }
    }

  private:
    const decode_operand<T> &operand_;
    int32_t lane_;
    uint32_t offset_[kWeightChunks];
    chunk16 chunks_[kWeightChunks];
};

/* Loads blocks of tokens that lie in runs of K, some blocks ahead. */
template <typename T, int32_t kAhead> class token_stream
{
  public:
    IRIS_INLINE token_stream(const decode_operand<T> &operand, int32_t first, int32_t lane)
        : operand_(operand), stride_((uint32_t)operand.stride_mn * (uint32_t)sizeof(T)),
          last_(operand.count - 1), row_(first + lane / 8), lane_(lane),
          offset_((uint32_t)(lane % 8 * kChunkBytes))
    {
    }

    /* Where the step that begins at k begins. */
    IRIS_INLINE uint64_t address_of(int64_t k) const
    {
        return operand_.address_of(0, k);
    }

    /* The block of a step, whose K begins at the address. */
    IRIS_INLINE void load(uint64_t address, int32_t block)
    {
        const char *base = device_pointer<const char>(address);
#pragma unroll
        for (int32_t i = 0; i < kTokenChunks; ++i) {
            const int32_t wanted = block * kDecodeTokens + 8 * i + row_;
            const uint32_t row = (uint32_t)(wanted < last_ ? wanted : last_);
            chunks_[block % kAhead][i] = load_chunk(base + narrow(row * stride_ + offset_));
        }
    }

    IRIS_INLINE void store(char *lines, int32_t block) const
    {
#pragma unroll
        for (int32_t i = 0; i < kTokenChunks; ++i)
            store_chunk(lines + line_offset(i, lane_ / 8, lane_ % 8), chunks_[block % kAhead][i]);
    }

  private:
    const decode_operand<T> &operand_;
    uint32_t stride_;
    int32_t last_, row_, lane_;
    uint32_t offset_;
    chunk16 chunks_[kAhead][kTokenChunks];
};

/* ---- products ---- */

/* The sums of 64 columns and 32 kBlocks rows: of block b, columns 32 c to 32 c + 31, a lane has
 * columns 8 (i / 4) + 4 (lane / 32) + i mod 4 of row lane mod 32. */
template <int32_t kBlocks> struct decode_sums {
    floats16 part[kBlocks][2];

    IRIS_INLINE void clear()
    {
#pragma unroll
        for (int32_t b = 0; b < kBlocks; ++b)
            part[b][0] = part[b][1] = floats16{};
    }
};

struct weight_fragments {
    chunk16 part[2][4];
};

/* Of row lane mod 32 of 32 rows, from the rows8'th eight on, what MFMA takes as its i-th of 32
 * bytes of K. */
IRIS_INLINE chunk16 fragment(const char *lines, int32_t rows8, int32_t i, int32_t lane)
{
    return *reinterpret_cast<const chunk16 *>(
        lines + line_offset(rows8 + lane % 32 / 8, lane % 8, 2 * i + lane / 32));
}

IRIS_INLINE void read_weights(weight_fragments &weights, const char *lines, int32_t lane)
{
#pragma unroll
    for (int32_t i = 0; i < 4; ++i)
#pragma unroll
        for (int32_t c = 0; c < 2; ++c)
            weights.part[c][i] = fragment(lines, 4 * c, i, lane);
}

template <typename T, int32_t kBlocks>
IRIS_INLINE void multiply_block(decode_sums<kBlocks> &sums, const weight_fragments &weights,
                                const char *lines, int32_t block, int32_t lane)
{
    chunk16 tokens[4];
#pragma unroll
    for (int32_t i = 0; i < 4; ++i)
        tokens[i] = fragment(lines, 0, i, lane);
#pragma unroll
    for (int32_t i = 0; i < 4; ++i)
#pragma unroll
        for (int32_t c = 0; c < 2; ++c)
            sums.part[block][c] = mfma_chunk<T>(weights.part[c][i], tokens[i], sums.part[block][c]);
}

/* A step whose operands lie in any way, or that K ends in. */
template <typename T, int32_t kBlocks>
IRIS_INLINE void multiply_elements(decode_sums<kBlocks> &sums, const decode_operand<T> &tokens,
                                   int32_t first_row, const decode_operand<T> &weights, int32_t col,
                                   int64_t k, int64_t K, decode_wave_shared *shared, int32_t lane)
{
    weight_fragments of_step;
    exchange_lanes();
    move_elements<T, kWeightChunks>(shared->weights, weights, col, k, K, lane);
    exchange_lanes();
    read_weights(of_step, shared->weights, lane);
#pragma unroll
    for (int32_t b = 0; b < kBlocks; ++b) {
        move_elements<T, kTokenChunks>(shared->tokens, tokens, first_row + b * kDecodeTokens, k, K,
                                       lane);
        exchange_lanes();
        multiply_block<T>(sums, of_step, shared->tokens, b, lane);
        exchange_lanes();
    }
}

} // namespace iris

#endif
