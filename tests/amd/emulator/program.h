/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A code object in memory: its segments, its kernels, and its instructions as tests/amd/program.py
 * decoded them from the disassembly.
 */
#ifndef EMULATOR_PROGRAM_H
#define EMULATOR_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "hazards.h"
#include "machine.h"

/* The kernel descriptor's fields that matter here, and the arguments of the metadata. */
struct kernel {
    char name[64];
    uint32_t lds_nbytes, kernarg_nbytes, scratch_nbytes;
    uint32_t entry;      /* index of the first instruction */
    uint32_t properties; /* which user registers are set */
    uint32_t user_registers;
    uint32_t group_ids; /* bit i: the work-group's coordinate i is passed */
    uint32_t arguments;
    struct {
        uint32_t offset, nbytes;
    } argument[16];
};

struct file_instruction;

struct program {
    uint8_t *image; /* the loaded segments */
    size_t image_nbytes;
    enum architecture arch;
    const uint8_t *file; /* what program.py has written, and the instructions in it */
    size_t file_nbytes;
    const struct file_instruction *encoded;
    const struct operation **operations; /* by the number of the name */
    uint32_t instructions, kernels, name_count;
    struct instruction *instruction; /* of the kernels that have been asked for */
    struct kernel *kernel;
    char (*names)[48];
};

/* Whether there is an instruction of that name. */
bool program_knows(const char *name);

/* Bytes of the ELF file at `object`, 0 if it is not one for AMD GPUs of architecture `arch`. */
size_t object_nbytes(const void *object, const char *arch);

/* Loads the object and its decoded instructions, the file `<directory>/<crc32 of it>.program`. NULL
 * with a message: no such file, made from another object, an instruction that is not known. */
struct program *program_load(const void *object, size_t nbytes, const char *directory,
                             char message[512]);
void program_free(struct program *program);
/* A kernel, ready to run. NULL with a message: no such kernel, operands that are not known, and
 * with `checks` a hazard (hazards.h). */
const struct kernel *program_kernel(struct program *program, const char *name, bool checks,
                                    char message[512]);
/* How many s_nops the decoded kernel has, and of how many one wait state less is a hazard. The
 * kernel does not run. */
uint32_t program_nops(struct program *program, const struct kernel *kernel, uint32_t *needed);

#endif
