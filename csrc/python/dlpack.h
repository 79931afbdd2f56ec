/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The binary layouts of DLPack 1.x that the extension speaks: how array libraries hand tensors to
 * each other without copying. Only what is used here, declared in our own words from the
 * specification at https://dmlc.github.io/dlpack; offsets that the specification fixes are
 * asserted.
 *
 * Three ways in: a capsule "dltensor_versioned" (current) or "dltensor" (before DLPack 1.0) from
 * an object's __dlpack__ method, and the table behind a type's __dlpack_c_exchange_api__, which
 * describes a tensor without allocating anything. Whoever takes a capsule's contents renames it
 * "used_..." and calls the deleter when done.
 */
#ifndef IRIS_DLPACK_H
#define IRIS_DLPACK_H

#include <stddef.h>
#include <stdint.h>

#define IRIS_DLPACK_CAPSULE "dltensor"
#define IRIS_DLPACK_CAPSULE_VERSIONED "dltensor_versioned"
#define IRIS_DLPACK_EXCHANGE_CAPSULE "dlpack_exchange_api"

enum { IRIS_DLPACK_MAJOR = 1, IRIS_DLPACK_MINOR = 0 };

enum iris_dlpack_device_type {
    IRIS_DLPACK_CPU = 1,
    IRIS_DLPACK_CUDA = 2,
    IRIS_DLPACK_CUDA_HOST = 3,
    IRIS_DLPACK_ROCM = 10,
    IRIS_DLPACK_ROCM_HOST = 11,
    IRIS_DLPACK_CUDA_MANAGED = 13,
};

enum iris_dlpack_type_code {
    IRIS_DLPACK_INT = 0,
    IRIS_DLPACK_UINT = 1,
    IRIS_DLPACK_FLOAT = 2,
    IRIS_DLPACK_BFLOAT = 4,
    IRIS_DLPACK_COMPLEX = 5,
    IRIS_DLPACK_BOOL = 6,
    IRIS_DLPACK_FLOAT8_E4M3FN = 10,
    IRIS_DLPACK_FLOAT8_E4M3FNUZ = 11,
    IRIS_DLPACK_FLOAT8_E5M2 = 12,
    IRIS_DLPACK_FLOAT8_E5M2FNUZ = 13,
    IRIS_DLPACK_FLOAT8_E8M0FNU = 14,
};

/* Bits of iris_dlpack_versioned.flags. */
enum { IRIS_DLPACK_READ_ONLY = 1, IRIS_DLPACK_IS_COPIED = 2 };

struct iris_dlpack_version {
    uint32_t major, minor;
};

struct iris_dlpack_tensor {
    void *data;
    int32_t device_type;
    int32_t device_id;
    int32_t ndim;
    uint8_t type_code;
    uint8_t type_bits;
    uint16_t type_lanes;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: row-major */
    uint64_t byte_offset;
};

struct iris_dlpack_managed {
    struct iris_dlpack_tensor tensor;
    void *owner;
    void (*deleter)(struct iris_dlpack_managed *self);
};

struct iris_dlpack_versioned {
    struct iris_dlpack_version version;
    void *owner;
    void (*deleter)(struct iris_dlpack_versioned *self);
    uint64_t flags;
    struct iris_dlpack_tensor tensor;
};

/* What a tensor type offers to C code. Functions return 0, or -1 with a Python exception set. The
 * members that are not called here keep their place as untyped pointers. */
struct iris_dlpack_exchange {
    struct iris_dlpack_version version;
    struct iris_dlpack_exchange *previous; /* the table of an older major version, or NULL */
    void (*managed_allocate)(void);
    void (*managed_from_object)(void);
    void (*managed_to_object)(void);
    /* Fills *out without taking ownership; shape and strides belong to the object. May be NULL. */
    int (*tensor_from_object)(void *object, struct iris_dlpack_tensor *out);
    int (*current_stream)(int32_t device_type, int32_t device_id, void **out);
};

_Static_assert(sizeof(struct iris_dlpack_tensor) == 48, "fixed by the specification");
_Static_assert(offsetof(struct iris_dlpack_tensor, shape) == 24, "fixed by the specification");
_Static_assert(offsetof(struct iris_dlpack_versioned, flags) == 24, "fixed by the specification");
_Static_assert(offsetof(struct iris_dlpack_exchange, tensor_from_object) == 40,
               "fixed by the specification");

#endif
