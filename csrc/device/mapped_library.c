/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The kernel's list of the process's mappings is read. To ask the loader for a name, as
 * RTLD_NOLOAD does, finds a library only under the name that it carries or was loaded by; to walk
 * the loader's own list (dl_iterate_phdr) takes a lock that a forked child finds held for ever when
 * another thread of its parent was walking too.
 */
#include "mapped_library.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernel writes it behind the path of a file that has been deleted or replaced since. */
static const char DELETED[] = " (deleted)";

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

/* The path in a line of the list whose pages may be executed, which only the loader maps: others
 * that map a library read its symbols. NULL for other lines. Cuts what follows the path. */
static char *path_of_code(char *line)
{
    char *path = strchr(line, '/');
    char permissions[5];
    size_t length;

    if (path == NULL || sscanf(line, "%*s %4s", permissions) != 1 || permissions[2] != 'x')
        return NULL;
    length = strcspn(path, "\n");
    path[length] = '\0';
    if (length >= sizeof DELETED - 1) {
        char *end = path + length - (sizeof DELETED - 1);
        if (strcmp(end, DELETED) == 0)
            *end = '\0';
    }
    return path;
}

static void note(struct iris_mapped_libraries *found, const char *path)
{
    const int kept = found->count < 2 ? found->count : 2;

    for (int i = 0; i < kept; ++i)
        if (strncmp(found->paths[i], path, sizeof found->paths[i] - 1) == 0)
            return;
    if (kept < 2)
        (void)snprintf(found->paths[kept], sizeof found->paths[kept], "%s", path);
    ++found->count;
}

void iris_find_mapped_libraries(const char *stem, struct iris_mapped_libraries *out)
{
    FILE *list = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;

    out->count = 0;
    if (list == NULL)
        return;
    while (getline(&line, &room, list) >= 0) {
        const char *path = path_of_code(line);
        if (path != NULL && has_stem(path, stem))
            note(out, path);
    }
    free(line);
    (void)fclose(list);
}
