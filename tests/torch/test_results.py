# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Where the results of operations and layers lie: in the local arena, while it has room."""

import gc

import cases
import pytest
import torch

import iris_c
import iris_c.torch
from iris_c.testing import ranks

pytestmark = cases.cpu_only  # of GPUs: tests/memory/test_arena_on_gpus.py
M, N, K = 24, 32, 16


def numbers(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).float()


@ranks(1, 2, 3, heap_size=4 << 20)
def test_results_that_peers_write_lie_in_the_arena(ctx):
    iris_c.torch.register(ctx)
    held = [ctx.local_empty(100) for _ in range(ctx.rank)]
    A, B, several = numbers(ctx.rank, M, K), numbers(7, K, N), ctx.world_size > 1
    parts = [numbers(rank, M, K) @ B for rank in range(ctx.world_size)]
    for result, expected in (
        (iris_c.torch.matmul_all_reduce(A, B), sum(parts)),
        (iris_c.torch.matmul_all_gather(A, B), torch.cat(parts)),
        (iris_c.torch.all_reduce(A @ B), sum(parts)),
    ):
        assert torch.equal(result, expected)
        assert ctx.is_reachable(result) == several  # alone there is nobody to write it
    layer = iris_c.torch.RowParallelLinear(K * ctx.world_size, N)
    used = ctx.local_used
    for _ in range(3):
        y = layer(A)
        assert ctx.is_reachable(y) == several
    y.sum().backward()
    del y, result
    gc.collect()
    assert ctx.local_used < used + 1
    del held


@ranks(2, heap_size=1 << 20)
def test_without_room_they_are_ordinary(ctx):
    """On one rank or on both; what comes out is the same."""
    iris_c.torch.register(ctx)
    A, B = numbers(ctx.rank, M, K), numbers(7, K, N)
    expected = sum(numbers(rank, M, K) @ B for rank in range(ctx.world_size))
    for full in ((), (0,), (1,), (0, 1), ()):
        held = []
        if ctx.rank in full:
            held = [ctx.local_empty(size, dtype=torch.uint8)
                    for size in (ctx.local_size - ctx.local_used,)]  # fmt: skip
        result = iris_c.torch.matmul_all_reduce(A, B)
        assert ctx.is_reachable(result) == (ctx.rank not in full)
        assert torch.equal(result, expected), full
        del held, result


@ranks(2, heap_size=1 << 20)
def test_wrong_arguments_get_the_operations_own_errors(ctx):
    iris_c.torch.register(ctx)
    for A in (torch.ones(2, 3, dtype=torch.float64), torch.ones(3)):
        with pytest.raises(ValueError, match=r"^A: "):
            torch.ops.iris_c.matmul_all_reduce(A, A.reshape(3, -1), None, "default")
    assert ctx.local_used == 0


@ranks(2, heap_size=1 << 20)
def test_they_outlive_the_context(ctx):
    iris_c.torch.register(ctx)
    result = iris_c.torch.matmul_all_reduce(torch.ones(M, K), torch.ones(K, N))
    ctx.barrier()
    ctx.close()
    assert (result == 2 * K).all()
