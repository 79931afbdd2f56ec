/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The GPU driver as this project sees it: HIP's functions, bound at run time to libamdhip64 under
 * their own names or to libcuda under the CUDA driver's, whose signatures agree. One table, so that
 * the code above it is one for both. Pointers to device memory are void * in HIP and integers of
 * the same size in CUDA: one calling convention.
 */
#ifndef IRIS_GPU_DRIVER_H
#define IRIS_GPU_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/abi/abi.h"

enum gpu_platform { GPU_HIP, GPU_CUDA };

typedef int gpu_result; /* 0: success */

/* An inter-process handle, passed by value. */
struct gpu_ipc_handle {
    char bytes[64];
};

/* CUlaunchAttribute and CUlaunchConfig. */
struct gpu_launch_attribute {
    int id;
    char pad[4];
    union {
        int integer;
        unsigned int dimensions[3];
        char bytes[64];
    } value;
};

struct gpu_launch_config {
    unsigned int grid[3], block[3], shared_nbytes;
    void *stream;
    const struct gpu_launch_attribute *attributes;
    unsigned int attribute_count;
};

/* X(member, HIP's name, CUDA's name, parameters). A name "" is a function that the platform has no
 * need of; a name that begins with '?' may be missing in the library, and the member is then NULL.
 */
#define GPU_DRIVER_FUNCTIONS(X)                                                                    \
    X(init, "hipInit", "cuInit", (unsigned int flags))                                             \
    X(driver_version, "hipDriverGetVersion", "cuDriverGetVersion", (int *version))                 \
    X(last_error, "?hipGetLastError", "", (void))                                                  \
    X(device_count, "hipGetDeviceCount", "cuDeviceGetCount", (int *count))                         \
    X(device_get, "hipDeviceGet", "cuDeviceGet", (int *device, int ordinal))                       \
    X(device_name, "hipDeviceGetName", "cuDeviceGetName", (char *name, int nbytes, int device))    \
    X(device_attribute, "hipDeviceGetAttribute", "cuDeviceGetAttribute",                           \
      (int *value, int attribute, int device))                                                     \
    X(device_pci_id, "hipDeviceGetPCIBusId", "cuDeviceGetPCIBusId",                                \
      (char *id, int nbytes, int device))                                                          \
    X(device_by_pci_id, "hipDeviceGetByPCIBusId", "cuDeviceGetByPCIBusId",                         \
      (int *device, const char *id))                                                               \
    X(can_access_peer, "hipDeviceCanAccessPeer", "cuDeviceCanAccessPeer",                          \
      (int *can, int device, int peer))                                                            \
    X(properties, "?hipGetDevicePropertiesR0600", "", (void *properties, int device))              \
    X(old_properties, "?hipGetDeviceProperties", "", (void *properties, int device))               \
    X(set_device, "hipSetDevice", "", (int device))                                                \
    X(get_device, "hipGetDevice", "", (int *device))                                               \
    X(primary_retain, "", "cuDevicePrimaryCtxRetain", (void **context, int device))                \
    X(primary_release, "", "cuDevicePrimaryCtxRelease_v2", (int device))                           \
    X(context_push, "", "cuCtxPushCurrent_v2", (void *context))                                    \
    X(context_pop, "", "cuCtxPopCurrent_v2", (void **context))                                     \
    X(context_get, "", "cuCtxGetCurrent", (void **context))                                        \
    X(synchronize, "hipDeviceSynchronize", "cuCtxSynchronize", (void))                             \
    X(memory_allocate, "", "cuMemAlloc_v2", (void **data, size_t nbytes))                          \
    X(memory_allocate_flags, "hipExtMallocWithFlags", "",                                          \
      (void **data, size_t nbytes, unsigned int flags))                                            \
    X(memory_free, "hipFree", "cuMemFree_v2", (void *data))                                        \
    X(memory_set, "hipMemsetD8Async", "cuMemsetD8Async",                                           \
      (void *data, unsigned char value, size_t count, void *stream))                               \
    X(copy_to_device, "hipMemcpyHtoD", "cuMemcpyHtoD_v2",                                          \
      (void *target, const void *source, size_t nbytes))                                           \
    X(copy_to_host, "hipMemcpyDtoH", "cuMemcpyDtoH_v2",                                            \
      (void *target, void *source, size_t nbytes))                                                 \
    X(ipc_get, "hipIpcGetMemHandle", "cuIpcGetMemHandle",                                          \
      (struct gpu_ipc_handle * handle, void *data))                                                \
    X(ipc_open, "hipIpcOpenMemHandle", "cuIpcOpenMemHandle_v2",                                    \
      (void **data, struct gpu_ipc_handle handle, unsigned int flags))                             \
    X(ipc_close, "hipIpcCloseMemHandle", "cuIpcCloseMemHandle", (void *data))                      \
    X(host_register, "hipHostRegister", "cuMemHostRegister_v2",                                    \
      (void *data, size_t nbytes, unsigned int flags))                                             \
    X(host_unregister, "hipHostUnregister", "cuMemHostUnregister", (void *data))                   \
    X(host_device_pointer, "hipHostGetDevicePointer", "cuMemHostGetDevicePointer_v2",              \
      (void **pointer, void *data, unsigned int flags))                                            \
    X(pointer_info, "?hsa_amd_pointer_info", "",                                                   \
      (const void *data, void *info, void *(*allocate)(size_t nbytes), uint32_t *agent_count,      \
       void **agents))                                                                             \
    X(module_load, "hipModuleLoadData", "cuModuleLoadData", (void **module, const void *image))    \
    X(module_unload, "hipModuleUnload", "cuModuleUnload", (void *module))                          \
    X(module_function, "hipModuleGetFunction", "cuModuleGetFunction",                              \
      (void **function, void *module, const char *name))                                           \
    X(function_attribute, "", "cuFuncSetAttribute", (void *function, int attribute, int value))    \
    X(launch, "hipModuleLaunchKernel", "cuLaunchKernel",                                           \
      (void *function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,         \
       unsigned int by, unsigned int bz, unsigned int shared, void *stream, void **parameters,     \
       void **extra))                                                                              \
    X(launch_with, "", "cuLaunchKernelEx",                                                         \
      (const struct gpu_launch_config *config, void *function, void **parameters, void **extra))   \
    X(max_active_clusters, "", "cuOccupancyMaxActiveClusters",                                     \
      (int *clusters, void *function, const struct gpu_launch_config *config))                     \
    X(stream_synchronize, "hipStreamSynchronize", "cuStreamSynchronize", (void *stream))           \
    X(stream_query, "hipStreamQuery", "cuStreamQuery", (void *stream))                             \
    X(stream_capturing, "hipStreamIsCapturing", "cuStreamIsCapturing",                             \
      (void *stream, int *status))                                                                 \
    X(stream_capture_info, "?hipStreamGetCaptureInfo_v2", "?cuStreamGetCaptureInfo_v2",            \
      (void *stream, int *status, unsigned long long *id, void **graph,                            \
       const void *const **dependencies, size_t *dependency_count))                                \
    X(user_object_create, "", "?cuUserObjectCreate",                                               \
      (void **object, void *arg, void (*destroy)(void *arg), unsigned int references,              \
       unsigned int flags))                                                                        \
    X(graph_retain, "", "?cuGraphRetainUserObject",                                                \
      (void *graph, void *object, unsigned int references, unsigned int flags))                    \
    X(stream_create, "?hipStreamCreateWithFlags", "cuStreamCreate",                                \
      (void **stream, unsigned int flags))                                                         \
    X(stream_destroy, "?hipStreamDestroy", "cuStreamDestroy_v2", (void *stream))                   \
    X(copy_on_device, "?hipMemcpyDtoDAsync", "cuMemcpyDtoDAsync_v2",                               \
      (void *target, void *source, size_t nbytes, void *stream))                                   \
    X(stream_wait_event, "hipStreamWaitEvent", "cuStreamWaitEvent",                                \
      (void *stream, void *event, unsigned int flags))                                             \
    X(event_create, "hipEventCreateWithFlags", "cuEventCreate",                                    \
      (void **event, unsigned int flags))                                                          \
    X(event_record, "hipEventRecord", "cuEventRecord", (void *event, void *stream))                \
    X(event_destroy, "hipEventDestroy", "cuEventDestroy_v2", (void *event))                        \
    X(tensor_map_encode, "", "cuTensorMapEncodeTiled",                                             \
      (struct iris_tensor_map * map, int type, uint32_t rank, void *data, const uint64_t *sizes,   \
       const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,        \
       int swizzle, int promotion, int fill))

