/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Choosing among candidates.
 */
#include "decide.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void iris_decision_add(struct iris_decision *decision, int32_t value, const double *terms,
                       double seconds)
{
    struct iris_candidate *candidate = &decision->candidates[decision->count++];

    candidate->value = value;
    candidate->seconds = seconds;
    for (int i = 0; i < IRIS_MAX_TERMS; ++i)
        candidate->terms[i] = decision->terms[i] != NULL ? terms[i] : 0;
}

int32_t iris_decide(struct iris_decision *decision, double margin,
                    struct iris_explanation *explanation)
{
    decision->chosen = 0;
    for (int i = 1; i < decision->count; ++i)
        if (decision->candidates[i].seconds <
            decision->candidates[decision->chosen].seconds * (1 - margin))
            decision->chosen = i;
    if (explanation != NULL && explanation->count < IRIS_MAX_DECISIONS)
        explanation->decisions[explanation->count++] = *decision;
    return decision->candidates[decision->chosen].value;
}

const char *iris_decision_value_name(const struct iris_decision *decision, int32_t value)
{
    if (strcmp(decision->field, "all_reduce_variant") == 0)
        return iris_variant_name((enum iris_variant)value);
    return strcmp(decision->field, "form") == 0 ? iris_form_name((enum iris_form)value) : NULL;
}

/* Adds to a text of `used` bytes; returns how many it has then, less than nbytes. */
static size_t append(char *text, size_t nbytes, size_t used, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static size_t append(char *text, size_t nbytes, size_t used, const char *format, ...)
{
    va_list values;
    int length;

    va_start(values, format);
    length = vsnprintf(text + used, nbytes - used, format, values);
    va_end(values);
    return length < 0 ? used : used + (size_t)length < nbytes ? used + (size_t)length : nbytes - 1;
}

size_t iris_decision_format(const struct iris_decision *decision, char *text, size_t nbytes)
{
    size_t used = 0;

    for (int c = 0; c < decision->count; ++c) {
        const struct iris_candidate *candidate = &decision->candidates[c];
        const char *name = iris_decision_value_name(decision, candidate->value);
        char number[16];

        (void)snprintf(number, sizeof number, "%d", candidate->value);
        used = append(text, nbytes, used, "%s  %s %s = %s: %.1f us", c > 0 ? "\n" : "",
                      c == decision->chosen ? "*" : " ", decision->field,
                      name != NULL ? name : number, candidate->seconds * 1e6);
        for (int i = 0; i < IRIS_MAX_TERMS && decision->terms[i] != NULL; ++i)
            used = append(text, nbytes, used, "%s%s %.1f", i == 0 ? " (" : ", ", decision->terms[i],
                          candidate->terms[i] * 1e6);
        used = append(text, nbytes, used, ")");
    }
    return used;
}
