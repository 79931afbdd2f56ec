/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Choosing among candidates.
 */
#include "decide.h"

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
