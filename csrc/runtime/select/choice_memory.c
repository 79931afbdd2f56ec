/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Keys are compared as bytes: what differs in padding alone is chosen once more.
 */
#include "choice_memory.h"

#include <string.h>

enum { REMEMBERED = 16 /* a block of layers makes about as many different calls */ };

struct choice {
    struct iris_choice_key key; /* of a choice that there is: its chip is not NULL */
    struct iris_op_desc desc;
    uint32_t work_groups;
};

struct choice_memory {
    struct choice choices[REMEMBERED];
    unsigned last; /* recalled or remembered: mostly it is that one's successor's turn */
    unsigned oldest;
};

static _Thread_local struct choice_memory memory;

bool iris_choice_recall(const struct iris_choice_key *key, struct iris_op_desc *desc,
                        uint32_t *work_groups)
{
    struct choice_memory *const mine = &memory;

    for (unsigned i = 0; i < REMEMBERED; ++i) {
        const unsigned number = (mine->last + i) % REMEMBERED;
        const struct choice *choice = &mine->choices[number];

        if (choice->key.desc.M != key->desc.M || choice->key.desc.N != key->desc.N ||
            /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c) */
            memcmp(&choice->key, key, sizeof *key) != 0)
            continue;
        *desc = choice->desc;
        *work_groups = choice->work_groups;
        mine->last = number;
        return true;
    }
    return false;
}

void iris_choice_remember(const struct iris_choice_key *key, const struct iris_op_desc *desc,
                          uint32_t work_groups)
{
    struct choice_memory *const mine = &memory;
    struct choice *choice = &mine->choices[mine->oldest];

    memcpy(&choice->key, key, sizeof *key);
    choice->desc = *desc;
    choice->work_groups = work_groups;
    mine->last = mine->oldest;
    mine->oldest = (mine->oldest + 1) % REMEMBERED;
}