struct gpu_driver {
    enum gpu_platform platform;
    void *library;
    /* Not in the table: HIP returns the name, CUDA writes it. */
    const char *(*hip_error_name)(gpu_result result);
    gpu_result (*cuda_error_name)(gpu_result result, const char **name);
#define GPU_MEMBER(member, hip, cuda, parameters) gpu_result(*member) parameters;
    GPU_DRIVER_FUNCTIONS(GPU_MEMBER)
#undef GPU_MEMBER
};

/* Loads the platform's library and binds the table, once per process. IRIS_EDRIVER naming the
 * library or the symbol that is missing. */
enum iris_status gpu_driver_load(enum gpu_platform platform, const struct gpu_driver **out);

/* Initialises the driver, as often as it is called, and counts its devices. IRIS_EDRIVER with a
 * message of its own in a process that was forked from one that uses them: a child cannot. */
enum iris_status gpu_driver_init(const struct gpu_driver *driver, int *count);
/* Whether that is so, as far as is known; what the driver says of it is known after an init. */
bool gpu_driver_is_inherited(const struct gpu_driver *driver);

/* The name of the driver function behind a member of the table, for messages. */
#define GPU_NAME(driver, member) gpu_driver_name(driver, offsetof(struct gpu_driver, member))
const char *gpu_driver_name(const struct gpu_driver *driver, size_t offset);

/* Takes back what a call that failed leaves behind: HIP keeps a thread's last error until it is
 * asked for it, and torch, which asks after each of its launches, would take ours for its own. */
void gpu_driver_forget_error(const struct gpu_driver *driver);

/* IRIS_EDRIVER with the function's name and the driver's name of the error. */
enum iris_status gpu_driver_fail(const struct gpu_driver *driver, const char *function,
                                 gpu_result result);

/* Calls a member of the table; IRIS_EDRIVER if it does not succeed. */
#define GPU_CALL(driver, member, ...)                                                              \
    gpu_driver_check(driver, offsetof(struct gpu_driver, member), (driver)->member(__VA_ARGS__))
static inline enum iris_status gpu_driver_check(const struct gpu_driver *driver, size_t offset,
                                                gpu_result result)
{
    return result == 0 ? IRIS_OK : gpu_driver_fail(driver, gpu_driver_name(driver, offset), result);
}

/* Calls a member of the table, which may fail; whether it has succeeded. */
#define GPU_SUCCEEDS(driver, member, ...)                                                          \
    gpu_driver_succeeded(driver, (driver)->member(__VA_ARGS__))
static inline bool gpu_driver_succeeded(const struct gpu_driver *driver, gpu_result result)
{
    if (result != 0)
        gpu_driver_forget_error(driver);
    return result == 0;
}

#endif
