/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The instructions of sm_90a that gemm_sm90.h is made of, by name: barriers in shared memory, the
 * copy engines, wgmma's fences.
 */
#ifndef IRIS_PTX_SM90_H
#define IRIS_PTX_SM90_H

#include "kernels/base/kernel.h"

namespace iris
{

struct mbarrier {
    uint64_t state;
};

IRIS_INLINE uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* By a whole warp: true for one of its threads. The compiler knows the branch that only this one
 * takes to be one thread's, and asks the engines in it without loops over the warp. */
IRIS_INLINE bool elect_one()
{
    uint32_t elected;
    asm volatile("{\n"
                 ".reg .pred chosen;\n"
                 "elect.sync _|chosen, 0xffffffff;\n"
                 "selp.u32 %0, 1, 0, chosen;\n"
                 "}\n"
                 : "=r"(elected)::"memory");
    return elected != 0;
}

/* ---- barriers in shared memory: a phase ends with `count` arrivals and all announced bytes ----
 */

IRIS_INLINE void init_mbarrier(mbarrier *bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count)
                 : "memory");
}

/* Makes initialised barriers known to the copy engines. */
IRIS_INLINE void fence_mbarrier_init()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

IRIS_INLINE void arrive_mbarrier(mbarrier *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}

/* The functions of a barrier's address are those of the barrier, for loops that keep it. */
IRIS_INLINE void arrive_expecting(uint32_t bar, uint32_t nbytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(nbytes)
                 : "memory");
}

IRIS_INLINE void arrive_expecting(mbarrier *bar, uint32_t nbytes)
{
    arrive_expecting(shared_address(bar), nbytes);
}

/* Returns when the phase of this parity has ended. Only threads of this block, and the engine at
 * their command, arrive: there is nobody to time out on. */
IRIS_INLINE void wait_mbarrier(uint32_t bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

IRIS_INLINE void wait_mbarrier(mbarrier *bar, uint32_t parity)
{
    wait_mbarrier(shared_address(bar), parity);
}

/* ---- clusters: neighbouring blocks that reach each other's shared memory ---- */

/* Of a place in this block's shared memory, the address of the same place in block `block` of the
 * cluster. */
IRIS_INLINE uint32_t address_in_cluster(const void *pointer, int32_t block)
{
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"(shared_address(pointer)), "r"(block));
    return address;
}

/* The two halves of a barrier of all threads of the cluster. Relaxed: for barriers in shared
 * memory, which fence_mbarrier_init has published; what else was written comes before
 * arrive_cluster. */
IRIS_INLINE void arrive_cluster_relaxed()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

IRIS_INLINE void arrive_cluster()
{
    asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
}

IRIS_INLINE void wait_cluster()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* As wait_mbarrier, where other blocks of the cluster arrive or their engines write. They run as
 * long as this one does, and wait for nobody outside the cluster. */
IRIS_INLINE void wait_mbarrier_in_cluster(mbarrier *bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(shared_address(bar)),
                 "r"(parity)
                 : "memory");
}

/* Arrives at the barrier in block `block`. Relaxed: it announces that values have been read, and
 * they have been, since packets made of them were stored before; a release would wait for those
 * packets, which cross the links. */
IRIS_INLINE void arrive_mbarrier_in_cluster(mbarrier *bar, int32_t block)
{
    asm volatile("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                     address_in_cluster(bar, block))
                 : "memory");
}

/* This block's shared memory to the same of block `block`; 16-byte aligned, multiples of 16. */
IRIS_INLINE void copy_bulk_in_cluster(const char *target, int32_t block, const char *source,
                                      uint32_t nbytes, const mbarrier *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(address_in_cluster(target, block)),
                 "r"(shared_address(source)), "r"(nbytes), "r"(address_in_cluster(bar, block))
                 : "memory");
}

/* ---- a word in shared memory that paces other warps of the block and orders nothing ---- */

IRIS_INLINE void store_shared_word(uint32_t *word, uint32_t value)
{
    asm volatile("st.relaxed.cta.shared::cta.u32 [%0], %1;" ::"r"(shared_address(word)), "r"(value)
                 : "memory");
}

