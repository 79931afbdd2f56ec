/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Loading code objects and their decoded instructions.
 */
#include "program.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EM_AMDGPU_NUMBER = 224 };

/* ---- the file of decoded instructions, as tests/amd/program.py writes it ---- */

struct file_header {
    char magic[8];
    uint32_t names, instructions, kernels, object_nbytes;
};

struct file_operand {
    uint8_t kind, select, registers, reserved;
    uint32_t index, low, high;
};

struct file_instruction {
    uint32_t address, name, target, word;
    int32_t offset[2];
    uint32_t bits, operands;
    struct file_operand operand[MAX_OPERANDS];
};

struct file_kernel {
    char name[64];
    uint32_t entry, arguments;
    uint32_t argument[16][2];
};

static uint32_t crc32_of(const uint8_t *data, size_t nbytes)
{
    uint32_t table[256], crc = UINT32_MAX;

    for (uint32_t byte = 0; byte < 256; ++byte) {
        table[byte] = byte;
        for (int bit = 0; bit < 8; ++bit)
            table[byte] = table[byte] >> 1 ^ (table[byte] & 1 ? UINT32_C(0xedb88320) : 0);
    }
    for (size_t i = 0; i < nbytes; ++i)
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
    return ~crc;
}

/* All ranks map the same file, of which each needs a few kernels. */
static const uint8_t *map_file(const char *path, size_t *nbytes)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    void *data = MAP_FAILED;
    struct stat status;

    if (file < 0)
        return NULL;
    if (fstat(file, &status) == 0 && status.st_size > 0) {
        *nbytes = (size_t)status.st_size;
        data = mmap(NULL, *nbytes, PROT_READ, MAP_PRIVATE, file, 0);
    }
    (void)close(file);
    return data != MAP_FAILED ? data : NULL;
}

static const struct operation *find_operation(const char *name)
{
    const struct operation *const tables[] = {
        scalar_operations,     vector_operations,        memory_operations, matrix_operations,
        vector_f64_operations, vector_packed_operations, direct_operations};

    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; ++i)
        for (const struct operation *row = tables[i]; row->name != NULL; ++row)
            if (row->name[0] != '\0' && strcmp(row->name, name) == 0)
                return row;
    return NULL;
}

bool program_knows(const char *name)
{
    return find_operation(name) != NULL;
}

/* A kernel's code ends where another's begins. */
static uint32_t end_of(const struct program *program, const struct kernel *kernel)
{
    uint32_t end = program->instructions;

    for (uint32_t i = 0; i < program->kernels; ++i)
        if (program->kernel[i].entry > kernel->entry && program->kernel[i].entry < end)
            end = program->kernel[i].entry;
    return end;
}

static void set_flow(struct instruction *in)
{
    in->is_nop = strcmp(in->name, "s_nop") == 0;
    in->ends = strcmp(in->name, "s_endpgm") == 0;
    in->always = strcmp(in->name, "s_branch") == 0;
    in->jumps = in->always || strncmp(in->name, "s_cbranch", 9) == 0;
}

static bool decode(struct program *program, const struct kernel *kernel, bool checks,
                   char message[512])
{
    const struct file_instruction *from = program->encoded;
    /* Once: the kernel may be running. */
    const bool is_decoded = program->instruction[kernel->entry].run != NULL;
    const uint32_t end = is_decoded ? 0 : end_of(program, kernel);
    char hazard[400];

    for (uint32_t i = kernel->entry; i < end; ++i) {
        struct instruction *to = &program->instruction[i];
        const struct operation *operation = program->operations[from[i].name];

        *to = (struct instruction){.run = operation->run,
                                   .name = program->names[from[i].name],
                                   .address = from[i].address,
                                   .target = from[i].target,
                                   .word = from[i].word,
                                   .offset = {from[i].offset[0], from[i].offset[1]},
                                   .bits = from[i].bits,
                                   .operands = from[i].operands};
        for (uint32_t k = 0; k < MAX_OPERANDS; ++k)
            to->operand[k] =
                (struct operand){from[i].operand[k].kind,      from[i].operand[k].select,
                                 from[i].operand[k].registers, 0,
                                 from[i].operand[k].index,     from[i].operand[k].low,
                                 from[i].operand[k].high};
        if ((operation->operands >= 0 && (uint32_t)operation->operands != to->operands) ||
            (operation->destination != OPERAND_NONE &&
             to->operand[0].kind != operation->destination)) {
            (void)snprintf(message, 512, "%s at %#x: operands that the emulator does not know",
                           to->name, to->address);
            return false;
        }
        to->effects = effects_of(to);
        set_flow(to);
    }
    if (is_decoded || !checks ||
        hazards_absent(program->instruction, kernel->entry, end, program->arch, hazard, 400))
        return true;
    program->instruction[kernel->entry].run = NULL;
    (void)snprintf(message, 512, "%s: %s", kernel->name, hazard);
    return false;
}

