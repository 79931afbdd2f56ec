/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One tile of a matrix product, after Goto and van de Geijn ("Anatomy of High-Performance Matrix
 * Multiplication", 2008): K is cut into blocks of kBlockK; of each block, A's rows and B's columns
 * are packed into panels of the micro-kernel's height and width, widened to fp32; the micro-kernel
 * keeps a piece of the result in registers through the block. A panel of B stays in the L1 cache
 * while A's panels pass by; the packed block of A, that of B and the tile of the result share L2.
 *
 * While the micro-kernels compute, they also fetch into L2 what the next block's packing will read:
 * its source is strided over many pages, which hardware prefetchers follow badly.
 *
 * Packed panels are kept for the next tiles where that pays: B's of all blocks of K unless they
 * exceed kKeepB, A's unless they exceed kKeepA (a block of A that is packed anew is at least still
 * in L2). Tiles usually go down the rows, then to the next column: with a short K, A's panels of
 * many tile rows are kept for the columns to come, which takes a thirtieth off a product with a K
 * of 128 or 256.
 *
 * NOTE [order of summation] An element's sum runs in order of k within a block of kBlockK, then
 * block after block; kBlockK is the same for every tile, dtype and instruction set. All
 * micro-kernels do the same arithmetic on an element, so its bits do not depend on the place and
 * size of the tile. Tiles cut by the matrix's edge have panels of fewer rows and lines filled up
 * with zeros, whose products are not stored.
 */
#include "gemm_host.h"

#include <stdlib.h>
#include <string.h>

#include "gemm_host_amx.h"
#include "gemm_host_isa.h"

namespace
{

/* The best set that the machine has, or the one below it that IRIS_C_CPU_ISA asks for. */
const instruction_set *choose_set()
{
#if defined(__x86_64__)
    const char *wanted = getenv("IRIS_C_CPU_ISA");
    const bool at_most_avx2 = wanted != nullptr && strcmp(wanted, "avx2") == 0;
    const bool at_most_generic = wanted != nullptr && strcmp(wanted, "generic") == 0;
    uint32_t leaf_a = 0, leaf_b = 0, leaf_c = 0, leaf_d = 0;
    const bool f16c =
        __get_cpuid(1, &leaf_a, &leaf_b, &leaf_c, &leaf_d) != 0 && (leaf_c & bit_F16C);
    const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");

    if (avx512 && !at_most_avx2 && !at_most_generic)
        return &avx512_set;
    if (avx2 && !at_most_generic)
        return &avx2_set;
#endif
    return &generic_set;
}

/* Chosen once; threads that race choose the same. */
const instruction_set &current_set()
{
    static const instruction_set *chosen;
    const instruction_set *seen = __atomic_load_n(&chosen, __ATOMIC_RELAXED);

    if (seen == nullptr) {
        seen = choose_set();
        __atomic_store_n(&chosen, seen, __ATOMIC_RELAXED);
    }
    return *seen;
}

int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

int64_t at_most(int64_t value, int64_t limit)
{
    return value < limit ? value : limit;
}

int64_t at_least(int64_t value, int64_t limit)
{
    return value > limit ? value : limit;
}

/* What a buffer of packed panels holds, if it holds all of K. */
struct panel_key {
    iris_gemm_operand operand;
    int64_t origin, K;
    int32_t extent; /* rows of A or columns of B; 0: nothing */

    bool operator==(const panel_key &other) const
    {
        return extent == other.extent && origin == other.origin && K == other.K &&
               operand.dtype == other.operand.dtype && operand.address == other.operand.address &&
               operand.stride_row == other.operand.stride_row &&
               operand.stride_col == other.operand.stride_col;
    }
};

/* A buffer for packed panels: of all blocks of K one after the other, if they fit, else of one. */
struct panel_buffer {
    float *data;
    int64_t capacity; /* floats */
    panel_key held;
};

/* The floats that the buffers need, `slots` of them for A; for any instruction set, so a line's
 * width is the largest. */
struct capacities {
    int64_t a, b;
    int32_t slots;
};

capacities capacities_of(int32_t block_m, int32_t block_n, int64_t K)
{
    /* Whole panels of the tile unit, whose elements take half the bytes. */
    const int64_t rows = round_up(block_m, IRIS_AMX_EXTENT);
    const int64_t cols = round_up(block_n, IRIS_AMX_EXTENT);
    const int64_t depth = round_up(K, IRIS_AMX_EXTENT), block = at_most(depth, kBlockK);

    /* Whole blocks of K, if not all of them fit into what may be kept. */
    const int64_t a = at_least(rows * block, at_most(rows * depth, kKeepA));
    const int64_t slots = rows * depth <= a ? at_most(kKeepRows / a, kSlots) : 1;
    return {a, depth <= kKeepB / cols ? cols * depth : cols * block, (int32_t)at_least(slots, 1)};
}

const char *element_address(const iris_gemm_operand *operand, int64_t row, int64_t col)
{
    const int64_t offset = row * operand->stride_row + col * operand->stride_col;
    return static_cast<const char *>(operand->address) +
           offset * IRIS_OPERAND_NBYTES(operand->dtype);
}

/* The runs of contiguous elements of a source that will be packed next, to be fetched into L2 while
 * the micro-kernels have the memory to spare. */
struct upcoming {
    uintptr_t address;
    int64_t step; /* bytes from one run to the next */
    int32_t runs;

