/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Device memory is an anonymous file mapped into the process; another process opens it through
 * /proc/<pid>/fd, which is what an inter-process handle says.
 *
 * EMULATOR_OLD_RUNTIME: 1: uncached allocations are refused, as by runtimes before them; 2: they
 * get fine-grained memory in silence; 3: and no runtime tells.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hip_double.h"

enum { MAX_BLOCKS = 1024, FLAG_DEFAULT = 0, FLAG_FINE_GRAINED = 1, FLAG_UNCACHED = 3 };
static const char handle_magic[8] = "IRISIPC";

/* An allocation (fd >= 0) or a peer's (fd < 0). */
struct block {
    void *data;
    size_t nbytes;
    int fd;
    unsigned int flags; /* as asked for */
};

struct handle {
    char bytes[64];
};

struct handle_content {
    char magic[8];
    int64_t pid;
    int32_t fd;
    uint64_t nbytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block blocks[MAX_BLOCKS];

static int age_of_runtime(void)
{
    const char *age = getenv("EMULATOR_OLD_RUNTIME");

    return age != NULL ? atoi(age) : 0;
}

static struct block *find_block(const void *data)
{
    for (int i = 0; i < MAX_BLOCKS; ++i)
        if (blocks[i].data == data)
            return &blocks[i];
    return NULL;
}

/* Maps the file, on success owns the descriptor. */
static hip_result add_block(void **data, size_t nbytes, int fd, bool own, unsigned int flags)
{
    struct block *block;
    hip_result result = HIP_OUT_OF_MEMORY;
    void *mapped = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (mapped == MAP_FAILED)
        return result;
    pthread_mutex_lock(&lock);
    block = find_block(NULL);
    if (block != NULL && region_add(mapped, nbytes)) {
        *block = (struct block){mapped, nbytes, own ? fd : -1, flags};
        *data = mapped;
        result = HIP_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    if (result != HIP_SUCCESS)
        (void)munmap(mapped, nbytes);
    return result;
}

static hip_result remove_block(void *data, bool own)
{
    struct block *block;
    hip_result result = HIP_INVALID_VALUE;

    if (data == NULL)
        return HIP_SUCCESS;
    streams_drain();
    pthread_mutex_lock(&lock);
    block = find_block(data);
    if (block != NULL && (block->fd >= 0) == own && region_remove(data)) {
        (void)munmap(data, block->nbytes);
        if (own)
            (void)close(block->fd);
        *block = (struct block){NULL, 0, -1, 0};
        result = HIP_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

HIP_API hip_result hipExtMallocWithFlags(void **data, size_t nbytes, unsigned int flags)
{
    const int age = age_of_runtime();
    const size_t rounded = (nbytes + 4095) / 4096 * 4096;
    hip_result result;
    int fd;

    *data = NULL;
    if (is_any_stream_capturing())
        return HIP_CAPTURE_UNSUPPORTED;
    if ((flags != FLAG_DEFAULT && flags != FLAG_FINE_GRAINED && flags != FLAG_UNCACHED) ||
        (flags == FLAG_UNCACHED && age == 1))
        return HIP_INVALID_VALUE;
    if (flags == FLAG_UNCACHED && age >= 2)
        flags = FLAG_FINE_GRAINED;
    if (nbytes == 0)
        return HIP_SUCCESS;
    fd = memfd_create("emulated-gpu", MFD_CLOEXEC);
    if (fd < 0)
        return HIP_OUT_OF_MEMORY;
    result = ftruncate(fd, (off_t)rounded) == 0 ? add_block(data, rounded, fd, true, flags)
                                                : HIP_OUT_OF_MEMORY;
    if (result != HIP_SUCCESS) {
        (void)close(fd);
        return result;
    }
    if (rounded <= 1 << 20)
        memset(*data, 0xa5, rounded); /* what was there before */
    return HIP_SUCCESS;
}

/* Of the HSA runtime below HIP: the start of its answer, in which the flags of the pool stand. */
struct pointer_info {
    uint32_t nbytes;
    int32_t type;
    uint64_t addresses[2], size, user_data, owner;
    uint32_t flags;
};

HIP_API int hsa_amd_pointer_info(const void *data, struct pointer_info *info,
                                 void *(*allocate)(size_t), uint32_t *agent_count, void **agents)
{
    enum { FINE_GRAINED = 2, COARSE_GRAINED = 4, EXTENDED_SCOPE_FINE_GRAINED = 8 };
    const struct block *block;

    (void)allocate;
    (void)agent_count;
    (void)agents;
    if (info->nbytes < sizeof *info || age_of_runtime() == 3)
        return 1;
    info->nbytes = sizeof *info;
    info->flags = 0;
    pthread_mutex_lock(&lock);
    block = find_block(data);
    if (block != NULL)
        info->flags = block->flags == FLAG_UNCACHED       ? EXTENDED_SCOPE_FINE_GRAINED
                      : block->flags == FLAG_FINE_GRAINED ? FINE_GRAINED
                                                          : COARSE_GRAINED;
    pthread_mutex_unlock(&lock);
    return 0;
}

HIP_API hip_result hipMalloc(void **data, size_t nbytes)
{
    return hipExtMallocWithFlags(data, nbytes, FLAG_DEFAULT);
}

HIP_API hip_result hipFree(void *data)
{
    return is_any_stream_capturing() ? HIP_CAPTURE_UNSUPPORTED : remove_block(data, true);
}

HIP_API hip_result hipIpcGetMemHandle(struct handle *handle, void *data)
{
    struct handle_content content = {.pid = getpid()};
    const struct block *block;

    memset(handle, 0, sizeof *handle);
    pthread_mutex_lock(&lock);
    block = find_block(data);
    if (block != NULL) {
        memcpy(content.magic, handle_magic, sizeof handle_magic);
        content.fd = block->fd;
        content.nbytes = block->nbytes;
    }
    pthread_mutex_unlock(&lock);
    if (block == NULL || content.fd < 0)
        return HIP_INVALID_VALUE;
    memcpy(handle->bytes, &content, sizeof content);
    return HIP_SUCCESS;
}

HIP_API hip_result hipIpcOpenMemHandle(void **data, struct handle handle, unsigned int flags)
{
    struct handle_content content;
    hip_result result;
    char path[64];
    int fd;

    memcpy(&content, handle.bytes, sizeof content);
    if (flags != 1 || memcmp(content.magic, handle_magic, sizeof handle_magic) != 0)
        return HIP_INVALID_VALUE;
    if (content.pid == getpid())
        return HIP_INVALID_CONTEXT;
    (void)snprintf(path, sizeof path, "/proc/%lld/fd/%d", (long long)content.pid, content.fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return HIP_INVALID_HANDLE;
    result = add_block(data, content.nbytes, fd, false, FLAG_DEFAULT);
    (void)close(fd);
    return result;
}

HIP_API hip_result hipIpcCloseMemHandle(void *data)
{
    return remove_block(data, false);
}

/* ---- host memory ---- */

HIP_API hip_result hipHostRegister(void *data, size_t nbytes, unsigned int flags)
{
    (void)flags;
    if (region_has((uint64_t)(uintptr_t)data, nbytes))
        return HIP_HOST_MEMORY_REGISTERED;
    return region_add(data, nbytes) ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}

HIP_API hip_result hipHostUnregister(void *data)
{
    streams_drain();
    return region_remove(data) ? HIP_SUCCESS : HIP_INVALID_VALUE;
}

HIP_API hip_result hipHostGetDevicePointer(void **pointer, void *data, unsigned int flags)
{
    *pointer = data;
    return flags == 0 && region_has((uint64_t)(uintptr_t)data, 1) ? HIP_SUCCESS : HIP_INVALID_VALUE;
}

/* ---- copies ---- */

struct set_task {
    struct task task;
    void *data;
    unsigned char value;
    size_t count;
};

static void run_set(struct task *task)
{
    struct set_task *set = (struct set_task *)task;
    memset(set->data, set->value, set->count);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

HIP_API hip_result hipMemsetD8Async(void *data, unsigned char value, size_t count, void *stream)
{
    const struct set_task set = {{NULL, run_set, sizeof set}, data, value, count};

    if (!region_has((uint64_t)(uintptr_t)data, count))
        return HIP_INVALID_VALUE;
    return stream_add(stream, &set.task);
}

/* Ordered after everything queued, like a copy on the default stream. */
static hip_result copy(void *to, const void *from, const void *device, size_t nbytes)
{
    if (is_any_stream_capturing())
        return HIP_CAPTURE_UNSUPPORTED;
    streams_drain();
    if (sticky_result() != HIP_SUCCESS)
        return sticky_result();
    if (!region_has((uint64_t)(uintptr_t)device, nbytes))
        return HIP_INVALID_VALUE;
    memcpy(to, from, nbytes);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return HIP_SUCCESS;
}

HIP_API hip_result hipMemcpyHtoD(void *target, const void *source, size_t nbytes)
{
    return copy(target, source, target, nbytes);
}

HIP_API hip_result hipMemcpyDtoH(void *target, void *source, size_t nbytes)
{
    return copy(target, source, source, nbytes);
}
