/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Instructions that reach memory: global loads, stores and atomics, LDS, and the cache controls.
 */
#include <string.h>

#include "checks.h"
#include "dispatch.h"
#include "machine.h"
#include "memory.h"

/* ---- addresses ---- */

/* global_*: a pair of vector registers, or a scalar pair plus a 32-bit vector offset. */
static uint64_t global_address(const struct wave *w, const struct instruction *in, int at, int lane)
{
    const struct operand *address = &in->operand[at], *base = &in->operand[in->operands - 1];
    const uint64_t offset = (uint64_t)(int64_t)in->offset[0];

    if (base->kind == OPERAND_OFF)
        return ((uint64_t)w->v[address->index + 1][lane] << 32 | w->v[address->index][lane]) +
               offset;
    return scalar64(w, base) + w->v[address->index][lane] + offset;
}

#define FOR_ENABLED_LANES(w, l)                                                                    \
    for (uint64_t exec_ = exec_mask(w), l_ = 0; l_ < LANES; ++l_)                                  \
        for (int l = (int)l_, once_ = exec_ >> l_ & 1; once_; once_ = 0)

static void global_load(struct wave *w, const struct instruction *in, uint32_t nbytes)
{
    memory_issued(w);
    FOR_ENABLED_LANES(w, l)
    {
        uint32_t words[4] = {0};
        memory_load(w, global_address(w, in, 1, l), words, nbytes, in->bits);
        for (uint32_t i = 0; i < (nbytes + 3) / 4; ++i)
            w->v[in->operand[0].index + i][l] = words[i];
    }
}

/* buffer_*: a descriptor of plain bytes in four scalar registers, of which only a raw buffer of as
 * many bytes as 32 bits can say is known here; an offset in a vector register, a scalar one, and
 * one of the instruction. */
static bool buffer_base(struct wave *w, const struct instruction *in, uint64_t *base)
{
    enum { PLAIN_BYTES = 0x27000, ADDRESS_BITS = 48 };
    const struct operand *descriptor = &in->operand[2];
    const uint32_t *words = &w->s[descriptor->index];

    if (in->word != 1 || descriptor->kind != OPERAND_SCALAR || descriptor->registers != 4 ||
        words[1] >> (ADDRESS_BITS - 32) != 0 || words[2] != UINT32_MAX || words[3] != PLAIN_BYTES) {
        fault(w, "a descriptor that the emulator does not know");
        return false;
    }
    *base = scalar_pair(w, descriptor->index) + scalar32(w, &in->operand[3]) +
            (uint64_t)(uint32_t)in->offset[0];
    return true;
}

static void buffer_load(struct wave *w, const struct instruction *in, uint32_t nbytes)
{
    uint64_t base;

    if (!buffer_base(w, in, &base))
        return;
    memory_issued(w);
    FOR_ENABLED_LANES(w, l)
    {
        uint32_t words[4] = {0};
        memory_load(w, base + w->v[in->operand[1].index][l], words, nbytes, in->bits);
        for (uint32_t i = 0; i < nbytes / 4; ++i)
            w->v[in->operand[0].index + i][l] = words[i];
    }
}

/* From byte `first` of the data registers on. */
static void global_store(struct wave *w, const struct instruction *in, uint32_t first,
                         uint32_t nbytes)
{
    memory_issued(w);
    FOR_ENABLED_LANES(w, l)
    {
        uint32_t words[4] = {0};
        for (uint32_t i = 0; i < (nbytes + 3) / 4; ++i)
            words[i] = w->v[in->operand[1].index + i][l];
        memory_store(w, global_address(w, in, 0, l), (const char *)words + first, nbytes, in->bits);
    }
}

#define LOAD(name, nbytes)                                                                         \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        global_load(w, in, nbytes);                                                                \
    }
#define STORE(name, first, nbytes)                                                                 \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        global_store(w, in, first, nbytes);                                                        \
    }
