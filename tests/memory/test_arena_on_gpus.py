# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The arena as a pool of torch's allocator: tensors of the user's, results of layers, graphs.

Needs GPUs: IRIS_C_BACKEND=cuda (or hip) python -m pytest tests/memory
"""

import gc
import os

import pytest
import torch

import iris_c
import iris_c.torch
from iris_c.testing import ranks

pytestmark = pytest.mark.skipif(
    os.environ.get("IRIS_C_BACKEND", "cpu") == "cpu", reason="needs GPUs: set IRIS_C_BACKEND"
)
M, N, K = 512, 1024, 256
MIB = 1 << 20


def numbers(seed, *shape):
    """Small whole numbers, the same on all ranks."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator, device="cpu").float().cuda()


def layer(ctx, dtype=torch.float32):
    """A row-parallel layer, and what it makes of an x that is the same on all ranks."""
    iris_c.torch.register(ctx)
    made = iris_c.torch.RowParallelLinear(K * ctx.world_size, N, bias=False, dtype=dtype)
    with torch.no_grad():
        made.weight.copy_(numbers(1 + ctx.rank, N, K))
    weights = [numbers(1 + rank, N, K) for rank in range(ctx.world_size)]
    return made, lambda x: sum(x.float() @ weight.t() for weight in weights)


@ranks(1, 2, 4, heap_size=256 * MIB)
def test_tensors_of_the_users(ctx):
    held = []
    with ctx.pool():
        held = [torch.empty(1000 * (ctx.rank + 1), device="cuda") for _ in range(3)]
        C = torch.full((M, N), float("nan"), device="cuda")
        view = (C + 1)[:, :7]
    assert ctx.is_reachable(C)
    assert ctx.is_reachable(view)
    assert not ctx.is_symmetric(C)
    assert not ctx.is_reachable(torch.empty(M, N, device="cuda"))
    A, B = numbers(ctx.rank, M, K), numbers(9, K, N)
    ctx.ops.matmul_all_reduce(C, A, B)
    assert torch.equal(C, sum(numbers(rank, M, K) @ B for rank in range(ctx.world_size)))
    del C, view, held
    used = ctx.local_used
    with ctx.pool():  # torch uses the memory again
        for _ in range(50):
            torch.empty(M, N, device="cuda")
    assert ctx.local_used == used


@ranks(2, 4, heap_size=256 * MIB)
def test_results_of_layers_lie_in_the_arena(ctx):
    made, expected = layer(ctx)
    x = numbers(5, M, K)
    for _ in range(3):
        y = made(x)
        assert ctx.is_reachable(y)
        assert torch.equal(y, expected(x))
    s = iris_c.torch.all_reduce(y)
    assert ctx.is_reachable(s)
    assert torch.equal(s, y * ctx.world_size)
    x.requires_grad_()
    (made(x) * y).sum().backward()
    torch.testing.assert_close(x.grad, y.detach() @ made.weight.detach(), rtol=1e-4, atol=1e-2)


@ranks(2, 4, heap_size=256 * MIB, deadline=180)
def test_graphs_keep_their_results(ctx):
    """Replays of two graphs among eager calls, whose results nobody overwrites."""
    made, expected = layer(ctx)
    inputs = [numbers(seed, M, K) for seed in (5, 6)]
    with torch.no_grad():
        made(inputs[0])
        graphs = []
        for x in inputs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(4):  # the memory of results that are gone is used again
                    y = made(x)
                z = y + 1
            graphs.append((graph, x, y, z))
            assert ctx.is_reachable(y), torch.__version__  # since 2.10
        kept = []
        for turn in range(6):
            eager = numbers(20 + turn, M, K)
            kept.append((eager, made(eager)))
            for number, (graph, x, y, z) in enumerate(graphs):
                x.copy_(numbers(40 + 2 * turn + number, M, K))
                graph.replay()
                assert torch.equal(y, expected(x)), (turn, number)
                assert torch.equal(z, y + 1), (turn, number)
        for eager, result in kept:
            assert torch.equal(result, expected(eager))


@ranks(2, heap_size=256 * MIB, deadline=180)
def test_memory_of_a_graph_that_is_gone_is_used_again(ctx):
    made, expected = layer(ctx)
    x = numbers(5, M, K)
    used = []
    with torch.no_grad():
        made(x)
        for turn in range(8):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = made(x)
            graph.replay()
            assert torch.equal(y, expected(x)), turn
            used.append(ctx.local_used)
            del graph, y
            gc.collect()
            torch.cuda.synchronize()
    if torch.version.hip is None:
        assert used[-1] == used[2], used


@ranks(2, heap_size=256 * MIB, deadline=180)
def test_an_arena_that_is_full(ctx):
    """Results are ordinary then, in graphs too, and right."""
    made, expected = layer(ctx)
    x = numbers(5, M, K)
    with torch.no_grad():
        warm = made(x)  # there is room, and the workspace is made
        assert ctx.is_reachable(warm)
        full = []
        with pytest.raises(torch.OutOfMemoryError) as caught, ctx.pool():
            while True:
                full.append(torch.empty(4 * MIB, dtype=torch.uint8, device="cuda"))
        assert "local_size" in "".join(caught.value.__notes__)
        results = [made(x) for _ in range(60)]
        assert not ctx.is_reachable(results[-1])
        assert all(torch.equal(result, expected(x)) for result in results)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = made(x)
        x.copy_(numbers(6, M, K))
        graph.replay()
        assert torch.equal(y, expected(x))


@ranks(2, heap_size=64 * MIB)
def test_memory_outlives_the_context(ctx):
    made, expected = layer(ctx)
    x = numbers(5, M, K)
    with torch.no_grad():
        y = made(x)
    with ctx.pool():
        z = torch.full((1000,), 3.0, device="cuda")
    ctx.barrier()
    ctx.close()
    del made
    gc.collect()
    assert torch.equal(y, expected(x))
    assert (z == 3).all()
    del y, z
    torch.cuda.empty_cache()


@ranks(2, heap_size=256 * MIB)
def test_streams(ctx):
    """A result that another stream still reads is not overwritten: torch's record_stream holds."""
    made, expected = layer(ctx)
    side = torch.cuda.Stream()
    copies = []
    with torch.no_grad():
        for turn in range(20):
            x = numbers(turn, M, K)
            y = made(x)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                torch.cuda._sleep(1000000)
                copies.append((x, y.clone()))
            y.record_stream(side)
            del y
    torch.cuda.synchronize()
    for x, copy in copies:
        assert torch.equal(copy, expected(x))


@ranks(2, heap_size=256 * MIB, deadline=300)
def test_graphs_of_the_compiler(ctx):
    """Whose results have to be in its own pool."""
    made, expected = layer(ctx)
    compiled = torch.compile(made, mode="reduce-overhead")
    with torch.no_grad():
        for turn in range(6):
            x = numbers(turn, M, K)
            assert torch.equal(compiled(x), expected(x)), turn
            assert torch.equal(made(x), expected(x)), turn


@ranks(2, 4, heap_size=256 * MIB)
def test_local_empty(ctx):
    """Memory that was freed is used again after the device has been waited for."""
    A, B = numbers(ctx.rank, M, K), numbers(9, K, N)
    expected = sum(numbers(rank, M, K) @ B for rank in range(ctx.world_size))
    for turn in range(200):  # of 2 MiB, in 128
        C = ctx.local_empty(M, N)
        ctx.ops.matmul_all_reduce(C, A, B)
        if turn % 20 == 0:
            assert torch.equal(C, expected), turn
