/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Names and sizes of dtypes, operations, variants, forms and reductions.
 */
#include "iris.h"

#include <string.h>

static const struct {
    const char *name;
    size_t nbytes;
} dtypes[IRIS_DTYPE_COUNT] = {
    [IRIS_DTYPE_F32] = {"float32", 4},
    [IRIS_DTYPE_F16] = {"float16", 2},
    [IRIS_DTYPE_BF16] = {"bfloat16", 2},
    [IRIS_DTYPE_F64] = {"float64", 8},
    [IRIS_DTYPE_I8] = {"int8", 1},
    [IRIS_DTYPE_I16] = {"int16", 2},
    [IRIS_DTYPE_I32] = {"int32", 4},
    [IRIS_DTYPE_I64] = {"int64", 8},
    [IRIS_DTYPE_U8] = {"uint8", 1},
    [IRIS_DTYPE_BOOL] = {"bool", 1},
    [IRIS_DTYPE_U16] = {"uint16", 2},
    [IRIS_DTYPE_U32] = {"uint32", 4},
    [IRIS_DTYPE_U64] = {"uint64", 8},
    [IRIS_DTYPE_C64] = {"complex64", 8},
    [IRIS_DTYPE_C128] = {"complex128", 16},
    [IRIS_DTYPE_F8_E4M3FN] = {"float8_e4m3fn", 1},
    [IRIS_DTYPE_F8_E5M2] = {"float8_e5m2", 1},
    [IRIS_DTYPE_F8_E4M3FNUZ] = {"float8_e4m3fnuz", 1},
    [IRIS_DTYPE_F8_E5M2FNUZ] = {"float8_e5m2fnuz", 1},
    [IRIS_DTYPE_F8_E8M0FNU] = {"float8_e8m0fnu", 1},
};

static const char *const operations[IRIS_OP_COUNT] = {
#define IRIS_OPERATION(name, value, text) [value] = text,
    IRIS_OPERATIONS(IRIS_OPERATION)
#undef IRIS_OPERATION
};

static const char *const variants[IRIS_VARIANT_COUNT] = {
    [IRIS_VARIANT_NONE] = "",
    [IRIS_VARIANT_ATOMIC] = "atomic",
    [IRIS_VARIANT_SPINLOCK] = "spinlock",
    [IRIS_VARIANT_ONE_SHOT] = "one_shot",
    [IRIS_VARIANT_TWO_SHOT] = "two_shot",
    [IRIS_VARIANT_RING] = "ring",
    [IRIS_VARIANT_LL] = "ll",
    [IRIS_VARIANT_LL_TWO_SHOT] = "ll_two_shot",
    [IRIS_VARIANT_ONE_SHOT_LEGACY] = "one_shot_legacy",
};

static const char *const forms[IRIS_FORM_COUNT] = {
    [IRIS_FORM_NONE] = "",
    [IRIS_FORM_TILES] = "tiles",
    [IRIS_FORM_DECODE] = "decode",
    [IRIS_FORM_PLAIN] = "plain",
};

static const char *const reduce_ops[IRIS_REDUCE_COUNT] = {
    [IRIS_REDUCE_SUM] = "sum",   [IRIS_REDUCE_MAX] = "max", [IRIS_REDUCE_MIN] = "min",
    [IRIS_REDUCE_PROD] = "prod", [IRIS_REDUCE_AVG] = "avg",
};

size_t iris_dtype_nbytes(enum iris_dtype dtype)
{
    return dtypes[dtype].nbytes;
}

size_t iris_dtype_alignment(enum iris_dtype dtype)
{
    return iris_dtype_is_complex(dtype) ? dtypes[dtype].nbytes / 2 : dtypes[dtype].nbytes;
}

const char *iris_dtype_name(enum iris_dtype dtype)
{
    return dtypes[dtype].name;
}

const char *iris_operation_name(enum iris_operation operation)
{
    return operations[operation];
}

const char *iris_variant_name(enum iris_variant variant)
{
    return variants[variant];
}

bool iris_dtype_is_complex(enum iris_dtype dtype)
{
    return dtype == IRIS_DTYPE_C64 || dtype == IRIS_DTYPE_C128;
}

bool iris_variant_from_name(const char *name, enum iris_variant *out)
{
    for (int v = 0; v < IRIS_VARIANT_COUNT; ++v) {
        if (strcmp(name, variants[v]) == 0) {
            *out = (enum iris_variant)v;
            return true;
        }
    }
    return false;
}

const char *iris_form_name(enum iris_form form)
{
    return forms[form];
}

bool iris_form_from_name(const char *name, enum iris_form *out)
{
    for (int f = 0; f < IRIS_FORM_COUNT; ++f) {
        if (strcmp(name, forms[f]) == 0) {
            *out = (enum iris_form)f;
            return true;
        }
    }
    return false;
}

const char *iris_reduce_op_name(enum iris_reduce_op op)
{
    return reduce_ops[op];
}

bool iris_operation_from_name(const char *name, enum iris_operation *out)
{
    for (int o = 0; o < IRIS_OP_COUNT; ++o) {
        if (strcmp(name, operations[o]) == 0) {
            *out = (enum iris_operation)o;
            return true;
        }
    }
    return false;
}
