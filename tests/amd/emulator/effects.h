/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which registers an instruction reads and writes, and which unit runs it: what the checks of waits
 * (checks.h) and of wait states (hazards.h) ask.
 */
#ifndef EMULATOR_EFFECTS_H
#define EMULATOR_EFFECTS_H

#include <stdbool.h>
#include <stdint.h>

enum unit {
    UNIT_NONE, /* waits, branches, cache controls that no counter counts */
    UNIT_SCALAR,
    UNIT_SCALAR_MEMORY, /* counted by lgkmcnt, complete in any order */
    UNIT_VECTOR,
    UNIT_MATRIX,
    UNIT_MEMORY, /* counted by vmcnt, complete in order */
    UNIT_LDS,    /* counted by lgkmcnt, complete in order */
};

/* Vector registers and accumulators have their own numbers, scalar registers follow them. */
enum { FIRST_SCALAR = 512, ALL_REGISTERS = FIRST_SCALAR + 128 };

struct registers {
    uint16_t first, count;
};

struct effects {
    uint8_t unit, reads, writes;
    bool partial; /* writes a part of its destination (SDWA) */
    struct registers read[6], write[3];
};

struct instruction;

struct effects effects_of(const struct instruction *in);

static inline bool overlap(struct registers a, struct registers b)
{
    return a.first < b.first + b.count && b.first < a.first + a.count;
}

static inline bool is_scalar(struct registers r)
{
    return r.first >= FIRST_SCALAR;
}

/* "v12", "s4", "a0" */
const char *register_name(uint32_t number, char text[8]);

#endif
