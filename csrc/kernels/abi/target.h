/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The one place that asks which compiler is at work. A target is a folder, and what differs between
 * targets lies in its files; everybody else includes them by these names:
 *
 *   IRIS_TARGET_LANGUAGE    how functions, shared memory and kernels are declared; C11 too
 *   IRIS_TARGET_PRIMITIVES  values, registers, work-group numbers: see kernels/base/primitives.h
 *   IRIS_TARGET_SYNC        memory order: see kernels/protocol/sync.h
 *   IRIS_TARGET_TILE        tiles of matrices: see kernels/base/tile.h
 *   IRIS_TARGET_NORM        the norm of rows: see kernels/ops/rmsnorm.h
 *   IRIS_TARGET_PRODUCTS    GPUs: products fused with what goes on between ranks, see
 *                           kernels/gpu/gpu_products.h
 *
 * IRIS_GPU is defined for every GPU.
 */
#ifndef IRIS_TARGET_H
#define IRIS_TARGET_H

#if defined(__CUDACC__)
#define IRIS_GPU 1
#define IRIS_TARGET_LANGUAGE "kernels/gpu/sm90/language_sm90.h"
#define IRIS_TARGET_PRIMITIVES "kernels/gpu/sm90/primitives_sm90.h"
#define IRIS_TARGET_SYNC "kernels/gpu/sm90/sync_sm90.h"
#define IRIS_TARGET_TILE "kernels/gpu/sm90/tile_sm90.h"
#define IRIS_TARGET_NORM "kernels/gpu/rmsnorm_gpu.h"
#define IRIS_TARGET_PRODUCTS "kernels/gpu/sm90/products_sm90.h"
#elif defined(__HIP__)
#define IRIS_GPU 1
#define IRIS_TARGET_LANGUAGE "kernels/gpu/cdna/language_cdna.h"
#define IRIS_TARGET_PRIMITIVES "kernels/gpu/cdna/primitives_cdna.h"
#define IRIS_TARGET_SYNC "kernels/gpu/cdna/sync_cdna.h"
#define IRIS_TARGET_TILE "kernels/gpu/cdna/tile_cdna.h"
#define IRIS_TARGET_NORM "kernels/gpu/rmsnorm_gpu.h"
#define IRIS_TARGET_PRODUCTS "kernels/gpu/cdna/products_cdna.h"
#else
#define IRIS_TARGET_LANGUAGE "kernels/cpu/language_host.h"
#define IRIS_TARGET_PRIMITIVES "kernels/cpu/primitives_host.h"
#define IRIS_TARGET_SYNC "kernels/cpu/sync_host.h"
#define IRIS_TARGET_TILE "kernels/cpu/tile_host.h"
#define IRIS_TARGET_NORM "kernels/cpu/rmsnorm_host.h"
#endif

#endif
