/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The messages between the ranks' bootstraps: one datagram of a SOCK_SEQPACKET connection each, a
 * header, a payload, and possibly file descriptors.
 */
#ifndef IRIS_BOOTSTRAP_WIRE_H
#define IRIS_BOOTSTRAP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bootstrap.h"
#include "kernels/abi/abi.h"

enum { IRIS_WIRE_VERSION = 1, IRIS_WIRE_NAME_NBYTES = 32 };
enum { IRIS_WIRE_MAX_PAYLOAD = IRIS_MAX_RANKS * IRIS_BOOTSTRAP_MAX_BYTES };

enum iris_wire_type {
    IRIS_WIRE_HELLO = 1,  /* to the hub: struct iris_wire_hello */
    IRIS_WIRE_WELCOME,    /* from the hub: all have met */
    IRIS_WIRE_RETRY,      /* from the hub: it meets for another instance just now */
    IRIS_WIRE_REJECT,     /* from the hub: text; the meeting has failed */
    IRIS_WIRE_CONTRIBUTE, /* to the hub: this rank's part of a collective */
    IRIS_WIRE_RESULT,     /* from the hub: all parts, or a text if status != 0 */
    IRIS_WIRE_DEPARTED,   /* from the hub: `rank` is gone, `status` holds the departure */
    IRIS_WIRE_FAREWELL,   /* either way: the sender is gone, `status` holds the departure; from
                             the hub at a meeting: a text, and `rank` is at fault */
};

struct iris_wire_header {
    uint32_t type;
    int32_t rank;      /* HELLO, CONTRIBUTE: the sender; from the hub: the rank at fault, or -1 */
    uint64_t sequence; /* CONTRIBUTE, RESULT: of the collective */
    uint32_t status;   /* RESULT: enum iris_status; DEPARTED: enum iris_departure */
    uint32_t nbytes;   /* of the payload */
    uint32_t num_fds;  /* that belong to the message, whether they could be sent or not */
    uint32_t unused;
    char name[IRIS_WIRE_NAME_NBYTES];
};

struct iris_wire_hello {
    uint32_t version;
    int32_t world_size;
    uint64_t instance;
};

struct iris_wire_message {
    struct iris_wire_header header;
    int fds[IRIS_MAX_RANKS];
    int num_fds; /* that arrived: the first of header.num_fds, fewer if the process has no room */
};

enum iris_wire_result {
    IRIS_WIRE_OK,
    IRIS_WIRE_END,   /* the connection has ended */
    IRIS_WIRE_AGAIN, /* nothing to read, or no room to write, just now */
};

/* A new socket, or one of a connection to `listener` (-1 and errno: there is none). Like all that
 * is sent here they do not block, are close-on-exec, and closed in forked children; closed by
 * iris_process_close. */
enum iris_status iris_wire_open(int *out);
int iris_wire_accept(int listener);

/* Closes what is >= 0, sockets and descriptors received, and sets it to -1. */
void iris_wire_close_fds(int *fds, int count);

/* Sends one message without blocking. `fds` may be NULL; if they cannot be sent, the message goes
 * without. Any other failure but a full buffer counts as the end of the connection. */
enum iris_wire_result iris_wire_send(int socket, const struct iris_wire_header *header,
                                     const void *payload, const int *fds, int num_fds);

/* Receives one message; `payload` has room for IRIS_WIRE_MAX_PAYLOAD bytes. Does not block.
 * Received descriptors are close-on-exec and the caller's. All that a peer sent before it closed
 * the connection is received before the end. */
enum iris_wire_result iris_wire_receive(int socket, struct iris_wire_message *message,
                                        void *payload);

#endif
