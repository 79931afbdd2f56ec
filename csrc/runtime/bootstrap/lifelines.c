/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 */
#include "lifelines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/process.h"
#include "bootstrap_wire.h"

void iris_lifelines_init(struct iris_lifelines *lines)
{
    lines->own = -1;
    lines->ended = 0;
    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank)
        lines->peers[rank] = -1;
}

/* A child forked later closes the end that writes: it would hide its parent's death. */
static enum iris_status make_line(int ends[2])
{
    enum iris_status status = IRIS_OK;

    iris_process_lock();
    if (pipe2(ends, O_CLOEXEC) != 0)
        status = IRIS_FAIL(IRIS_EDRIVER, "pipe2: %s", strerror(errno));
    else
        status = iris_process_register(ends[1]);
    iris_process_unlock();
    if (status != IRIS_OK)
        iris_wire_close_fds(ends, 2);
    return status;
}

enum iris_status iris_lifelines_create(struct iris_bootstrap *bootstrap, int rank, int world_size,
                                       struct iris_lifelines *lines)
{
    enum iris_status status;
    int ends[2] = {-1, -1}, fds[IRIS_MAX_RANKS];

    if (world_size == 1)
        return IRIS_OK;
    status = make_line(ends);
    lines->own = ends[1];
    IRIS_TRY(status);
    status = iris_bootstrap_exchange_fds(bootstrap, "lifelines", ends[0], fds);
    close(ends[0]);
    IRIS_TRY(status);
    for (int peer = 0; peer < world_size; ++peer)
        if (peer != rank)
            lines->peers[peer] = fds[peer];
    return IRIS_OK;
}

void iris_lifelines_let_go(struct iris_lifelines *lines)
{
    int own = __atomic_exchange_n(&lines->own, -1, __ATOMIC_ACQ_REL);

    iris_process_close(&own);
}

void iris_lifelines_close(struct iris_lifelines *lines)
{
    iris_lifelines_let_go(lines);
    iris_wire_close_fds(lines->peers, IRIS_MAX_RANKS);
}

uint32_t iris_lifelines_watch(struct iris_lifelines *lines, uint32_t ranks, int timeout_ms)
{
    const uint32_t before = __atomic_load_n(&lines->ended, __ATOMIC_ACQUIRE);
    struct pollfd polled[IRIS_MAX_RANKS];
    int watched[IRIS_MAX_RANKS], count = 0;

    for (int rank = 0; rank < IRIS_MAX_RANKS; ++rank) {
        if (((ranks & ~before) >> rank & 1u) == 0 || lines->peers[rank] < 0)
            continue;
        watched[count] = rank;
        polled[count++] = (struct pollfd){.fd = lines->peers[rank]};
    }
    if (poll(polled, (nfds_t)count, timeout_ms) > 0) {
        for (int i = 0; i < count; ++i)
            if ((polled[i].revents & POLLHUP) != 0)
                (void)__atomic_fetch_or(&lines->ended, UINT32_C(1) << watched[i], __ATOMIC_ACQ_REL);
    }
    return __atomic_load_n(&lines->ended, __ATOMIC_ACQUIRE) & ranks;
}
