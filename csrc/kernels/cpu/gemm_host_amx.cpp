/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A piece of 32 x 32 results is four tiles of the unit; each 32 of k bring two tiles of A and two
 * of B to four products. Pieces at the tile's edge go through a buffer, which carries the sums so
 * far, so that their order of summation is that of all others.
 */
#include "gemm_host_amx.h"

#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TARGET_AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw")))

namespace
{

constexpr int32_t kExtent = IRIS_AMX_EXTENT;
constexpr int32_t kTile = 16;
constexpr int64_t kTileElements = kTile * kExtent; /* 1 KiB */

int64_t blocks_of(int64_t extent)
{
    return (extent + kExtent - 1) / kExtent;
}

uint16_t element(const char *address, int64_t index)
{
    uint16_t value;
    memcpy(&value, address + 2 * index, sizeof value);
    return value;
}

} // namespace

void iris_amx_pack_a(const char *address, int64_t stride_row, int64_t stride_col, int32_t rows,
                     int64_t kc, uint16_t *out)
{
    const int64_t depth = blocks_of(kc);

    for (int64_t row = 0; row < blocks_of(rows) * kExtent; ++row) {
        const char *from = address + 2 * row * stride_row;
        uint16_t *to = out + row / kExtent * depth * 2 * kTileElements +
                       row % kExtent / kTile * kTileElements + row % kTile * kExtent;
        for (int64_t k = 0; k < kc; k += kExtent, to += 2 * kTileElements) {
            const int64_t n = row >= rows ? 0 : kc - k < kExtent ? kc - k : kExtent;
            if (n < kExtent)
                memset(to, 0, 2 * kExtent);
            if (stride_col == 1)
                memcpy(to, from + 2 * k, (size_t)(2 * n));
            else
                for (int64_t i = 0; i < n; ++i)
                    to[i] = element(from, (k + i) * stride_col);
        }
    }
}

/* 32 rows of B, `tiles` whole tiles wide: reads along the rows, a pair of them at a time. `pitch`:
 * elements from a panel's tiles to the next panel's. */
TARGET_AMX static void pack_b_rows(const char *from, int64_t stride_row, int64_t tiles,
                                   int64_t pitch, uint16_t *out)
{
    for (int64_t pair = 0; pair < kTile; ++pair) {
        const char *even_row = from + 2 * (2 * pair) * stride_row;
        const char *odd_row = even_row + 2 * stride_row;
        for (int64_t tile = 0; tile < tiles; ++tile) {
            uint16_t *to = out + tile / 2 * pitch + tile % 2 * kTileElements + pair * 2 * kTile;
            uint16_t even[kTile], odd[kTile];
            memcpy(even, even_row + 2 * tile * kTile, sizeof even);
            memcpy(odd, odd_row + 2 * tile * kTile, sizeof odd);
            for (int64_t j = 0; j < kTile; ++j) {
                to[2 * j] = even[j];
                to[2 * j + 1] = odd[j];
            }
        }
    }
}

/* A whole tile, from columns of B: pairs lie side by side, one column apart from the next. */
TARGET_AMX static void pack_b_columns(const char *from, int64_t stride_col, uint16_t *to)
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offset = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)(2 * stride_col)));

    for (int64_t pair = 0; pair < kTile; ++pair)
        _mm512_storeu_si512(to + pair * 2 * kTile,
                            _mm512_mask_i32gather_epi32(zero, 0xffff, offset, from + 4 * pair, 1));
}

/* One tile: up to 32 k of up to 16 columns. */
static void pack_b_tile(const char *from, int64_t stride_row, int64_t stride_col, int64_t cols,
                        int64_t kc, uint16_t *to)
{
    /* So that the distance of 16 columns fits 31 bits. */
    constexpr int64_t kFar = INT32_MAX / (2 * kTile);

    if (cols == kTile && kc == kExtent && stride_row == 1 && stride_col > -kFar &&
        stride_col < kFar) {
        pack_b_columns(from, stride_col, to);
        return;
    }
    memset(to, 0, 2 * kTileElements);
    for (int64_t j = 0; j < cols; ++j)
        for (int64_t k = 0; k < kc; ++k)
            to[k / 2 * 2 * kTile + 2 * j + k % 2] = element(from, k * stride_row + j * stride_col);
}

void iris_amx_pack_b(const char *address, int64_t stride_row, int64_t stride_col, int32_t cols,
                     int64_t kc, uint16_t *out)
{
    const int64_t pitch = blocks_of(kc) * 2 * kTileElements;

    for (int64_t k = 0; k < kc; k += kExtent, out += 2 * kTileElements) {
        const int64_t nk = kc - k < kExtent ? kc - k : kExtent;
        const char *from = address + 2 * k * stride_row;
        const int64_t by_rows = stride_col == 1 && nk == kExtent ? cols / kTile : 0;
        if (by_rows > 0)
            pack_b_rows(from, stride_row, by_rows, pitch, out);
        for (int64_t tile = by_rows; tile < 2 * blocks_of(cols); ++tile) {
            const int64_t left = cols - tile * kTile;
            const int64_t nj = left < 0 ? 0 : left < kTile ? left : kTile;
            pack_b_tile(from + 2 * tile * kTile * stride_col, stride_row, stride_col, nj, nk,
                        out + tile / 2 * pitch + tile % 2 * kTileElements);
        }
    }
}

