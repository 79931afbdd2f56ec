/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The name under which the ranks of a run meet, and who holds it.
 *
 * It is a name in the abstract space of AF_UNIX, so no file is left behind, made of the user and a
 * hash of the run key. Any user of the machine can bind it first: ranks look at whom they talk to,
 * and can say who is in the way.
 */
#ifndef IRIS_BOOTSTRAP_NAME_H
#define IRIS_BOOTSTRAP_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct iris_name {
    struct sockaddr_un address;
    socklen_t length;
};

struct iris_name_holder {
    bool known;
    uint32_t uid;
    int pid; /* 0: not known */
};

uint64_t iris_run_key_hash(const char *run_key);
void iris_name_of(const char *run_key, struct iris_name *out);

/* Who is at the other end of a connection; who connected to the name, or who listens there. */
struct iris_name_holder iris_name_peer(int socket);
/* Whether it is the user that this process acts for. */
bool iris_name_is_own_user(const struct iris_name_holder *holder);
/* Asks the kernel who has bound the name, whether it can be connected to or not. Waits for nobody.
 */
struct iris_name_holder iris_name_find_holder(const struct iris_name *name);

/* "a process of user 65534 (pid 4711)", "a process of this user", "a process of an unknown user".
 */
enum { IRIS_NAME_HOLDER_NBYTES = 80 };
void iris_name_describe(const struct iris_name_holder *holder, char text[IRIS_NAME_HOLDER_NBYTES]);

#endif
