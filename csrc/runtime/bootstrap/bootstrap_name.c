/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * SO_PEERCRED where there is a connection, the kernel's list of sockets (sock_diag(7)) where there
 * is none.
 */
#include "bootstrap_name.h"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef UDIAG_SHOW_UID /* Linux 5.3 */
#define UDIAG_SHOW_UID 0x40
#endif
enum { ATTRIBUTE_NAME = 0, ATTRIBUTE_UID = 7 };

uint64_t iris_run_key_hash(const char *run_key)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */

    for (; *run_key != '\0'; ++run_key)
        hash = (hash ^ (unsigned char)*run_key) * UINT64_C(1099511628211);
    return hash;
}

void iris_name_of(const char *run_key, struct iris_name *out)
{
    int length;

    memset(out, 0, sizeof *out);
    out->address.sun_family = AF_UNIX;
    /* A leading zero byte: the abstract name space. */
    length =
        snprintf(out->address.sun_path + 1, sizeof out->address.sun_path - 1, "iris_c/%u/%016llx",
                 (unsigned)geteuid(), (unsigned long long)iris_run_key_hash(run_key));
    out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

struct iris_name_holder iris_name_peer(int socket)
{
    struct iris_name_holder holder = {0};
    struct ucred credentials;
    socklen_t length = sizeof credentials;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0)
        holder = (struct iris_name_holder){
            .known = true, .uid = credentials.uid, .pid = credentials.pid};
    return holder;
}

bool iris_name_is_own_user(const struct iris_name_holder *holder)
{
    return holder->known && holder->uid == geteuid();
}

/* ---- the kernel's list ---- */

/* The attributes of one socket: fills in the holder if it has the name. */
static bool take_entry(const struct unix_diag_msg *entry, size_t nbytes,
                       const struct iris_name *name, struct iris_name_holder *out)
{
    const size_t name_nbytes = name->length - offsetof(struct sockaddr_un, sun_path);
    const char *at = (const char *)(entry + 1), *end = (const char *)entry + nbytes;
    struct iris_name_holder holder = {0};
    bool matches = false;

    while (at + sizeof(struct nlattr) <= end) {
        struct nlattr attribute;
        memcpy(&attribute, at, sizeof attribute);
        if (attribute.nla_len < sizeof attribute || at + attribute.nla_len > end)
            break;
        const char *value = at + sizeof attribute;
        const size_t length = attribute.nla_len - sizeof attribute;
        if (attribute.nla_type == ATTRIBUTE_NAME)
            matches = length == name_nbytes && memcmp(value, name->address.sun_path, length) == 0;
        if (attribute.nla_type == ATTRIBUTE_UID && length >= sizeof holder.uid) {
            memcpy(&holder.uid, value, sizeof holder.uid);
            holder.known = true;
        }
        at += NLA_ALIGN(attribute.nla_len);
    }
    if (matches && entry->udiag_type == SOCK_SEQPACKET)
        *out = holder;
    return matches && entry->udiag_type == SOCK_SEQPACKET;
}

/* One datagram of the kernel's answer. true: there is no more to come. */
static bool take_answer(const char *answer, size_t nbytes, const struct iris_name *name,
                        struct iris_name_holder *out)
{
    while (nbytes >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr header;
        memcpy(&header, answer, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > nbytes)
            return true;
        if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR)
            return true;
        if (header.nlmsg_len >= NLMSG_HDRLEN + sizeof(struct unix_diag_msg) &&
            take_entry((const struct unix_diag_msg *)(answer + NLMSG_HDRLEN),
                       header.nlmsg_len - NLMSG_HDRLEN, name, out))
            return true;
        if (NLMSG_ALIGN(header.nlmsg_len) >= nbytes)
            break;
        answer += NLMSG_ALIGN(header.nlmsg_len);
        nbytes -= NLMSG_ALIGN(header.nlmsg_len);
    }
    return false;
}

struct iris_name_holder iris_name_find_holder(const struct iris_name *name)
{
    enum { ANSWER_NBYTES = 32768 };
    const struct {
        struct nlmsghdr header;
        struct unix_diag_req body;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = AF_UNIX,
                 .udiag_states = ~0u,
                 .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_UID},
    };
    const int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    struct iris_name_holder holder = {0};
    char *answer = malloc(ANSWER_NBYTES); /* aligned for what lies in it */

    if (sock >= 0 && answer != NULL &&
        send(sock, &request, sizeof request, 0) == (ssize_t)sizeof request) {
        /* The kernel has written the answer, or its first part, before send returns. */
        for (;;) {
            const ssize_t got = recv(sock, answer, ANSWER_NBYTES, 0);
            if (got <= 0 || take_answer(answer, (size_t)got, name, &holder))
                break;
        }
    }
    free(answer);
    if (sock >= 0)
        (void)close(sock);
    return holder;
}

void iris_name_describe(const struct iris_name_holder *holder, char text[IRIS_NAME_HOLDER_NBYTES])
{
    char user[24] = "an unknown user", pid[24] = "";

    if (holder->known)
        (void)snprintf(user, sizeof user, "user %u", holder->uid);
    if (holder->pid > 0)
        (void)snprintf(pid, sizeof pid, " (pid %d)", holder->pid);
    (void)snprintf(text, IRIS_NAME_HOLDER_NBYTES, "a process of %s%s", user, pid);
}
