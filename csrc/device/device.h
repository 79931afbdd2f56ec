/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the runtime asks of a device: memory that can be shared with other processes, a stream on
 * which kernels run in order, and a few facts. One table of functions per backend: cpu.c, and gpu.c
 * over the HIP or the CUDA driver.
 *
 * A kernel is launched as `work_groups` work-groups that are all resident at once: a work-group
 * may wait for another one of the same launch. The table's launch refuses more than it can keep
 * resident. Work on one stream runs in order; on the cpu a launch returns when it is complete, on
 * a GPU as soon as it is queued (`traits.is_gpu`).
 */
#ifndef IRIS_DEVICE_H
#define IRIS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/abi/abi.h"

struct iris_device; /* each backend's own; starts with `const struct iris_device_ops *ops` */

struct iris_device_options {
    int local_rank;
    int local_world_size;
    int num_threads;              /* cpu; 0: choose */
    const char *kernel_directory; /* GPUs: where the code objects are */
};

/* What names a range of device memory to another process. */
struct iris_memory_handle {
    int fd;                  /* cpu: owned by whoever holds the handle; GPUs: -1 */
    unsigned char bytes[64]; /* GPUs */
};

/* How a kernel sees what peers write while it runs. */
enum iris_memory_kind {
    IRIS_MEMORY_COHERENT,       /* host memory, and that of CUDA devices */
    IRIS_MEMORY_UNCACHED,       /* HIP: no cache of the device holds it */
    IRIS_MEMORY_FINE_GRAINED,   /* HIP: once it has fenced */
    IRIS_MEMORY_COARSE_GRAINED, /* HIP: not before it ends */
    IRIS_MEMORY_UNKNOWN         /* HIP does not tell */
};

/* A range of device memory. */
struct iris_memory {
    struct iris_device *device; /* kept alive by it */
    void *data;
    size_t nbytes;
    bool imported;
    enum iris_memory_kind kind; /* where it is not imported */
};

/* Constant facts about an open device. */
struct iris_device_traits {
    const char *arch;          /* "sm_90a", "gfx942", "cpu" */
    bool is_gpu;               /* launches return before they are complete */
    bool shares_by_fd;         /* memory handles are file descriptors */
    bool sm90;                 /* see kernels/abi/launch_limits.h */
    int cores;                 /* cpu: threads beyond them wait for their turn; 0: no such bound */
    int xcds;                  /* XCDs, which get work-groups in turn; 1: not divided */
    uint64_t ticks_per_second; /* of the clock that waits are measured with */
};

/* How a matrix is to be described to a tensor copy engine: it reads boxes of `box_inner` x
 * `box_outer` elements of two bytes, of one matrix or of one of a stack of equal ones. */
struct iris_tensor_map_request {
    void *data;
    enum iris_dtype dtype;
    uint64_t inner, outer; /* sizes; inner is contiguous */
    uint64_t pitch_nbytes;
    uint64_t depth, depth_nbytes; /* matrices, and from one to the next; depth 0: no stack */
    uint32_t box_inner, box_outer;
};

/* A matrix, or the first of a stack of them; strides in elements. */
struct iris_blas_matrix {
    uint64_t address;
    int64_t stride_row, stride_col, stride_batch;
};

/* D (M, N) = A (M, K) @ B (K, N) + bias for each of `batch` products, accumulated in fp32. */
struct iris_blas_product {
    enum iris_dtype dtype; /* F32, F16, BF16 */
    int64_t M, N, K;
    int32_t batch;
    struct iris_blas_matrix a, b, d;
    uint64_t bias;   /* N contiguous elements; 0: none */
    void *workspace; /* device memory that no other product uses at the time, or NULL */
    size_t workspace_nbytes;
    void *stream;
};

struct iris_launch {
    uint32_t kernel; /* enum iris_kernel of instances.h */
    uint32_t work_groups;
    uint32_t cluster; /* neighbouring work-groups that run side by side and reach each other's
                         shared memory; 0 or 1: none; more only where there is max_clusters */
    const void *args; /* copied at launch */
    size_t args_nbytes;
    size_t scratch_nbytes; /* private memory of each work-group; cpu only */
    bool traced;           /* the kernel's traced twin, see kernels/protocol/trace.h */
    void *stream;
};

/* What there is of a backend's devices, opened or not; text for people. */
enum { IRIS_MAX_DEVICES = 16 };
struct iris_device_facts {
    char name[96], arch[32], pci[32];
    int compute_units;
    bool reaches[IRIS_MAX_DEVICES]; /* the memory of that device */
};
struct iris_device_report {
    char driver[48];
    int count;
    struct iris_device_facts devices[IRIS_MAX_DEVICES];
};

struct iris_device_ops {
    const char *name;
    /* Whether there is a device to open. Cheap; describes nothing. */
    bool (*is_present)(void);
    /* IRIS_EDRIVER: there is no driver. NULL: nothing to tell. */
    enum iris_status (*report)(struct iris_device_report *out);
    /* Opens the rank's device. IRIS_EDRIVER: there is none. */
    enum iris_status (*open)(const struct iris_device_options *options, struct iris_device **out);
    /* Ends what runs on the host for the device: nothing is launched any more. Its facts can still
     * be asked for. NULL: nothing runs. */
    void (*stop)(struct iris_device *device);
    void (*close)(struct iris_device *device); /* NULL is fine */

