/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The loader's own list is read: to ask it for a name, as RTLD_NOLOAD does, finds a library only
 * under the name that it carries or was loaded by.
 */
#include "mapped_library.h"

#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct search {
    const char *stem;
    struct iris_mapped_libraries *found;
};

/* "libcuda.so.1.1" is a part of WSL's libcuda.so.1, which maps it, and no driver of its own. */
static bool is_part_of_another(const char *file)
{
    return strcmp(file, "libcuda.so.1.1") == 0;
}

static bool has_stem(const char *path, const char *stem)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    const size_t length = strlen(stem);

    if (strncmp(file, stem, length) != 0 || is_part_of_another(file))
        return false;
    return strncmp(file + length, ".so", 3) == 0 ||
           (file[length] == '-' && strstr(file + length, ".so") != NULL);
}

static int visit(struct dl_phdr_info *library, size_t nbytes, void *data)
{
    const struct search *search = data;
    struct iris_mapped_libraries *found = search->found;

    (void)nbytes;
    if (library->dlpi_name == NULL || !has_stem(library->dlpi_name, search->stem))
        return 0;
    if (found->count < 2)
        (void)snprintf(found->paths[found->count], sizeof found->paths[0], "%s",
                       library->dlpi_name);
    ++found->count;
    return 0;
}

void iris_find_mapped_libraries(const char *stem, struct iris_mapped_libraries *out)
{
    struct search search = {.stem = stem, .found = out};

    out->count = 0;
    (void)dl_iterate_phdr(visit, &search);
}