LOAD(global_load_ubyte, 1)
LOAD(global_load_ushort, 2)
LOAD(global_load_dword, 4)
LOAD(global_load_dwordx2, 8)
LOAD(global_load_dwordx3, 12)
LOAD(global_load_dwordx4, 16)
#define BUFFER_LOAD(name, nbytes)                                                                  \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        buffer_load(w, in, nbytes);                                                                \
    }
BUFFER_LOAD(buffer_load_dwordx3, 12)
BUFFER_LOAD(buffer_load_dwordx4, 16)
STORE(global_store_byte, 0, 1)
STORE(global_store_byte_d16_hi, 2, 1)
STORE(global_store_short, 0, 2)
STORE(global_store_short_d16_hi, 2, 2)
STORE(global_store_dword, 0, 4)
STORE(global_store_dwordx2, 0, 8)
STORE(global_store_dwordx3, 0, 12)
STORE(global_store_dwordx4, 0, 16)

/* With sc0 (glc) the value before comes back, and is the first operand. */
static void global_atomic(struct wave *w, const struct instruction *in, enum atomic kind)
{
    const bool returns = in->bits & BIT_SC0;
    const int at = returns ? 1 : 0;
    const uint32_t data = in->operand[at + 1].index;

    if (in->operands != (returns ? 4u : 3u)) {
        fault(w, "%u operands", in->operands);
        return;
    }
    memory_issued(w);
    FOR_ENABLED_LANES(w, l)
    {
        const uint32_t expected = kind == ATOMIC_COMPARE_SWAP ? w->v[data + 1][l] : 0;
        const uint32_t before = (uint32_t)memory_atomic(w, kind, global_address(w, in, at, l),
                                                        w->v[data][l], expected, 4, in->bits);
        if (returns)
            w->v[in->operand[0].index][l] = before;
    }
}

#define ATOMIC(name, kind)                                                                         \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        global_atomic(w, in, kind);                                                                \
    }
ATOMIC(global_atomic_add, ATOMIC_ADD)
ATOMIC(global_atomic_or, ATOMIC_OR)
ATOMIC(global_atomic_swap, ATOMIC_SWAP)
ATOMIC(global_atomic_cmpswap, ATOMIC_COMPARE_SWAP)

/* ---- cache controls ---- */

static void buffer_wbl2(struct wave *w, const struct instruction *in)
{
    memory_issued(w);
    /* At agent scope nothing has to reach other devices. */
    if (w->group->dispatch->device->gfx90a || (in->bits & BITS_SYSTEM) == BITS_SYSTEM)
        memory_write_back(w);
}

static void buffer_inv(struct wave *w, const struct instruction *in)
{
    memory_issued(w);
    if (in->bits & BIT_SC1)
        memory_invalidate_l1(w);
    if ((in->bits & BITS_SYSTEM) == BITS_SYSTEM)
        memory_invalidate_l2(w);
}

static void buffer_invl2(struct wave *w, const struct instruction *in)
{
    (void)in;
    memory_issued(w);
    memory_invalidate_l2(w);
}

static void buffer_wbinvl1_vol(struct wave *w, const struct instruction *in)
{
    (void)in;
    memory_issued(w);
    memory_invalidate_l1(w);
}

/* ---- LDS ---- */

/* NULL with a fault. `written` is what will be written there, if anything. */
static uint8_t *lds_at(struct wave *w, uint32_t address, uint32_t nbytes, const void *written)
{
    const struct dispatch *dispatch = w->group->dispatch;
    const uint32_t size = dispatch->kernel->lds_nbytes + dispatch->dynamic_lds;

    if (address <= size && nbytes <= size - address) {
        checks_lds(w, address, nbytes, written);
        return w->group->lds + address;
    }
    fault(w, "%u bytes at %#x of %u bytes of LDS", nbytes, address, size);
    return NULL;
}

