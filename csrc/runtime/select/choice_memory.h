/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Choices that a thread has made of late. A loop makes the same calls again and again, and a choice
 * weighs several candidates.
 */
#ifndef IRIS_CHOICE_MEMORY_H
#define IRIS_CHOICE_MEMORY_H

#include "select_parts.h"

/* All that a choice depends on: it is a function of this. */
struct iris_choice_key {
    struct iris_select_target on; /* without an explanation */
    struct iris_config config;
    struct iris_op_desc desc; /* before the choice */
};

/* false: not remembered. Else `desc` and `work_groups` are as the choice has left them. */
bool iris_choice_recall(const struct iris_choice_key *key, struct iris_op_desc *desc,
                        uint32_t *work_groups);

void iris_choice_remember(const struct iris_choice_key *key, const struct iris_op_desc *desc,
                          uint32_t work_groups);

#endif
