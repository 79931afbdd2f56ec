/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Sockets, and sendmsg and recvmsg with SCM_RIGHTS.
 */
#include "bootstrap_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/process.h"

union control_buffer {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * IRIS_MAX_RANKS)];
};

enum iris_status iris_wire_open(int *out)
{
    enum iris_status status;
    int fd;

    iris_process_lock();
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    status = fd >= 0 ? iris_process_register(fd)
                     : IRIS_FAIL(IRIS_EDRIVER, "socket(AF_UNIX): %s", strerror(errno));
    iris_process_unlock();
    if (status != IRIS_OK && fd >= 0)
        (void)close(fd);
    if (status == IRIS_OK)
        *out = fd;
    return status;
}

int iris_wire_accept(int listener)
{
    int fd;

    iris_process_lock();
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && iris_process_register(fd) != IRIS_OK) {
        (void)close(fd);
        errno = ENOMEM;
        fd = -1;
    }
    iris_process_unlock();
    return fd;
}

void iris_wire_close_fds(int *fds, int count)
{
    for (int i = 0; i < count; ++i)
        iris_process_close(&fds[i]);
}

static ssize_t send_once(int socket, const struct iris_wire_header *header, const void *payload,
                         const int *fds, int num_fds)
{
    union control_buffer control;
    struct iovec parts[2] = {{(void *)(uintptr_t)header, sizeof *header},
                             {(void *)(uintptr_t)payload, header->nbytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = header->nbytes > 0 ? 2 : 1};
    ssize_t sent;

    if (num_fds > 0) {
        struct cmsghdr *rights;
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)num_fds);
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)num_fds);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * (size_t)num_fds);
    }
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent;
}

enum iris_wire_result iris_wire_send(int socket, const struct iris_wire_header *header,
                                     const void *payload, const int *fds, int num_fds)
{
    ssize_t sent = send_once(socket, header, payload, fds, num_fds);

    /* Perhaps only the descriptors are at fault (EBADF, ETOOMANYREFS): the receiver sees from the
     * header that they are missing, and nobody waits in vain. */
    if (sent < 0 && num_fds > 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        sent = send_once(socket, header, payload, NULL, 0);
    if (sent >= 0)
        return IRIS_WIRE_OK;
    return errno == EAGAIN || errno == EWOULDBLOCK ? IRIS_WIRE_AGAIN : IRIS_WIRE_END;
}

static void take_fds(struct msghdr *message, struct iris_wire_message *out)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (out->num_fds < IRIS_MAX_RANKS)
                out->fds[out->num_fds++] = fd;
            else
                close(fd);
        }
    }
}

enum iris_wire_result iris_wire_receive(int socket, struct iris_wire_message *message,
                                        void *payload)
{
    union control_buffer control;
    struct iovec parts[2] = {{&message->header, sizeof message->header},
                             {payload, IRIS_WIRE_MAX_PAYLOAD}};
    struct msghdr raw = {.msg_iov = parts,
                         .msg_iovlen = 2,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    bool was_reset = false;
    ssize_t received;

    message->num_fds = 0;
    for (;;) {
        received = recvmsg(socket, &raw, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (received >= 0)
            break;
        /* A peer that closes with something unread resets the connection. That is told once,
         * before the messages that it sent, its farewell among them. */
        if (errno == ECONNRESET && !was_reset)
            was_reset = true;
        else if (errno != EINTR)
            break;
    }
    if (received < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? IRIS_WIRE_AGAIN : IRIS_WIRE_END;
    take_fds(&raw, message);
    /* MSG_CTRUNC is not looked at: header.num_fds says what is missing. */
    if ((size_t)received < sizeof message->header ||
        (size_t)received != sizeof message->header + message->header.nbytes ||
        (raw.msg_flags & MSG_TRUNC) != 0) {
        /* End of file, or not one of our messages: either way nothing more can be understood. */
        for (int i = 0; i < message->num_fds; ++i)
            close(message->fds[i]);
        message->num_fds = 0;
        return IRIS_WIRE_END;
    }
    message->header.name[IRIS_WIRE_NAME_NBYTES - 1] = '\0';
    return IRIS_WIRE_OK;
}
