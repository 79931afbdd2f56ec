/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The state of a CDNA compute unit as its code sees it: waves of 64 lanes in work-groups, and the
 * decoded instructions that change it. Registers and their numbers are those of the ISA documents
 * of MI200, MI300 and MI350.
 */
#ifndef EMULATOR_MACHINE_H
#define EMULATOR_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "effects.h"

enum { LANES = 64, VECTOR_REGISTERS = 512, FIRST_ACCUMULATOR = 256, SCALAR_REGISTERS = 128 };
enum { VCC = 106, M0 = 124, EXEC = 126 };
enum { MAX_OPERANDS = 5 };

enum operand_kind { OPERAND_NONE, OPERAND_VECTOR, OPERAND_SCALAR, OPERAND_CONSTANT, OPERAND_OFF };

/* Which part of a register an SDWA instruction takes. */
enum select {
    SELECT_DWORD,
    SELECT_WORD_0,
    SELECT_WORD_1,
    SELECT_BYTE_0,
    SELECT_BYTE_1,
    SELECT_BYTE_2,
    SELECT_BYTE_3
};

/* As tests/amd/program.py writes them. Accumulators are vector registers from 256 on. */
struct operand {
    uint8_t kind, select, registers, reserved;
    uint32_t index;
    uint32_t low, high; /* of a constant */
};

/* Bits of an instruction. */
enum {
    BIT_SC0 = 1, /* glc on gfx90a */
    BIT_SC1 = 2,
    BIT_NT = 4,
    BIT_PRESERVE = 8, /* SDWA: the rest of the destination stays */
};
#define BITS_SYSTEM (BIT_SC0 | BIT_SC1)

struct wave;
struct instruction;
typedef void (*handler)(struct wave *wave, const struct instruction *in);

struct instruction {
    handler run;
    const char *name;
    uint32_t address;
    uint32_t target;   /* of a branch: an index */
    uint32_t word;     /* s_waitcnt: vmcnt; v_pk_*: selects; bitop3; s_nop: cycles less one;
                          v_mfma_*_f8f6f4: cbsz, and blgp << 8; buffer_*: 1 if offen */
    int32_t offset[2]; /* s_waitcnt: lgkmcnt, or -1 */
    uint32_t bits;
    uint32_t operands;
    struct operand operand[MAX_OPERANDS];
    struct effects effects;
    bool is_nop, ends, jumps, always; /* of the flow: a branch jumps, perhaps always */
};

/* What an instruction's name stands for. `operands` is their number; -1: any. */
struct operation {
    const char *name;
    handler run;
    int operands;
    enum operand_kind destination; /* of operand 0; OPERAND_NONE: not checked */
};

extern const struct operation scalar_operations[], vector_operations[], memory_operations[],
    matrix_operations[], vector_f64_operations[], vector_packed_operations[], direct_operations[];

enum wave_state { WAVE_RUNS, WAVE_SLEEPS, WAVE_AT_BARRIER, WAVE_ENDED };

struct pending_store;
struct direct_load;
struct checks;
struct races;

struct wave {
    struct work_group *group;
    uint32_t pc;
    bool scc;
    bool yields; /* ends its slice after this instruction */
    enum wave_state state;
    /* Memory instructions issued, for vmcnt; and, when memory is adversarial, the stores that have
     * not left the wave and the write-backs that nobody has waited for. */
    uint64_t issued;
    struct pending_store *first_pending, *last_pending;
    uint64_t write_back_until; /* die clock; 0: none */
    uint64_t write_back_issued;
    struct direct_load *first_direct, *last_direct; /* that have not arrived in LDS */
    struct checks *checks;                          /* NULL if there are none */
    uint32_t s[SCALAR_REGISTERS];
    uint32_t v[VECTOR_REGISTERS][LANES];
};

struct cache;

struct work_group {
    struct dispatch *dispatch;
    uint32_t id[3];
    uint32_t index;
    uint8_t *lds;
    struct cache *l1; /* adversarial memory only */
    struct races *races;
    uint32_t waves, ended;
    struct wave *wave;
};

static inline uint64_t scalar_pair(const struct wave *w, uint32_t index)
{
    return (uint64_t)w->s[index + 1] << 32 | w->s[index];
}

static inline void set_scalar_pair(struct wave *w, uint32_t index, uint64_t value)
{
    w->s[index] = (uint32_t)value;
    w->s[index + 1] = (uint32_t)(value >> 32);
}

static inline uint64_t exec_mask(const struct wave *w)
{
    return scalar_pair(w, EXEC);
}

static inline float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The bits in the opposite order. */
static inline uint32_t reversed(uint32_t a)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; ++i)
        r |= (a >> i & 1) << (31 - i);
    return r;
}

static inline uint32_t scalar32(const struct wave *w, const struct operand *o)
{
    return o->kind == OPERAND_SCALAR ? w->s[o->index] : o->low;
}

static inline uint64_t scalar64(const struct wave *w, const struct operand *o)
{
    return o->kind == OPERAND_SCALAR ? scalar_pair(w, o->index) : (uint64_t)o->high << 32 | o->low;
}

/* Ends the dispatch with a message that names the kernel and the instruction. */
void fault(struct wave *wave, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