    uintptr_t next()
    {
        const uintptr_t at = address;
        if (--runs > 0)
            address += (uintptr_t)step;
        return at;
    }
};

upcoming upcoming_block(const iris_gemm_operand *operand, int64_t row, int64_t col, int64_t rows,
                        int64_t cols)
{
    const int64_t size = IRIS_OPERAND_NBYTES(operand->dtype);
    const bool by_row = operand->stride_col == 1;
    return {reinterpret_cast<uintptr_t>(element_address(operand, row, col)),
            (by_row ? operand->stride_row : operand->stride_col) * size,
            (int32_t)(by_row ? rows : cols)};
}

/* One block of K: out (+)= packed A times packed B. */
void multiply(const instruction_set &set, const float *a, const float *b, int32_t rows,
              int32_t cols, int64_t kc, float *out, int64_t ld, bool add_to_out, upcoming next_a,
              upcoming next_b)
{
    const row_panels panels = row_panels_of(rows, set.rows);
    const int64_t depth = round_up(kc, set.lanes);
    /* B's next panel may be in L3. When B is packed as it goes, its panels are still in L2, but the
     * memory that the next block will be packed into is not. */
    const bool packs_b = next_b.runs > 0;
    uintptr_t ahead = reinterpret_cast<uintptr_t>(b + kc * round_up(cols, set.lanes));
    const uintptr_t fetched = (uintptr_t)(kc / set.lanes) * kFetchStep;

    for (int32_t j = 0; j < cols; j += 2 * set.lanes) {
        const int32_t left = cols - j;
        const int32_t lines = left > set.lanes ? 2 : 1;
        const int32_t last = (int32_t)at_most(left - (lines - 1) * set.lanes, set.lanes);
        const float *next_panel = b + kc * lines * set.lanes;
        if (!packs_b)
            ahead = reinterpret_cast<uintptr_t>(next_panel);

        for (int32_t p = 0; p < panels.count; ++p, ahead += 2 * fetched) {
            const int32_t height = panels.height(p), start = panels.start(p);
            uintptr_t soon[kFetches] = {ahead, ahead + fetched, ahead, ahead, ahead, ahead};
            if (next_a.runs > 0) {
                soon[2] = next_a.next();
                soon[3] = next_a.next();
            }
            if (next_b.runs > 0) {
                soon[4] = next_b.next();
                soon[5] = next_b.next();
            }
            set.kernels[height - 1][lines - 1](kc, a + start * depth, b, soon, out + start * ld + j,
                                               ld, last, add_to_out);
        }
        b = next_panel;
    }
}

/* The tile unit takes bfloat16 products, unless a lower instruction set was asked for; short ones
 * would be mostly padding. Decided by the dtypes and K alone: an element's bits must not depend on
 * the tile. */
bool takes_tile_unit(const iris_gemm_operand *A, const iris_gemm_operand *B, int64_t K)
{
    static int allowed; /* 0: not known yet */
    int seen = __atomic_load_n(&allowed, __ATOMIC_RELAXED);

    if (seen == 0) {
        const char *wanted = getenv("IRIS_C_CPU_ISA");
        const bool lower = wanted != nullptr && wanted[0] != '\0';
        seen = !lower && iris_amx_usable() ? 1 : -1;
        __atomic_store_n(&allowed, seen, __ATOMIC_RELAXED);
    }
    return A->dtype == IRIS_DTYPE_BF16 && B->dtype == IRIS_DTYPE_BF16 && K >= IRIS_AMX_EXTENT &&
           seen > 0;
}

} // namespace

struct iris_gemm_scratch {
    int32_t slots;
    panel_buffer b;
    panel_buffer a[kSlots];

    /* Where the panels of `key` are, or may be packed into. Whoever goes through more tile rows
     * than there are slots, again and again, finds all but the last slot's still there. */
    panel_buffer &slot_of(const panel_key &key)
    {
        int32_t i = 0;
        while (i < slots - 1 && a[i].held.extent != 0 && !(a[i].held == key))
            ++i;
        return a[i];
    }
};

/* The buffers follow the struct, from the next multiple of this on. */
static const size_t kHeadNbytes = 2048;
static_assert(sizeof(iris_gemm_scratch) <= kHeadNbytes, "the buffers lie behind the struct");

size_t iris_gemm_scratch_nbytes(int32_t block_m, int32_t block_n, int64_t K)
{
    const capacities floats = capacities_of(block_m, block_n, K);
    return kHeadNbytes + (size_t)(floats.slots * floats.a + floats.b) * sizeof(float);
}

