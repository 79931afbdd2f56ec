/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A list of the mappings of this process, keyed by the file's device and inode. It holds a handful
 * of entries, so it is searched from the front.
 */
#include "shared_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"

struct mapping {
    struct mapping *next;
    dev_t device;
    ino_t inode;
    void *data;
    size_t nbytes;
    int references;
};

static struct mapping *mappings; /* under the process's lock */

/* Called with the lock held. */
static enum iris_status map_new(const struct stat *file, int fd, size_t nbytes,
                                struct mapping **out)
{
    struct mapping *entry;

    IRIS_TRY(iris_alloc_zeroed(sizeof *entry, (void **)&entry));
    entry->data = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (entry->data == MAP_FAILED) {
        free(entry);
        return IRIS_FAIL(IRIS_EDRIVER, "mmap of %zu bytes of shared memory: %s", nbytes,
                         strerror(errno));
    }
    entry->device = file->st_dev;
    entry->inode = file->st_ino;
    entry->nbytes = nbytes;
    entry->next = mappings;
    mappings = entry;
    *out = entry;
    return IRIS_OK;
}

enum iris_status iris_shared_memory_map(int fd, size_t nbytes, void **data)
{
    enum iris_status status = IRIS_OK;
    struct mapping *entry;
    struct stat file;

    if (fstat(fd, &file) != 0)
        return IRIS_FAIL(IRIS_EDRIVER, "fstat of a shared memory descriptor: %s", strerror(errno));
    if ((size_t)file.st_size < nbytes)
        return IRIS_FAIL(IRIS_EDRIVER, "shared memory: expected %zu bytes, the file has %lld",
                         nbytes, (long long)file.st_size);
    iris_process_lock();
    for (entry = mappings; entry != NULL; entry = entry->next)
        if (entry->device == file.st_dev && entry->inode == file.st_ino)
            break;
    if (entry == NULL)
        status = map_new(&file, fd, nbytes, &entry);
    if (entry != NULL) {
        ++entry->references;
        *data = entry->data;
    }
    iris_process_unlock();
    return status;
}

enum iris_status iris_shared_memory_create(const char *name, size_t nbytes, int *fd, void **data)
{
    enum iris_status status;
    const int created = memfd_create(name, MFD_CLOEXEC);

    if (created < 0)
        return IRIS_FAIL(IRIS_EDRIVER, "memfd_create(\"%s\"): %s", name, strerror(errno));
    if (ftruncate(created, (off_t)nbytes) != 0) {
        status = IRIS_FAIL(IRIS_EDRIVER, "ftruncate of shared memory \"%s\" to %zu bytes: %s", name,
                           nbytes, strerror(errno));
        goto fail;
    }
    IRIS_TRY_GOTO(status, iris_shared_memory_map(created, nbytes, data), fail);
    *fd = created;
    return IRIS_OK;
fail:
    close(created);
    return status;
}

void iris_shared_memory_unmap(void *data)
{
    struct mapping **link;

    if (data == NULL)
        return;
    iris_process_lock();
    for (link = &mappings; *link != NULL; link = &(*link)->next) {
        struct mapping *entry = *link;
        if (entry->data != data)
            continue;
        if (--entry->references == 0) {
            *link = entry->next;
            munmap(entry->data, entry->nbytes);
            free(entry);
        }
        break;
    }
    iris_process_unlock();
}
