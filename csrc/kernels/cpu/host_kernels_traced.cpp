/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The kernels of the host that have a traced twin, traced (trace.h): the same source in a namespace
 * of its own, so that the two builds of a template are two functions.
 */
#define IRIS_TRACED 1
#define iris iris_traced
#include "host_kernels.cpp"