static bool read_file(struct program *program, const void *object, size_t object_size,
                      char message[512])
{
    const uint8_t *data = program->file;
    const size_t nbytes = program->file_nbytes;
    const struct file_header *header = (const void *)data;
    const uint8_t *at = data + sizeof *header;

    if (nbytes < sizeof *header || memcmp(header->magic, "IRISAMD1", 8) != 0 ||
        nbytes != sizeof *header + header->names * sizeof *program->names +
                      header->kernels * sizeof(struct file_kernel) +
                      header->instructions * sizeof(struct file_instruction) +
                      header->object_nbytes ||
        header->object_nbytes != object_size ||
        memcmp(data + nbytes - object_size, object, object_size) != 0) {
        (void)snprintf(message, 512, "the decoded instructions are not of this object");
        return false;
    }
    program->instructions = header->instructions;
    program->kernels = header->kernels;
    program->name_count = header->names;
    program->names = calloc(header->names + 1, sizeof *program->names);
    program->kernel = calloc(header->kernels + 1, sizeof *program->kernel);
    program->instruction = calloc(header->instructions + 1, sizeof *program->instruction);
    program->operations = calloc(header->names + 1, sizeof(*program->operations));
    if (program->names == NULL || program->kernel == NULL || program->instruction == NULL ||
        program->operations == NULL)
        abort();
    memcpy(program->names, at, header->names * sizeof *program->names);
    at += header->names * sizeof *program->names;
    for (uint32_t i = 0; i < header->names; ++i) {
        program->operations[i] = find_operation(program->names[i]);
        if (program->operations[i] == NULL) {
            (void)snprintf(message, 512, "%s: an instruction that the emulator does not know",
                           program->names[i]);
            return false;
        }
    }
    for (uint32_t i = 0; i < header->kernels; ++i, at += sizeof(struct file_kernel)) {
        const struct file_kernel *from = (const void *)at;
        struct kernel *to = &program->kernel[i];
        (void)snprintf(to->name, sizeof to->name, "%s", from->name);
        to->entry = from->entry;
        to->arguments = from->arguments;
        for (uint32_t k = 0; k < 16; ++k) {
            to->argument[k].offset = from->argument[k][0];
            to->argument[k].nbytes = from->argument[k][1];
        }
    }
    program->encoded = (const void *)at;
    return true;
}

/* ---- the object ---- */

/* e_flags of the architectures, without the feature bits. */
static uint32_t machine_of(const char *arch)
{
    if (strcmp(arch, "gfx90a") == 0)
        return 0x3f;
    if (strcmp(arch, "gfx942") == 0)
        return 0x4c;
    return strcmp(arch, "gfx950") == 0 ? 0x4f : 0;
}

size_t object_nbytes(const void *object, const char *arch)
{
    const Elf64_Ehdr *header = object;

    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 ||
        header->e_machine != EM_AMDGPU_NUMBER || (header->e_flags & 0xff) != machine_of(arch))
        return 0;
    return header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;
}

static enum architecture architecture_of(const Elf64_Ehdr *header)
{
    const uint32_t machine = header->e_flags & 0xff;

    if (machine == machine_of("gfx90a"))
        return ARCH_GFX90A;
    return machine == machine_of("gfx942") ? ARCH_GFX942 : ARCH_GFX950;
}

static bool load_segments(struct program *program, const uint8_t *object)
{
    const Elf64_Ehdr *header = (const void *)object;
    const Elf64_Phdr *segment = (const void *)(object + header->e_phoff);
    size_t end = 0;

    program->arch = architecture_of(header);
    for (int i = 0; i < header->e_phnum; ++i)
        if (segment[i].p_type == PT_LOAD && segment[i].p_vaddr + segment[i].p_memsz > end)
            end = segment[i].p_vaddr + segment[i].p_memsz;
    program->image_nbytes = (end + 4095) / 4096 * 4096;
    program->image = aligned_alloc(4096, program->image_nbytes);
    if (program->image == NULL)
        return false;
    memset(program->image, 0, program->image_nbytes);
    for (int i = 0; i < header->e_phnum; ++i)
        if (segment[i].p_type == PT_LOAD)
            memcpy(program->image + segment[i].p_vaddr, object + segment[i].p_offset,
                   segment[i].p_filesz);
    return true;
}

