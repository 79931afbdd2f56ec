/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which shared libraries the process has mapped, whoever loaded them and from wherever.
 */
#ifndef IRIS_MAPPED_LIBRARY_H
#define IRIS_MAPPED_LIBRARY_H

#include "base/status.h"

enum { IRIS_LIBRARY_PATH_NBYTES = 1024 };

/* Paths of mapped libraries whose files have one stem: "libamdhip64" has libamdhip64.so,
 * libamdhip64.so.7 and libamdhip64-1a2b3c.so, as wheels rename what they bring along, but not
 * libamdhip64_helper.so. The first two; `count` is more than 2 if there are more. */
struct iris_mapped_libraries {
    int count;
    char paths[2][IRIS_LIBRARY_PATH_NBYTES];
};

void iris_find_mapped_libraries(const char *stem, struct iris_mapped_libraries *out);

#endif
