/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A choice among candidates: each has a time, the sum or the larger of terms that have names, and
 * the fastest is taken. What was weighed can be kept for people to read: iris_c.ops.explain.
 */
#ifndef IRIS_DECIDE_H
#define IRIS_DECIDE_H

#include <stddef.h>

#include "runtime/iris.h"

/* Adds a candidate for the decision's field, with the time of each of its terms and its whole time,
 * in seconds. `terms` has an entry for each of the decision's term names. */
void iris_decision_add(struct iris_decision *decision, int32_t value, const double *terms,
                       double seconds);

/* Takes the first candidate that none after it beats by more than `margin` of its time: put first
 * what is to be kept where the model cannot tell. Returns the candidate's value; `explanation` may
 * be NULL. */
int32_t iris_decide(struct iris_decision *decision, double margin,
                    struct iris_explanation *explanation);

/* A line for each candidate, the chosen one marked; as much as `nbytes` takes. Returns its length.
 */
size_t iris_decision_format(const struct iris_decision *decision, char *text, size_t nbytes);

#endif
