# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Results in local arenas, at another address on each rank, by the shipped code objects; and how
the arena of a device whose launches return early uses freed memory again."""

import ctypes

import cases
import machine
import pytest
import torch

import iris_c
from iris_c import _C

KIB = 1 << 10


def place(memory, *sizes, dtype=torch.float32):
    tensor = memory.local(*sizes, dtype=dtype)
    return tensor.fill_(float("nan")) if dtype.is_floating_point else tensor.fill_(0x55)


def ordinary(memory, tensor):
    return memory.ordinary(*tensor.shape, dtype=tensor.dtype).copy_(tensor)


def results(ctx, memory, M):
    world, rank, N, K, n = ctx.world_size, ctx.rank, 40 * ctx.world_size, 24, 999
    passed = memory.passed
    apart = [ctx.allocate_local(3000 * number + 1) for number in range(rank + 1)]

    def numbers(source, *shape):
        generator = torch.Generator().manual_seed(100 * sum(shape) + source)
        return torch.randint(-3, 4, shape, generator=generator).float()

    A, B = (ordinary(memory, numbers(rank, *shape)) for shape in ((M, K), (K, N)))
    parts = [numbers(source, M, K) @ numbers(source, K, N) for source in range(world)]
    for variant in cases.VARIANTS:
        C = place(memory, M, N)
        ctx.ops.matmul_all_reduce(
            passed(C), passed(A), passed(B), config=iris_c.FusedConfig(all_reduce_variant=variant)
        )
        memory.library.hipDeviceSynchronize()
        assert torch.equal(C, sum(parts)), variant
    C = place(memory, world * M, N)
    ctx.ops.matmul_all_gather(passed(C), passed(A), passed(B))
    memory.library.hipDeviceSynchronize()
    assert torch.equal(C, torch.cat(parts))
    mine = ordinary(memory, numbers(rank, n))
    for variant in cases.ALL_REDUCE_VARIANTS:
        output = place(memory, n)
        config = iris_c.ccl.Config(all_reduce_variant=variant)
        ctx.ccl.all_reduce(passed(output), passed(mine), config=config)
        memory.library.hipDeviceSynchronize()
        assert torch.equal(output, sum(numbers(source, n) for source in range(world))), variant
    output = place(memory, world * n)
    ctx.ccl.all_gather(passed(output), passed(mine))
    memory.library.hipDeviceSynchronize()
    assert torch.equal(output, torch.cat([numbers(source, n) for source in range(world)]))
    del apart


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("arch", machine.ARCHES)
def test_results_at_different_addresses(emulated, arch, world_size):
    gpus = emulated(arch, adversarial=1, order="random", seed=world_size)
    gpus.run(results, world_size, 33)


def reuse(ctx, memory):
    """Freed memory is set aside, and taken when nothing else is left, but not in a capture."""
    library, whole = memory.library, ctx.local_size
    first = ctx.allocate_local(whole)
    offset = first.offset
    del first
    assert ctx.local_used == 0
    assert ctx._local_room == 0
    stream, graph = ctypes.c_void_p(), ctypes.c_void_p()
    assert library.hipStreamCreate(ctypes.byref(stream)) == 0
    assert library.hipStreamBeginCapture(stream, 0) == 0
    with pytest.raises(iris_c.HeapExhausted, match="local arena"):
        ctx.allocate_local(KIB, stream=stream.value)
    assert library.hipStreamEndCapture(stream, ctypes.byref(graph)) == 0
    again = ctx.allocate_local(whole, stream=stream.value)
    assert again.offset == offset
    del again
    allocate = getattr(ctypes.CDLL(_C.__file__), f"iris_c_pool_allocate_{ctx._pool()}")
    allocate.restype = ctypes.c_void_p
    size = ctypes.c_size_t(whole)
    assert allocate(size, ctx.device_id, None) == ctx._heap_bases()[ctx.rank] + offset
    assert allocate(size, ctx.device_id, None) is None


@pytest.mark.parametrize("arch", machine.ARCHES[:1])
def test_freed_memory_is_used_again_after_a_wait(emulated, arch):
    emulated(arch).run(reuse, 2)


def workspaces(ctx, memory):
    """A call whose result lies in the arena makes room for one that will have to be staged: a
    graph may have such results, and can make none."""
    M, N, K = 200, 200, 8
    A, B = (memory.ordinary(*shape, dtype=torch.float32).fill_(1) for shape in ((M, K), (K, N)))
    sizes = []
    for make in (memory.heap, memory.local, memory.ordinary):
        C = memory.passed(make(M, N, dtype=torch.float32))
        workspace = ctx.ops.matmul_all_reduce(C, memory.passed(A), memory.passed(B))
        memory.library.hipDeviceSynchronize()
        sizes.append(workspace.nbytes)
        workspace.clear()
    assert sizes[0] < sizes[1] == sizes[2], sizes


@pytest.mark.parametrize("arch", machine.ARCHES[:1])
def test_room_for_results_that_a_graph_may_stage(emulated, arch):
    emulated(arch).run(workspaces, 2)
