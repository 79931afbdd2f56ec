/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How a context ends; iris_context_close, iris_context_close_now and iris_context_release are in
 * iris.h.
 */
#ifndef IRIS_CONTEXT_END_H
#define IRIS_CONTEXT_END_H

#include <stdbool.h>

#include "context.h"

/* Leaves the peers as iris_context_close does, unless the context is closed: then false. With
 * `goes_on` the lifelines stay, waits of this rank that are under way end at once, and peers'
 * memory is unmapped when they have. */
bool iris_context_depart(struct iris_context *ctx, bool goes_on);

#endif
