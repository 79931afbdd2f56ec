/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * hsa_amd_pointer_info of the HSA runtime, hsa_ext_amd.h.
 */
#include "gpu_memory_kind.h"

#include <stddef.h>

/* hsa_amd_memory_pool_global_flag_t */
enum { HSA_FINE_GRAINED = 2, HSA_COARSE_GRAINED = 4, HSA_EXTENDED_SCOPE = 8 };

/* hsa_amd_pointer_info_t, which grows at its end: a runtime sets `nbytes` to what it knows. */
struct hsa_pointer_info {
    uint32_t nbytes;
    int type;
    void *agent_base, *host_base;
    size_t size;
    void *user_data;
    uint64_t owner;
    uint32_t flags;
    uint32_t registered;
};

enum iris_memory_kind gpu_memory_kind_of(const struct gpu_driver *driver, const void *data)
{
    struct hsa_pointer_info info = {.nbytes = sizeof info};

    if (driver->platform == GPU_CUDA)
        return IRIS_MEMORY_COHERENT;
    if (driver->pointer_info == NULL || driver->pointer_info(data, &info, NULL, NULL, NULL) != 0 ||
        info.nbytes < offsetof(struct hsa_pointer_info, registered))
        return IRIS_MEMORY_UNKNOWN;
    if (info.flags & HSA_EXTENDED_SCOPE)
        return IRIS_MEMORY_UNCACHED;
    if (info.flags & HSA_FINE_GRAINED)
        return IRIS_MEMORY_FINE_GRAINED;
    return info.flags & HSA_COARSE_GRAINED ? IRIS_MEMORY_COARSE_GRAINED : IRIS_MEMORY_UNKNOWN;
}
