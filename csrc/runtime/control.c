/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Making and mapping the control segment, and the abort words.
 */
#include "control.h"

#include <stdbool.h>
#include <unistd.h>

#include "device/shared_memory.h"

enum iris_status iris_control_create(struct iris_bootstrap *bootstrap, int rank, int world_size,
                                     struct iris_control **out)
{
    const size_t nbytes = sizeof(struct iris_control);
    int fds[IRIS_MAX_RANKS], own = -1;
    enum iris_status status;
    void *data = NULL;

    /* Every rank makes one, since an exchange gives and takes a descriptor on each; they are empty
     * files of which only rank 0's is ever touched. */
    IRIS_TRY(iris_shared_memory_create("iris_c-control", nbytes, &own, &data));
    if (rank == 0)
        iris_roll_init(&((struct iris_control *)data)->roll);
    status = iris_bootstrap_exchange_fds(bootstrap, "control", own, fds);
    close(own);
    if (status != IRIS_OK)
        goto fail;
    if (rank != 0) {
        iris_shared_memory_unmap(data);
        data = NULL;
        status = iris_shared_memory_map(fds[0], nbytes, &data);
    }
    for (int peer = 0; peer < world_size; ++peer)
        if (peer != rank)
            close(fds[peer]);
    if (status != IRIS_OK)
        goto fail;
    *out = data;
    return IRIS_OK;
fail:
    iris_shared_memory_unmap(data);
    return status;
}

void iris_control_destroy(struct iris_control *control)
{
    iris_shared_memory_unmap(control);
}

void iris_control_abort(struct iris_control *control, int rank, uint32_t word)
{
    uint32_t expected = IRIS_ABORT_NONE;

    (void)__atomic_compare_exchange_n(&control->faults[rank].abort, &expected, word, false,
                                      __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

uint32_t iris_control_aborted(const struct iris_control *control, int rank)
{
    return __atomic_load_n(&control->faults[rank].abort, __ATOMIC_ACQUIRE);
}

void iris_control_give_up(struct iris_control *control, int rank, int awaited)
{
    uint32_t expected = 0;

    (void)__atomic_compare_exchange_n(&control->gave_up[rank], &expected, 1 + (uint32_t)awaited,
                                      false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

int iris_control_given_up(const struct iris_control *control, int rank)
{
    const uint32_t by_host = __atomic_load_n(&control->gave_up[rank], __ATOMIC_ACQUIRE);

    if (by_host != 0)
        return (int)by_host - 1;
    if (IRIS_ABORT_REASON(iris_control_aborted(control, rank)) == IRIS_ABORT_TIMEOUT)
        return control->faults[rank].rank;
    return -1;
}

uint64_t iris_control_posted(const struct iris_control *control, int rank)
{
    return __atomic_load_n(&control->posted[rank].value, __ATOMIC_ACQUIRE);
}

void iris_control_clear_abort(struct iris_control *control, int rank)
{
    __atomic_store_n(&control->faults[rank].abort, IRIS_ABORT_NONE, __ATOMIC_RELEASE);
}
