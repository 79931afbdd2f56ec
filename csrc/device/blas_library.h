/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The libraries of the GPU vendors that multiply matrices, cuBLASLt and hipBLASLt, as this project
 * sees them: functions of the same shape under two names, and the numbers that stand for the same
 * things, which are each library's own. Neither is needed, nor loaded: only one that is in the
 * process already is used, which is then the one that the rest of the process multiplies with.
 */
#ifndef IRIS_BLAS_LIBRARY_H
#define IRIS_BLAS_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu_driver.h"

typedef int blas_result; /* 0: success */

/* X(member, hipBLASLt's name, cuBLASLt's name, parameters). Matrices are column-major. */
#define BLAS_FUNCTIONS(X)                                                                          \
    X(create, "hipblasLtCreate", "cublasLtCreate", (void **handle))                                \
    X(destroy, "hipblasLtDestroy", "cublasLtDestroy", (void *handle))                              \
    X(product_create, "hipblasLtMatmulDescCreate", "cublasLtMatmulDescCreate",                     \
      (void **product, int compute_type, int scale_type))                                          \
    X(product_destroy, "hipblasLtMatmulDescDestroy", "cublasLtMatmulDescDestroy", (void *product)) \
    X(product_set, "hipblasLtMatmulDescSetAttribute", "cublasLtMatmulDescSetAttribute",            \
      (void *product, int attribute, const void *value, size_t nbytes))                            \
    X(matrix_create, "hipblasLtMatrixLayoutCreate", "cublasLtMatrixLayoutCreate",                  \
      (void **matrix, int type, uint64_t rows, uint64_t cols, int64_t leading))                    \
    X(matrix_destroy, "hipblasLtMatrixLayoutDestroy", "cublasLtMatrixLayoutDestroy",               \
      (void *matrix))                                                                              \
    X(matrix_set, "hipblasLtMatrixLayoutSetAttribute", "cublasLtMatrixLayoutSetAttribute",         \
      (void *matrix, int attribute, const void *value, size_t nbytes))                             \
    X(preference_create, "hipblasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceCreate",      \
      (void **preference))                                                                         \
    X(preference_destroy, "hipblasLtMatmulPreferenceDestroy", "cublasLtMatmulPreferenceDestroy",   \
      (void *preference))                                                                          \
    X(preference_set, "hipblasLtMatmulPreferenceSetAttribute",                                     \
      "cublasLtMatmulPreferenceSetAttribute",                                                      \
      (void *preference, int attribute, const void *value, size_t nbytes))                         \
    X(choose, "hipblasLtMatmulAlgoGetHeuristic", "cublasLtMatmulAlgoGetHeuristic",                 \
      (void *handle, void *product, void *a, void *b, void *c, void *d, void *preference,          \
       int wanted, void *choices, int *count))                                                     \
    X(multiply, "hipblasLtMatmul", "cublasLtMatmul",                                               \
      (void *handle, void *product, const void *alpha, const void *a, void *matrix_a,              \
       const void *b, void *matrix_b, const void *beta, const void *c, void *matrix_c, void *d,    \
       void *matrix_d, const void *algorithm, void *workspace, size_t workspace_nbytes,            \
       void *stream))

/* What a member `choices` of `choose` points to: the algorithm, of `algorithm_nbytes` bytes, a
 * size_t, an int, a float and four ints. */
enum { BLAS_CHOICE_NBYTES = 96, BLAS_ALGORITHM_NBYTES = 64 };

/* Enumerators of the libraries' headers; -1: the library has none. */
struct blas_numbers {
    int none, transpose;                                  /* operations on an operand */
    int compute_f32;                                      /* sums in fp32, of operands in full */
    int transpose_a, transpose_b, epilogue, bias_pointer; /* attributes of a product */
    int bias_type;
    int batch_count, batch_step;                   /* attributes of a matrix */
    int workspace_nbytes, reductions, alignment_a; /* of a preference; B, C, D follow A */
    size_t algorithm_nbytes;
};

struct blas_library {
    const struct blas_numbers *numbers;
    void *library; /* NULL: not bound */
#define BLAS_MEMBER(member, hip, cuda, parameters) blas_result(*member) parameters;
    BLAS_FUNCTIONS(BLAS_MEMBER)
#undef BLAS_MEMBER
};

/* The platform's library; NULL if it is not in the process, or lacks one of the functions. */
const struct blas_library *blas_library_find(enum gpu_platform platform);

#endif