/* `parts` pieces of nbytes each, the i-th at offset[i] * unit. */
static void lds_read(struct wave *w, const struct instruction *in, int parts, uint32_t nbytes,
                     uint32_t unit)
{
    const uint32_t registers = (nbytes + 3) / 4;

    FOR_ENABLED_LANES(w, l)
    {
        const uint32_t address = w->v[in->operand[1].index][l];
        uint32_t words[4] = {0};
        for (int part = 0; part < parts; ++part) {
            const uint8_t *from =
                lds_at(w, address + (uint32_t)in->offset[part] * unit, nbytes, NULL);
            if (from != NULL)
                memcpy(&words[(uint32_t)part * registers], from, nbytes);
        }
        for (uint32_t i = 0; i < (uint32_t)parts * registers; ++i)
            w->v[in->operand[0].index + i][l] = words[i];
    }
}

/* Each 16 lanes read a matrix of elements together, which they receive transposed: each lane gives
 * the address of 8 bytes, of which so many lanes make a row of 16 elements, and receives a column.
 * By AMD's CDNA 4 ISA document, section 11.4, all lanes are enabled, an address is a multiple of
 * 8, and the registers are an even one and the next. */
static void lds_read_transposed(struct wave *w, const struct instruction *in, uint32_t element)
{
    enum { NBYTES = 8, COLUMNS = 16 };
    const uint32_t rows = NBYTES / element, row_lanes = COLUMNS / rows;
    uint8_t data[LANES][NBYTES];

    if (exec_mask(w) != UINT64_MAX || in->operand[0].index % 2 != 0) {
        fault(w, "a transposing read %s",
              exec_mask(w) != UINT64_MAX ? "with lanes disabled" : "into an odd register");
        return;
    }
    for (uint32_t l = 0; l < LANES; ++l) {
        const uint32_t address = w->v[in->operand[1].index][l] + (uint32_t)in->offset[0];
        const uint8_t *from = lds_at(w, address, NBYTES, NULL);
        if (from == NULL)
            return;
        if (address % NBYTES != 0) {
            fault(w, "a transposing read at %#x", address);
            return;
        }
        memcpy(data[l], from, NBYTES);
    }
    for (uint32_t l = 0; l < LANES; ++l) {
        const uint32_t first = l / COLUMNS * COLUMNS, column = l % COLUMNS;
        uint32_t words[2] = {0};
        for (uint32_t row = 0; row < rows; ++row)
            memcpy((uint8_t *)words + row * element,
                   &data[first + row * row_lanes + column / rows][column % rows * element],
                   element);
        for (uint32_t i = 0; i < 2; ++i)
            w->v[in->operand[0].index + i][l] = words[i];
    }
}

static void ds_read_b64_tr_b16(struct wave *w, const struct instruction *in)
{
    lds_read_transposed(w, in, 2);
}

static void ds_read_b64_tr_b8(struct wave *w, const struct instruction *in)
{
    lds_read_transposed(w, in, 1);
}

/* `parts` pieces of nbytes each from byte `first` of their registers on. */
static void lds_write_from(struct wave *w, const struct instruction *in, uint32_t first, int parts,
                           uint32_t nbytes, uint32_t unit)
{
    FOR_ENABLED_LANES(w, l)
    {
        const uint32_t address = w->v[in->operand[0].index][l];
        for (int part = 0; part < parts; ++part) {
            uint32_t words[4];
            for (uint32_t i = 0; i < (nbytes + 3) / 4; ++i)
                words[i] = w->v[in->operand[1 + part].index + i][l];
            const uint8_t *from = (const uint8_t *)words + first;
            uint8_t *to = lds_at(w, address + (uint32_t)in->offset[part] * unit, nbytes, from);
            if (to != NULL)
                memcpy(to, from, nbytes);
        }
    }
}

static void lds_write(struct wave *w, const struct instruction *in, int parts, uint32_t nbytes,
                      uint32_t unit)
{
    lds_write_from(w, in, 0, parts, nbytes, unit);
}

static void ds_write_b16_d16_hi(struct wave *w, const struct instruction *in)
{
    lds_write_from(w, in, 2, 1, 2, 1);
}

#define LDS(name, access, parts, nbytes, unit)                                                     \
    static void name(struct wave *w, const struct instruction *in)                                 \
    {                                                                                              \
        access(w, in, parts, nbytes, unit);                                                        \
    }
