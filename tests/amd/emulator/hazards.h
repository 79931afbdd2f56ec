/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Hazards that the hardware leaves to the compiler: so many wait states (an instruction, or each
 * cycle of an s_nop, is one) have to lie between two instructions. Checked on all paths of a
 * kernel, when it is decoded.
 *
 * The rules are those of the ISA documents of MI200 and MI300 (chapter 4, "Manually Inserted Wait
 * States"), with the numbers that LLVM's GCNHazardRecognizer has for gfx90a, gfx942 and gfx950;
 * each names that file's function. Instructions that the emulator refuses have no rules here:
 * v_div_fmas, DPP, MFMA of fp64, v_dot, permlane, conversions with scale, s_setreg. Nor is there
 * one for runs of loads that XNACK may issue again (checkSoftClauseHazards), which the compiler
 * itself keeps here and there only.
 */
#ifndef EMULATOR_HAZARDS_H
#define EMULATOR_HAZARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine.h"

enum architecture { ARCH_GFX90A, ARCH_GFX942, ARCH_GFX950 };

/* Of code[first .. end), the whole of a kernel. False with the first hazard in `message`. */
bool hazards_absent(const struct instruction *code, uint32_t first, uint32_t end,
                    enum architecture arch, char *message, size_t message_nbytes);

/* Whether it stores more than 8 bytes, which must not be overwritten at once. */
bool hazards_wide_store(const struct instruction *in);

/* How many wait states an s_nop stands for. */
static inline uint32_t wait_states(const struct instruction *in)
{
    return in->is_nop ? in->word + 1 : 1;
}

#endif
