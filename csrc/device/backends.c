/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The list of backends, best first.
 */
#include "device.h"

#include <string.h>

static const struct iris_device_ops *const backends[] = {&iris_device_hip, &iris_device_cuda,
                                                         &iris_device_cpu};

enum iris_status iris_device_find(const char *name, const struct iris_device_ops **out)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; ++i) {
        if (name == NULL ? backends[i]->is_present() : strcmp(name, backends[i]->name) == 0) {
            *out = backends[i];
            return IRIS_OK;
        }
    }
    return IRIS_FAIL(IRIS_EINVAL, "backend: expected 'hip', 'cuda' or 'cpu', got '%s'",
                     name != NULL ? name : "");
}
