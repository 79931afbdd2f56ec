/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * How the host's kernels are declared, and functions that host and kernels share.
 */
#ifndef IRIS_LANGUAGE_HOST_H
#define IRIS_LANGUAGE_HOST_H

#define IRIS_INLINE inline
#define IRIS_FUNCTION static inline
#define IRIS_GLOBAL
#define IRIS_UNROLL
#define IRIS_NO_UNROLL

#endif
