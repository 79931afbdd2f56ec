/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The thread-local error record behind IRIS_FAIL.
 */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct iris_error last_error = {.rank = -1, .tile = -1};

struct iris_error *iris_error_last(void)
{
    return &last_error;
}

enum iris_status iris_error_set(enum iris_status status, const char *format, ...)
{
    char message[sizeof last_error.message];
    va_list arguments;

    /* Through a buffer of its own: an argument may point into the last message. */
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);

    memset(&last_error, 0, sizeof last_error);
    memcpy(last_error.message, message, sizeof message);
    last_error.status = status;
    last_error.rank = -1;
    last_error.tile = -1;
    return status;
}

enum iris_status iris_error_in_call(enum iris_status status, const char *name, const char *call)
{
    const size_t length = strlen(name);
    char message[sizeof last_error.message];
    const char *rest = last_error.message;
    const char *separator = ": ";

    if (status != IRIS_EPEER && status != IRIS_ETIMEDOUT)
        return status;
    if (strncmp(rest, name, length) == 0 && (rest[length] == ':' || rest[length] == ',')) {
        rest += length;
        separator = "";
    }
    (void)snprintf(message, sizeof message, "%s%s", call, separator);
    strncat(message, rest, sizeof message - strlen(message) - 1);
    memcpy(last_error.message, message, sizeof message);
    return status;
}

void iris_error_save(struct iris_error *saved)
{
    *saved = last_error;
}

void iris_error_restore(const struct iris_error *saved)
{
    last_error = *saved;
}

enum iris_status iris_alloc_zeroed(size_t nbytes, void **out)
{
    void *block = calloc(1, nbytes);

    if (block == NULL)
        return IRIS_FAIL(IRIS_ENOMEM, "host memory: %zu bytes could not be allocated", nbytes);
    *out = block;
    return IRIS_OK;
}