namespace
{

/* What the unit is told of its tiles: all eight are 16 rows of 64 bytes. */
struct alignas(64) tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_nbytes[16];
    uint8_t rows[16];
};

constexpr tile_shapes all_alike()
{
    tile_shapes shapes = {};
    shapes.palette = 1;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.row_nbytes[tile] = 64;
        shapes.rows[tile] = kTile;
    }
    return shapes;
}

/* Constant data: compilers do not see that loading it reads all of it. */
constexpr tile_shapes kShapes = all_alike();

TARGET_AMX void multiply_piece(const uint16_t *a, const uint16_t *b, int64_t depth, float *out,
                               int64_t ld, bool add_to_out)
{
    const long pitch = (long)(ld * 4);

    if (add_to_out) {
        _tile_loadd(0, out, pitch);
        _tile_loadd(1, out + kTile, pitch);
        _tile_loadd(2, out + kTile * ld, pitch);
        _tile_loadd(3, out + kTile * ld + kTile, pitch);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (; depth > 0; --depth, a += 2 * kTileElements, b += 2 * kTileElements) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + kTileElements, 64);
        _tile_loadd(5, a + kTileElements, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, pitch);
    _tile_stored(1, out + kTile, pitch);
    _tile_stored(2, out + kTile * ld, pitch);
    _tile_stored(3, out + kTile * ld + kTile, pitch);
}

void multiply_edge(const uint16_t *a, const uint16_t *b, int64_t depth, int32_t rows, int32_t cols,
                   float *out, int64_t ld, bool add_to_out)
{
    alignas(64) float piece[kExtent * kExtent] = {};

    for (int32_t i = 0; i < rows && add_to_out; ++i)
        memcpy(piece + i * kExtent, out + i * ld, (size_t)cols * sizeof *out);
    multiply_piece(a, b, depth, piece, kExtent, add_to_out);
    for (int32_t i = 0; i < rows; ++i)
        memcpy(out + i * ld, piece + i * kExtent, (size_t)cols * sizeof *out);
}

TARGET_AMX void configure_tiles()
{
    _tile_loadconfig(&kShapes);
}

TARGET_AMX void release_tiles()
{
    _tile_release();
}

/* The kernel saves the unit's large state only for processes that have asked for it. */
bool ask_for_permission()
{
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    uint32_t a = 0, b = 0, c = 0, d = 0;

    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d >> 22 & 1u) == 0 || (d >> 24 & 1u) == 0)
        return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

} // namespace

bool iris_amx_usable(void)
{
    enum { kUnknown, kNo, kYes };
    static int answer;
    int seen = __atomic_load_n(&answer, __ATOMIC_RELAXED);

    if (seen == kUnknown) { /* threads that race get the same answer */
        seen = ask_for_permission() ? kYes : kNo;
        __atomic_store_n(&answer, seen, __ATOMIC_RELAXED);
    }
    return seen == kYes;
}

void iris_amx_multiply(const uint16_t *a, const uint16_t *b, int32_t rows, int32_t cols, int64_t kc,
                       float *out, int64_t ld, bool add_to_out)
{
    const int64_t depth = blocks_of(kc), panel = depth * 2 * kTileElements;

    configure_tiles();
    for (int32_t j = 0; j < cols; j += kExtent, b += panel) {
        const uint16_t *rows_of_a = a;
        for (int32_t i = 0; i < rows; i += kExtent, rows_of_a += panel) {
            const int32_t height = rows - i < kExtent ? rows - i : kExtent;
            const int32_t width = cols - j < kExtent ? cols - j : kExtent;
            float *piece = out + i * ld + j;
            if (height == kExtent && width == kExtent)
                multiply_piece(rows_of_a, b, depth, piece, ld, add_to_out);
            else
                multiply_edge(rows_of_a, b, depth, height, width, piece, ld, add_to_out);
        }
    }
    release_tiles();
}

#else /* no such unit */

bool iris_amx_usable(void)
{
    return false;
}

void iris_amx_pack_a(const char *, int64_t, int64_t, int32_t, int64_t, uint16_t *)
{
}

void iris_amx_pack_b(const char *, int64_t, int64_t, int32_t, int64_t, uint16_t *)
{
}

void iris_amx_multiply(const uint16_t *, const uint16_t *, int32_t, int32_t, int64_t, float *,
                       int64_t, bool)
{
}

#endif