LDS(ds_read_u8, lds_read, 1, 1, 1)
LDS(ds_read_u16, lds_read, 1, 2, 1)
LDS(ds_read_b32, lds_read, 1, 4, 1)
LDS(ds_read_b64, lds_read, 1, 8, 1)
LDS(ds_read_b96, lds_read, 1, 12, 1)
LDS(ds_read_b128, lds_read, 1, 16, 1)
LDS(ds_read2_b32, lds_read, 2, 4, 4)
LDS(ds_read2_b64, lds_read, 2, 8, 8)
LDS(ds_read2st64_b32, lds_read, 2, 4, 256)
LDS(ds_write_b8, lds_write, 1, 1, 1)
LDS(ds_write_b16, lds_write, 1, 2, 1)
LDS(ds_write_b32, lds_write, 1, 4, 1)
LDS(ds_write_b64, lds_write, 1, 8, 1)
LDS(ds_write_b96, lds_write, 1, 12, 1)
LDS(ds_write_b128, lds_write, 1, 16, 1)
LDS(ds_write2_b32, lds_write, 2, 4, 4)
LDS(ds_write2_b64, lds_write, 2, 8, 8)
LDS(ds_write2st64_b32, lds_write, 2, 4, 256)

#define TO_VECTOR(name, operands) {#name, name, operands, OPERAND_VECTOR}
#define CONTROL(name) {#name, name, 0, OPERAND_NONE}
const struct operation memory_operations[] = {
    TO_VECTOR(global_load_ubyte, 3),
    TO_VECTOR(global_load_ushort, 3),
    TO_VECTOR(global_load_dword, 3),
    TO_VECTOR(global_load_dwordx2, 3),
    TO_VECTOR(global_load_dwordx3, 3),
    TO_VECTOR(global_load_dwordx4, 3),
    TO_VECTOR(buffer_load_dwordx3, 4),
    TO_VECTOR(buffer_load_dwordx4, 4),
    TO_VECTOR(global_store_byte, 3),
    TO_VECTOR(global_store_byte_d16_hi, 3),
    TO_VECTOR(global_store_short, 3),
    TO_VECTOR(global_store_short_d16_hi, 3),
    TO_VECTOR(global_store_dword, 3),
    TO_VECTOR(global_store_dwordx2, 3),
    TO_VECTOR(global_store_dwordx3, 3),
    TO_VECTOR(global_store_dwordx4, 3),
    TO_VECTOR(global_atomic_add, -1),
    TO_VECTOR(global_atomic_or, -1),
    TO_VECTOR(global_atomic_swap, -1),
    TO_VECTOR(global_atomic_cmpswap, -1),
    CONTROL(buffer_wbl2),
    CONTROL(buffer_inv),
    CONTROL(buffer_invl2),
    CONTROL(buffer_wbinvl1_vol),
    TO_VECTOR(ds_read_u8, 2),
    TO_VECTOR(ds_read_u16, 2),
    TO_VECTOR(ds_read_b32, 2),
    TO_VECTOR(ds_read_b64, 2),
    TO_VECTOR(ds_read_b96, 2),
    TO_VECTOR(ds_read_b128, 2),
    TO_VECTOR(ds_read2_b32, 2),
    TO_VECTOR(ds_read2_b64, 2),
    TO_VECTOR(ds_read2st64_b32, 2),
    TO_VECTOR(ds_read_b64_tr_b16, 2),
    TO_VECTOR(ds_read_b64_tr_b8, 2),
    TO_VECTOR(ds_write_b8, 2),
    TO_VECTOR(ds_write_b16, 2),
    TO_VECTOR(ds_write_b16_d16_hi, 2),
    TO_VECTOR(ds_write_b32, 2),
    TO_VECTOR(ds_write_b64, 2),
    TO_VECTOR(ds_write_b96, 2),
    TO_VECTOR(ds_write_b128, 2),
    TO_VECTOR(ds_write2_b32, 3),
    TO_VECTOR(ds_write2_b64, 3),
    TO_VECTOR(ds_write2st64_b32, 3),
    {NULL, NULL, 0, OPERAND_NONE},
};