    int (*device_id)(const struct iris_device *device);
    int (*compute_units)(const struct iris_device *device);
    int (*max_work_groups)(const struct iris_device *device); /* resident at once */

    /* Zeroed, shareable memory, and its handle. */
    enum iris_status (*memory_create)(struct iris_device *device, size_t nbytes,
                                      struct iris_memory *out, struct iris_memory_handle *handle);
    /* Maps a peer's memory; a descriptor in the handle is closed, also on failure. */
    enum iris_status (*memory_import)(struct iris_device *device,
                                      const struct iris_memory_handle *handle, size_t nbytes,
                                      struct iris_memory *out);
    void (*memory_release)(struct iris_memory *memory); /* after close of the device too */
    /* Makes host memory accessible to kernels at *address. */
    enum iris_status (*host_register)(struct iris_device *device, void *data, size_t nbytes,
                                      uint64_t *address);
    void (*host_unregister)(struct iris_device *device, void *data);
    /* A name for the device that is unique on the node, and whether this device can reach another
     * one's memory. Names of devices that this process cannot see are taken to be reachable. */
    void (*identify)(struct iris_device *device, char name[32]);
    bool (*can_reach)(struct iris_device *device, const char *name);

    enum iris_status (*memory_set)(struct iris_device *device, void *stream, void *data, int byte,
                                   size_t nbytes);
    /* Between host memory and device memory, complete on return; not ordered with streams. */
    enum iris_status (*memory_read)(struct iris_device *device, void *host, const void *source,
                                    size_t nbytes);
    enum iris_status (*memory_write)(struct iris_device *device, void *target, const void *host,
                                     size_t nbytes);

    enum iris_status (*launch)(struct iris_device *device, const struct iris_launch *launch);
    /* How many clusters of `size` work-groups of this kernel can be resident at once, on an
     * otherwise idle device. NULL where there are no clusters. */
    enum iris_status (*max_clusters)(struct iris_device *device, uint32_t kernel, uint32_t size,
                                     int *out);
    /* Waits for all that was launched, on whatever stream. */
    enum iris_status (*synchronize)(struct iris_device *device);
    enum iris_status (*stream_synchronize)(struct iris_device *device, void *stream);
    /* The rest is optional: NULL where launches are synchronous. */
    bool (*stream_is_capturing)(struct iris_device *device, void *stream);
    /* What `stream` is being captured into: *id, unique in the process, or 0 if it is not captured.
     * IRIS_EDRIVER: it cannot be told. */
    enum iris_status (*stream_capture)(struct iris_device *device, void *stream, uint64_t *id);
    /* Has `ended(arg)` called, once and from any thread, when neither the graph that `stream` is
     * being captured into nor what is made of it exists or runs any more. `ended` must not use the
     * device. true: it may be called, and `arg` stays; false: it will never be. */
    bool (*stream_capture_watch)(struct iris_device *device, void *stream, void (*ended)(void *arg),
                                 void *arg);
    /* Marks the end of what `stream` holds; *event is created if NULL. */
    enum iris_status (*event_record)(struct iris_device *device, void *stream, void **event);
    /* What `stream` is given from here on runs after the mark. */
    enum iris_status (*event_wait)(struct iris_device *device, void *stream, void *event);
    void (*event_destroy)(struct iris_device *device, void *event);
    /* A stream that waits for no other, and a copy on a stream from memory to memory, of this
     * device or of a peer's that is mapped, by a copy engine where the driver has one for it. */
    enum iris_status (*stream_create)(struct iris_device *device, void **stream);
    void (*stream_destroy)(struct iris_device *device, void *stream);
    enum iris_status (*copy)(struct iris_device *device, void *stream, void *target,
                             const void *source, size_t nbytes);
    /* NULL without a tensor copy engine. false: the engine cannot read this matrix. */
    bool (*tensor_map)(struct iris_device *device, const struct iris_tensor_map_request *request,
                       struct iris_tensor_map *out);
    /* Whether a library of the device's vendor that multiplies matrices is in the process, and of
     * use; what it would like for a workspace; and a product by it. NULL: never. *done false: it
     * cannot take these operands, and has done nothing. Can be captured. */
    bool (*has_blas)(struct iris_device *device);
    enum iris_status (*blas_workspace)(struct iris_device *device, struct iris_memory *out);
    enum iris_status (*multiply)(struct iris_device *device,
                                 const struct iris_blas_product *product, bool *done);
};

/* Finds a backend by name, or the best one present for name == NULL. IRIS_EINVAL: no such name. */
enum iris_status iris_device_find(const char *name, const struct iris_device_ops **out);

extern const struct iris_device_ops iris_device_cpu;
extern const struct iris_device_ops iris_device_hip;
extern const struct iris_device_ops iris_device_cuda;

/* The start of every struct iris_device. */
struct iris_device_base {
    const struct iris_device_ops *ops;
    struct iris_device_traits traits;
};

static inline const struct iris_device_traits *iris_device_traits(const struct iris_device *device)
{
    return &((const struct iris_device_base *)device)->traits;
}

#endif