struct iris_gemm_scratch *iris_gemm_scratch_init(void *memory, int32_t block_m, int32_t block_n,
                                                 int64_t K)
{
    const capacities floats = capacities_of(block_m, block_n, K);
    iris_gemm_scratch *scratch = static_cast<iris_gemm_scratch *>(memory);

    float *next = reinterpret_cast<float *>(static_cast<char *>(memory) + kHeadNbytes);

    memset(memory, 0, sizeof *scratch);
    scratch->slots = floats.slots;
    for (int32_t i = 0; i < floats.slots; ++i, next += floats.a) {
        scratch->a[i].data = next;
        scratch->a[i].capacity = floats.a;
    }
    scratch->b.data = next;
    scratch->b.capacity = floats.b;
    return scratch;
}

/* iris_gemm_tile on the tile unit: the same steps, in blocks of twice as many k of half the size.
 */
static void multiply_on_tile_unit(struct iris_gemm_scratch *scratch, const panel_key &key_a,
                                  const panel_key &key_b, float *out, int64_t ld)
{
    constexpr int64_t block = 2 * kBlockK;
    const int64_t K = key_a.K, depth = round_up(K, IRIS_AMX_EXTENT);
    const int64_t rows = round_up(key_a.extent, IRIS_AMX_EXTENT);
    const int64_t cols = round_up(key_b.extent, IRIS_AMX_EXTENT);
    panel_buffer &a = scratch->slot_of(key_a), &b = scratch->b;
    const bool keep_a = rows * depth <= 2 * a.capacity, keep_b = cols * depth <= 2 * b.capacity;
    const bool have_a = a.held == key_a, have_b = b.held == key_b;
    uint16_t *packed_a = reinterpret_cast<uint16_t *>(a.data);
    uint16_t *packed_b = reinterpret_cast<uint16_t *>(b.data);

    for (int64_t k = 0; k < K; k += block) {
        const int64_t kc = at_most(K - k, block);
        uint16_t *block_a = packed_a + (keep_a ? rows * k : 0);
        uint16_t *block_b = packed_b + (keep_b ? cols * k : 0);
        if (!have_a)
            iris_amx_pack_a(element_address(&key_a.operand, key_a.origin, k),
                            key_a.operand.stride_row, key_a.operand.stride_col, key_a.extent, kc,
                            block_a);
        if (!have_b)
            iris_amx_pack_b(element_address(&key_b.operand, k, key_b.origin),
                            key_b.operand.stride_row, key_b.operand.stride_col, key_b.extent, kc,
                            block_b);
        iris_amx_multiply(block_a, block_b, key_a.extent, key_b.extent, kc, out, ld, k > 0);
    }
    a.held = key_a;
    b.held = key_b;
    a.held.extent = keep_a ? key_a.extent : 0;
    b.held.extent = keep_b ? key_b.extent : 0;
}

void iris_gemm_tile(struct iris_gemm_scratch *scratch, const struct iris_gemm_operand *A,
                    const struct iris_gemm_operand *B, int64_t m0, int64_t n0, int32_t rows,
                    int32_t cols, int64_t K, float *out, int64_t ld)
{
    const instruction_set &set = current_set();
    const int64_t width = round_up(cols, set.lanes); /* of B's packed panels together */
    const panel_key key_a = {*A, m0, K, rows}, key_b = {*B, n0, K, cols};
    panel_buffer &a = scratch->slot_of(key_a), &b = scratch->b;
    const bool keep_a = rows * round_up(K, set.lanes) <= a.capacity,
               keep_b = width * K <= b.capacity;
    const bool have_a = a.held == key_a, have_b = b.held == key_b;

    if (takes_tile_unit(A, B, K)) {
        multiply_on_tile_unit(scratch, key_a, key_b, out, ld);
        return;
    }
    for (int64_t k = 0; k < K; k += kBlockK) {
        const int64_t kc = at_most(K - k, kBlockK);
        float *packed_a = a.data + (keep_a ? rows * k : 0);
        float *packed_b = b.data + (keep_b ? width * k : 0);
        if (!have_a)
            set.pack_a[packing_of(A->dtype)](element_address(A, m0, k), A->stride_row,
                                             A->stride_col, rows, kc, packed_a);
        if (!have_b)
            set.pack_b[packing_of(B->dtype)](element_address(B, k, n0), B->stride_row,
                                             B->stride_col, cols, kc, packed_b);
        const int64_t next_kc = at_most(K - k - kc, kBlockK);
        upcoming next_a = {}, next_b = {};
        if (!have_a && next_kc > 0)
            next_a = upcoming_block(A, m0, k + kc, rows, next_kc);
        if (!have_b && next_kc > 0)
            next_b = upcoming_block(B, k + kc, n0, next_kc, cols);
        multiply(set, packed_a, packed_b, rows, cols, kc, out, ld, k > 0, next_a, next_b);
    }
    a.held = key_a;
    b.held = key_b;
    a.held.extent = keep_a ? rows : 0;
    b.held.extent = keep_b ? cols : 0;
}

const char *iris_gemm_isa(void)
{
    return current_set().name;
}
