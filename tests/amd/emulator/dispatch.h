/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A device, and the run of one kernel on it: its resident work-groups, their waves in turn.
 */
#ifndef EMULATOR_DISPATCH_H
#define EMULATOR_DISPATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine.h"
#include "memory.h"
#include "program.h"

enum { WAITING_BUCKETS = 256, HISTORY = 4096 };

/* All, half of them (one at least), or one. A place is given up by a group that ends. */
enum residency { RESIDENT_ALL, RESIDENT_HALF, RESIDENT_ONE };

enum order { ORDER_FORWARD, ORDER_REVERSED, ORDER_RANDOM };

struct device {
    char arch[16];
    uint32_t clock_rate; /* of s_memrealtime, Hz */
    uint32_t dies;
    bool flushes_subnormals, gfx90a;
    bool fnuz; /* its encodings of fp8 and bf8 */
    /* How it behaves. */
    bool adversarial;
    bool checks; /* those of checks.h */
    bool evicts; /* dirty lines by chance; adversarial memory only */
    enum order order;
    uint32_t seed;
    /* Rounds without progress after which a dispatch is given up as deadlocked; 0: never, for
     * devices whose peers may make the progress. */
    uint32_t idle_rounds;
    /* How many work-groups of a launch are resident at a time, and for how long none may get
     * anywhere while others wait for a place. */
    enum residency residency;
    uint32_t starved_ms;
    uint32_t random;      /* state of the generator */
    pthread_mutex_t lock; /* held while a wave runs when memory is adversarial */
    struct cache *l2[MAX_DIES];
    uint64_t history[HISTORY], remembered; /* lines that were read, for the next launch */
};

/* What architecture and environment say; see tests/amd/README.md. False: unknown architecture. */
bool device_open(struct device *device, const char *arch);
void device_close(struct device *device);

/* What the dispatch pointer points to: the packet of the queue, of which kernels read the sizes.
 * The layout is that of HSA's hsa_kernel_dispatch_packet_t. */
struct dispatch_packet {
    uint16_t header, setup, workgroup_size[3], reserved;
    uint32_t grid_size[3]; /* in work-items */
    uint32_t private_nbytes, group_nbytes;
    uint64_t kernel_object, kernarg, reserved_too, completion;
};

struct dispatch {
    struct device *device;
    const struct program *program;
    const struct kernel *kernel;
    uint32_t grid[3], block;
    uint32_t dynamic_lds;
    const void *kernarg; /* in a region, as the packet */
    struct dispatch_packet *packet;
    uint32_t groups, waves_per_group;
    uint32_t places, started; /* groups from 0 on begin in order */
    struct work_group *group;
    uint32_t (*waiting)[WAITING_BUCKETS]; /* see memory.c; one row per work-group */
    uint64_t progress;                    /* stores, atomics, ends */
    uint64_t *profile;                    /* NULL, or how often each instruction ran */
    bool failed;
    char message[512];
};

enum dispatch_result { DISPATCH_OK, DISPATCH_FAULT, DISPATCH_DEADLOCK };

/* Runs the kernel to its end. On failure `message` says why. */
enum dispatch_result dispatch_run(struct dispatch *dispatch);

#endif