IRIS_INLINE uint32_t load_shared_word(const uint32_t *word)
{
    uint32_t value;
    asm volatile("ld.relaxed.cta.shared::cta.u32 %0, [%1];"
                 : "=r"(value)
                 : "r"(shared_address(word))
                 : "memory");
    return value;
}

/* ---- named barriers among some warps of the block ---- */

IRIS_INLINE void sync_barrier(int32_t barrier, int32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

IRIS_INLINE void arrive_barrier(int32_t barrier, int32_t threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/* ---- copy engines ---- */

/* What threads wrote to shared memory may be read by the engines and by wgmma. */
IRIS_INLINE void fence_async_shared()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Asks for the box of the tensor that begins at (inner, outer); zeros outside the matrix. */
IRIS_INLINE void copy_tensor(uint32_t target, const iris_tensor_map *map, int32_t inner,
                             int32_t outer, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(target),
                 "l"(map), "r"(inner), "r"(outer), "r"(bar)
                 : "memory");
}

IRIS_INLINE void copy_tensor(char *target, const iris_tensor_map *map, int32_t inner, int32_t outer,
                             mbarrier *bar)
{
    copy_tensor(shared_address(target), map, inner, outer, shared_address(bar));
}

/* The same of a stack of matrices; zeros outside the one at `depth`. */
IRIS_INLINE void copy_tensor(char *target, const iris_tensor_map *map, int32_t inner, int32_t outer,
                             int32_t depth, mbarrier *bar)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(target)),
                 "l"(map), "r"(inner), "r"(outer), "r"(depth), "r"(shared_address(bar))
                 : "memory");
}

IRIS_INLINE void prefetch_tensor_map(const iris_tensor_map *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Global memory, of this GPU or a peer, to shared memory; 16-byte aligned, multiples of 16. */
IRIS_INLINE void load_bulk(char *target, const char *source, uint32_t nbytes, mbarrier *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(shared_address(target)),
                 "l"(source), "r"(nbytes), "r"(shared_address(bar))
                 : "memory");
}

/* Shared memory to global memory, here or on a peer; 16-byte aligned, multiples of 16. */
IRIS_INLINE void copy_bulk(char *target, const char *source, uint32_t nbytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target),
                 "r"(shared_address(source)), "r"(nbytes)
                 : "memory");
}

/* Shared memory to the box of the tensor that begins at (inner, outer); nothing outside it. */
IRIS_INLINE void copy_to_tensor(const iris_tensor_map *map, int32_t inner, int32_t outer,
                                const char *source)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
        "r"(inner), "r"(outer), "r"(shared_address(source))
        : "memory");
}

/* The same in a stack of matrices; nothing outside the one at `depth`. */
IRIS_INLINE void copy_to_tensor(const iris_tensor_map *map, int32_t inner, int32_t outer,
                                int32_t depth, const char *source)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(
            map),
        "r"(inner), "r"(outer), "r"(depth), "r"(shared_address(source))
        : "memory");
}

IRIS_INLINE void commit_bulk()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* The shared memory of this thread's bulk copies may be written again. */
IRIS_INLINE void wait_bulk_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/* This thread's bulk copies are complete, and what it signals next comes after them: they were
 * written by the async proxy, which the fence orders before the generic proxy's release. */
IRIS_INLINE void publish_bulk_stores()
{
    asm volatile("cp.async.bulk.wait_group 0;\n"
                 "fence.proxy.async;" ::
                     : "memory");
}

/* What this thread has acquired may be read by the engines at its command: generic stores, of a
 * peer, come before the async proxy's loads. */
IRIS_INLINE void acquire_for_engines()
{
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* ---- wgmma ---- */

IRIS_INLINE void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

IRIS_INLINE void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All but the last kPending groups are complete. */
template <int kPending> IRIS_INLINE void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/* Four 8 x 8 matrices of 16-bit elements, as wgmma leaves them, to rows of 16 bytes; lane l gives
 * the address of row l mod 8 of matrix l / 8. */
IRIS_INLINE void store_matrices(uint32_t address, uint32_t m0, uint32_t m1, uint32_t m2,
                                uint32_t m3)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(m0), "r"(m1), "r"(m2), "r"(m3)
                 : "memory");
}

/* Registers of each thread of this warpgroup from here on. */
template <int kCount> IRIS_INLINE void take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

template <int kCount> IRIS_INLINE void give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

} // namespace iris

#endif