/* Symbol <kernel>.kd: the descriptor, 64 bytes. */
static const uint8_t *find_descriptor(const struct program *program, const uint8_t *object,
                                      const char *kernel)
{
    const Elf64_Ehdr *header = (const void *)object;
    const Elf64_Shdr *section = (const void *)(object + header->e_shoff);
    char name[80];

    (void)snprintf(name, sizeof name, "%s.kd", kernel);
    for (int i = 0; i < header->e_shnum; ++i) {
        const Elf64_Sym *symbol = (const void *)(object + section[i].sh_offset);
        const char *strings = (const char *)object + section[section[i].sh_link].sh_offset;
        if (section[i].sh_type != SHT_DYNSYM)
            continue;
        for (size_t k = 0; k < section[i].sh_size / sizeof *symbol; ++k)
            if (strcmp(strings + symbol[k].st_name, name) == 0 &&
                symbol[k].st_value + 64 <= program->image_nbytes)
                return program->image + symbol[k].st_value;
    }
    return NULL;
}

static uint32_t word_at(const uint8_t *bytes, int offset)
{
    uint32_t value;
    memcpy(&value, bytes + offset, sizeof value);
    return value;
}

static bool read_descriptors(struct program *program, const uint8_t *object, char message[512])
{
    for (uint32_t i = 0; i < program->kernels; ++i) {
        struct kernel *kernel = &program->kernel[i];
        const uint8_t *descriptor = find_descriptor(program, object, kernel->name);
        if (descriptor == NULL) {
            (void)snprintf(message, 512, "%s has no kernel descriptor", kernel->name);
            return false;
        }
        const uint32_t resources = word_at(descriptor, 52);
        kernel->lds_nbytes = word_at(descriptor, 0);
        kernel->scratch_nbytes = word_at(descriptor, 4);
        kernel->kernarg_nbytes = word_at(descriptor, 8);
        kernel->properties = word_at(descriptor, 56) & 0xffff;
        kernel->user_registers = resources >> 1 & 31;
        kernel->group_ids = resources >> 7 & 7;
        if (kernel->scratch_nbytes != 0 || word_at(descriptor, 56) >> 16 != 0) {
            (void)snprintf(message, 512, "%s: scratch and preloaded arguments are not emulated",
                           kernel->name);
            return false;
        }
    }
    return true;
}

struct program *program_load(const void *object, size_t nbytes, const char *directory,
                             char message[512])
{
    struct program *program = calloc(1, sizeof *program);
    char path[4096];

    if (program == NULL)
        abort();
    (void)snprintf(path, sizeof path, "%s/%08x.program", directory, crc32_of(object, nbytes));
    program->file = map_file(path, &program->file_nbytes);
    if (program->file == NULL)
        (void)snprintf(message, 512, "cannot read %.400s", path);
    else if (read_file(program, object, nbytes, message) && load_segments(program, object) &&
             read_descriptors(program, object, message))
        return program;
    program_free(program);
    return NULL;
}

void program_free(struct program *program)
{
    if (program == NULL)
        return;
    if (program->file != NULL)
        (void)munmap((void *)(uintptr_t)program->file, program->file_nbytes);
    free(program->image);
    free(program->operations);
    free(program->instruction);
    free(program->kernel);
    free(program->names);
    free(program);
}

const struct kernel *program_kernel(struct program *program, const char *name, bool checks,
                                    char message[512])
{
    for (uint32_t i = 0; i < program->kernels; ++i)
        if (strcmp(program->kernel[i].name, name) == 0)
            return decode(program, &program->kernel[i], checks, message) ? &program->kernel[i]
                                                                         : NULL;
    (void)snprintf(message, 512, "%.400s: no such kernel", name);
    return NULL;
}

uint32_t program_nops(struct program *program, const struct kernel *kernel, uint32_t *needed)
{
    uint32_t end = end_of(program, kernel), count = 0;
    char hazard[400];

    while (program->instruction[end - 1].is_nop) /* padding */
        --end;
    *needed = 0;
    for (uint32_t i = kernel->entry; i < end; ++i) {
        struct instruction *in = &program->instruction[i];
        /* Between two memory accesses it is for XNACK, see hazards.h. After a store of 16 bytes it
         * is inline assembly's, for whatever the compiler puts next. */
        if (!in->is_nop || hazards_wide_store(&in[-1]) ||
            (in[-1].effects.unit == UNIT_MEMORY && in[1].effects.unit == UNIT_MEMORY))
            continue;
        ++count;
        --in->word;
        *needed += !hazards_absent(program->instruction, kernel->entry, end, program->arch, hazard,
                                   sizeof hazard);
        ++in->word;
    }
    return count;
}
