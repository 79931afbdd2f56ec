/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How true the emulation of each instruction is. What is not named here is exact; memory's order is
 * that of memory.h.
 */
#include <string.h>

#include "hip_double.h"
#include "program.h"

static const struct {
    const char *prefix, *status;
} approximate[] = {
    {"v_mfma_", "approximate: products are added in the order of k, each rounded once"},
    {"v_rcp_", "approximate: correctly rounded, the hardware's is off by up to one unit"},
    {"v_rsq_", "approximate: correctly rounded, the hardware's is off by up to one unit"},
    {"v_mac_f32", "approximate: keeps subnormals, which the hardware flushes"},
    {"v_madmk_f32", "approximate: keeps subnormals, which the hardware flushes"},
    {"s_memrealtime", "approximate: the host's clock"},
    {"s_sleep", "approximate: ends the wave's turn, takes no time"},
    {"s_nop", "approximate: counts as wait states, takes no time"},
    {"buffer_", "approximate: by the model of memory.h"},
};

/* Not HIP: "exact", "approximate: why", or "refused". */
HIP_API const char *emulator_status(const char *name)
{
    for (size_t i = 0; i < sizeof approximate / sizeof approximate[0]; ++i)
        if (strncmp(name, approximate[i].prefix, strlen(approximate[i].prefix)) == 0 &&
            program_knows(name))
            return approximate[i].status;
    return program_knows(name) ? "exact" : "refused";
}
