/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Running a kernel: registers as the packet processor sets them, waves in turn, barriers,
 * deadlocks.
 */
#include "dispatch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache.h"
#include "checks.h"
#include "direct.h"

/* Instructions that a wave runs before the next one's turn. */
enum { SLICE = 2048, RANDOM_SLICE = 97, IDLE_PERIOD = 8 };
/* In adversarial mode: after a signal that may have gone ahead, and before the last stores go. */
enum { SIGNAL_PAUSE_NS = 30000, END_PAUSE_NS = 1000000 };

/* ---- the device ---- */

static uint32_t number_of(const char *name, uint32_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

bool device_open(struct device *device, const char *arch)
{
    const char *order = getenv("EMULATOR_ORDER"), *resident = getenv("EMULATOR_RESIDENT");

    memset(device, 0, sizeof *device);
    (void)snprintf(device->arch, sizeof device->arch, "%s", arch);
    device->gfx90a = strcmp(arch, "gfx90a") == 0;
    if (!device->gfx90a && strcmp(arch, "gfx942") != 0 && strcmp(arch, "gfx950") != 0)
        return false;
    device->clock_rate = device->gfx90a ? 25000000 : 100000000;
    device->dies = device->gfx90a ? 1 : MAX_DIES;
    device->flushes_subnormals = device->gfx90a;
    device->fnuz = strcmp(arch, "gfx942") == 0;
    device->adversarial = number_of("EMULATOR_ADVERSARIAL", 0) != 0;
    device->checks = number_of("EMULATOR_CHECKS", 1) != 0;
    device->evicts = device->gfx90a || number_of("EMULATOR_EVICTIONS", 1) != 0;
    device->seed = number_of("EMULATOR_SEED", 1);
    device->idle_rounds = number_of("EMULATOR_IDLE_ROUNDS", 0);
    device->random = device->seed * 2654435761u | 1;
    device->order = ORDER_FORWARD;
    if (order != NULL && strcmp(order, "reversed") == 0)
        device->order = ORDER_REVERSED;
    if (order != NULL && strcmp(order, "random") == 0)
        device->order = ORDER_RANDOM;
    device->starved_ms = number_of("EMULATOR_STARVED_MS", 5000);
    device->residency = RESIDENT_ALL;
    if (resident != NULL && strcmp(resident, "half") == 0)
        device->residency = RESIDENT_HALF;
    if (resident != NULL && strcmp(resident, "one") == 0)
        device->residency = RESIDENT_ONE;
    pthread_mutex_init(&device->lock, NULL);
    return memory_open(device);
}

void device_close(struct device *device)
{
    memory_close(device);
    pthread_mutex_destroy(&device->lock);
}

void fault(struct wave *wave, const char *format, ...)
{
    struct dispatch *dispatch = wave->group->dispatch;
    const struct instruction *in = &dispatch->program->instruction[wave->pc - 1];
    char what[256];
    va_list arguments;

    wave->state = WAVE_ENDED;
    if (dispatch->failed)
        return;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    dispatch->failed = true;
    (void)snprintf(dispatch->message, sizeof dispatch->message, "%s: work-group %u at %#x %s: %s",
                   dispatch->kernel->name, wave->group->index, in->address, in->name, what);
}

/* ---- setting up ---- */

/* Bits of the kernel descriptor's properties. */
enum { PRIVATE_BUFFER = 1, DISPATCH_POINTER = 2, QUEUE_POINTER = 4, KERNARG_POINTER = 8 };

/* The user registers in the order of the kernel descriptor's properties, then the work-group's
 * coordinates, then work-item ids of 10 bits each in v0. */
static void set_registers(struct wave *w, uint32_t first_item)
{
    const struct dispatch *dispatch = w->group->dispatch;
    const struct kernel *kernel = dispatch->kernel;
    const uint32_t left = dispatch->block - first_item;
    uint32_t next = 0;

    if (kernel->properties & PRIVATE_BUFFER)
        next += 4;
    if (kernel->properties & DISPATCH_POINTER) {
        set_scalar_pair(w, next, (uint64_t)(uintptr_t)dispatch->packet);
        next += 2;
    }
    if (kernel->properties & QUEUE_POINTER)
        next += 2;
    if (kernel->properties & KERNARG_POINTER)
        set_scalar_pair(w, next, (uint64_t)(uintptr_t)dispatch->kernarg);
    next = kernel->user_registers;
    for (int i = 0; i < 3; ++i)
        if (kernel->group_ids >> i & 1)
            w->s[next++] = w->group->id[i];
    set_scalar_pair(w, EXEC, left >= LANES ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1);
    for (uint32_t l = 0; l < LANES; ++l)
        w->v[0][l] = first_item + l;
    w->pc = kernel->entry;
}

static bool set_up_group(struct dispatch *dispatch, uint32_t index)
{
    struct work_group *group = &dispatch->group[index];
    const uint32_t lds = dispatch->kernel->lds_nbytes + dispatch->dynamic_lds;

    group->dispatch = dispatch;
    group->index = index;
    group->id[0] = index % dispatch->grid[0];
    group->id[1] = index / dispatch->grid[0] % dispatch->grid[1];
    group->id[2] = index / dispatch->grid[0] / dispatch->grid[1];
    group->waves = dispatch->waves_per_group;
    group->lds = malloc(lds + 1);
    group->wave = calloc(group->waves, sizeof *group->wave);
    if (group->lds == NULL || group->wave == NULL || !memory_begin(group))
        return false;
    memset(group->lds, 0xcd, lds); /* what an earlier work-group left */
    for (uint32_t i = 0; i < group->waves; ++i) {
        memset(group->wave[i].v, 0xcd, sizeof group->wave[i].v);
        group->wave[i].group = group;
        set_registers(&group->wave[i], i * LANES);
    }
    return checks_begin(group);
}

static uint32_t places_of(enum residency residency, uint32_t groups)
{
    if (residency == RESIDENT_ONE)
        return 1;
    return residency == RESIDENT_HALF && groups > 1 ? groups / 2 : groups;
}

static bool set_up(struct dispatch *dispatch)
{
    dispatch->groups = dispatch->grid[0] * dispatch->grid[1] * dispatch->grid[2];
    dispatch->places = places_of(dispatch->device->residency, dispatch->groups);
    dispatch->waves_per_group = (dispatch->block + LANES - 1) / LANES;
    dispatch->group = calloc(dispatch->groups, sizeof *dispatch->group);
    dispatch->waiting = calloc(dispatch->groups, sizeof *dispatch->waiting);
    if (dispatch->group == NULL || dispatch->waiting == NULL)
        return false;
    for (uint32_t i = 0; i < dispatch->groups; ++i)
        if (!set_up_group(dispatch, i))
            return false;
    return true;
}

static void tear_down(struct dispatch *dispatch)
{
    for (uint32_t i = 0; dispatch->group != NULL && i < dispatch->groups; ++i) {
        struct work_group *group = &dispatch->group[i];
        direct_end(group);
        memory_end(group);
        checks_end(group);
        free(group->wave);
        free(group->lds);
    }
    free(dispatch->waiting);
    free(dispatch->group);
    dispatch->group = NULL;
}

/* ---- running ---- */

static void run_wave(struct wave *w, uint32_t slice)
{
    const struct dispatch *dispatch = w->group->dispatch;
    const struct instruction *code = dispatch->program->instruction;
    uint32_t done = 0;

    if (w->state == WAVE_SLEEPS)
        w->state = WAVE_RUNS;
    w->yields = false;
    for (; done < slice && w->state == WAVE_RUNS && !w->yields; ++done) {
        const struct instruction *in = &code[w->pc++];
        if (dispatch->profile != NULL)
            ++dispatch->profile[in - code];
        if (w->checks == NULL || checks_issue(w, in))
            in->run(w, in);
    }
    memory_stir(w);
    if (w->state != WAVE_ENDED)
        return;
    ++w->group->ended;
    ++w->group->dispatch->progress;
}

/* Whether any wave did more than wait. */
static bool run_group(struct work_group *group, uint32_t slice)
{
    struct device *device = group->dispatch->device;
    uint32_t at_barrier = 0;
    bool busy = false;

    for (uint32_t i = 0; i < group->waves; ++i) {
        struct wave *w = &group->wave[i];
        if (device->adversarial)
            pthread_mutex_lock(&device->lock);
        if (w->state == WAVE_ENDED || w->state == WAVE_AT_BARRIER)
            memory_stir(w);
        else
            run_wave(w, slice);
        if (device->adversarial)
            pthread_mutex_unlock(&device->lock);
        if (w->state == WAVE_ENDED)
            continue;
        busy = busy || w->state == WAVE_RUNS;
        if (w->yields)
            (void)nanosleep(&(struct timespec){0, SIGNAL_PAUSE_NS}, NULL);
        w->yields = false;
        at_barrier += w->state == WAVE_AT_BARRIER;
    }
    if (at_barrier > 0 && at_barrier == group->waves - group->ended) {
        busy = true;
        for (uint32_t i = 0; i < group->waves; ++i)
            if (group->wave[i].state == WAVE_AT_BARRIER) {
                group->wave[i].state = WAVE_RUNS;
                checks_barrier(&group->wave[i]);
            }
    }
    return busy;
}

static bool all_ended(const struct dispatch *dispatch)
{
    for (uint32_t i = 0; i < dispatch->groups; ++i)
        if (dispatch->group[i].ended < dispatch->group[i].waves)
            return false;
    return true;
}

/* Lets groups begin while there are places. */
static void admit(struct dispatch *dispatch)
{
    uint32_t resident = 0;

    for (uint32_t i = 0; i < dispatch->started; ++i)
        resident += dispatch->group[i].ended < dispatch->group[i].waves;
    while (resident < dispatch->places && dispatch->started < dispatch->groups) {
        ++dispatch->started;
        ++resident;
    }
}

static bool run_round(struct dispatch *dispatch)
{
    struct device *device = dispatch->device;
    const uint32_t slice = device->order == ORDER_RANDOM ? RANDOM_SLICE : SLICE;
    bool busy = false;

    if (dispatch->started < dispatch->groups)
        admit(dispatch);
    const uint32_t count = dispatch->started;
    for (uint32_t i = 0; i < count && !dispatch->failed; ++i) {
        uint32_t index = device->order == ORDER_REVERSED ? count - 1 - i : i;
        if (device->order == ORDER_RANDOM)
            index = next_random(&device->random) % count;
        busy = run_group(&dispatch->group[index], slice) || busy;
    }
    return busy;
}

static void describe_deadlock(struct dispatch *dispatch)
{
    const uint32_t outside = dispatch->groups - dispatch->started;
    int used = snprintf(dispatch->message, sizeof dispatch->message, "%s: deadlock,",
                        dispatch->kernel->name);

    if (outside > 0)
        used += snprintf(dispatch->message + used, sizeof dispatch->message - (size_t)used,
                         " %u of %u work-groups wait for a place that none of the others gives up,",
                         outside, dispatch->groups);
    used += snprintf(dispatch->message + used, sizeof dispatch->message - (size_t)used,
                     " waves are at");
    for (uint32_t i = 0; i < dispatch->started && used < (int)sizeof dispatch->message - 40; ++i)
        for (uint32_t k = 0; k < dispatch->group[i].waves; ++k) {
            const struct wave *w = &dispatch->group[i].wave[k];
            if (w->state != WAVE_ENDED && used < (int)sizeof dispatch->message - 40)
                used += snprintf(dispatch->message + used, sizeof dispatch->message - (size_t)used,
                                 " %u.%u:%#x", i, k, dispatch->program->instruction[w->pc].address);
        }
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Whether a dispatch that has been idle for so many rounds, since then, is given up. */
static bool is_stuck(const struct dispatch *dispatch, uint32_t idle, uint64_t since)
{
    const struct device *device = dispatch->device;

    if (dispatch->started < dispatch->groups)
        return now_ms() - since > device->starved_ms;
    return device->idle_rounds != 0 && idle > device->idle_rounds;
}

static enum dispatch_result run(struct dispatch *dispatch)
{
    struct device *device = dispatch->device;
    const struct timespec pause = {0, 50000};
    uint64_t since = now_ms();
    uint32_t idle = 0;

    while (!all_ended(dispatch)) {
        const uint64_t before = dispatch->progress;
        const bool busy = run_round(dispatch);
        if (dispatch->failed)
            return DISPATCH_FAULT;
        if (busy || dispatch->progress != before) {
            idle = 0;
            since = now_ms();
            continue;
        }
        ++idle;
        if (is_stuck(dispatch, idle, since)) {
            describe_deadlock(dispatch);
            return DISPATCH_DEADLOCK;
        }
        if (idle % IDLE_PERIOD == IDLE_PERIOD - 1) {
            pthread_mutex_lock(&device->lock);
            memory_idle(device);
            pthread_mutex_unlock(&device->lock);
        }
        if (device->idle_rounds == 0 || dispatch->started < dispatch->groups)
            (void)nanosleep(&pause, NULL); /* all wait for a peer */
    }
    return DISPATCH_OK;
}

enum dispatch_result dispatch_run(struct dispatch *dispatch)
{
    struct device *device = dispatch->device;
    enum dispatch_result result = DISPATCH_FAULT;

    pthread_mutex_lock(&device->lock);
    memory_acquire(device);
    pthread_mutex_unlock(&device->lock);
    if (set_up(dispatch))
        result = run(dispatch);
    else
        (void)snprintf(dispatch->message, sizeof dispatch->message, "out of memory");
    if (device->adversarial)
        (void)nanosleep(&(struct timespec){0, END_PAUSE_NS}, NULL);
    pthread_mutex_lock(&device->lock);
    tear_down(dispatch);
    memory_release(device);
    pthread_mutex_unlock(&device->lock);
    return result;
}
