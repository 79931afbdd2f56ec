# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Results that lie in local arenas, at another address on each rank, are right in every operation,
and pushed there by the peers: no room is staged for them."""

import random

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

HEAP = 32 << 20
PRODUCTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
SUMS = (*PRODUCTS, "ll", "ll_two_shot")


def scatter_addresses(ctx):
    """Takes another amount on each rank, so that equal allocations lie at different offsets."""
    return [ctx.local_empty(4096 * rank + 100) for rank in range(2 * ctx.rank + 1)]


def place(ctx, *shape, dtype=torch.float32):
    return cases.poisoned(ctx.local_empty(*shape, dtype=dtype))


def numbers(ctx, *shape, rank=None, dtype=torch.float32):
    """Small whole numbers, whose sums and products are exact in any order."""
    generator = torch.Generator(torch.get_default_device())
    generator.manual_seed(100 * sum(shape) + (ctx.rank if rank is None else rank))
    return torch.randint(-3, 4, shape, generator=generator).to(dtype)


def all_numbers(ctx, *shape, dtype=torch.float32):
    return [numbers(ctx, *shape, rank=rank, dtype=dtype) for rank in range(ctx.world_size)]


@ranks(1, 2, 3, 4, heap_size=HEAP)
@pytest.mark.parametrize("M", [1, 7, 130])
def test_products(ctx, M):
    held, world = scatter_addresses(ctx), ctx.world_size
    N, K = 72 * world, 40
    A, B = numbers(ctx, M, K), numbers(ctx, K, N)
    parts = [a @ b for a, b in zip(all_numbers(ctx, M, K), all_numbers(ctx, K, N), strict=True)]
    for variant in PRODUCTS:
        C = place(ctx, M, N)
        ctx.ops.matmul_all_reduce(C, A, B, config=iris_c.FusedConfig(all_reduce_variant=variant))
        assert torch.equal(C, sum(parts)), variant
    C = place(ctx, world * M, N)
    ctx.ops.matmul_all_gather(C, A, B)
    assert torch.equal(C, torch.cat(parts))
    C = place(ctx, M, N // world)
    ctx.ops.matmul_reduce_scatter(C, A, B, dim=1)
    assert torch.equal(C, sum(parts).chunk(world, 1)[ctx.rank])
    for gather in (ctx.ops.all_gather_matmul, ctx.ops.all_gather_matmul_hbm_buffer):
        C, joined = place(ctx, world * M, N), place(ctx, world * M, K)
        gather(C, A, B, A_gathered=joined)
        assert torch.equal(joined, torch.cat(all_numbers(ctx, M, K)))
        assert torch.equal(C, joined @ B)
    del held


@ranks(2, 3, 4, heap_size=HEAP)
def test_strided_outputs(ctx):
    held, M, N, K = scatter_addresses(ctx), 33, 50, 20
    A, B = numbers(ctx, M, K), numbers(ctx, K, N)
    expected = sum(
        a @ b for a, b in zip(all_numbers(ctx, M, K), all_numbers(ctx, K, N), strict=True)
    )
    # Another layout on each rank, one of them not in the arena at all.
    memory = place(ctx, 2 * M, 2 * N + ctx.rank)
    C = (
        memory[::2, : 2 * N : 2],
        place(ctx, N, M).t(),
        torch.empty(M, N),
        memory[M:, :N],
    )[ctx.rank]
    for variant in PRODUCTS:
        C.fill_(float("nan"))
        ctx.ops.matmul_all_reduce(C, A, B, config=iris_c.FusedConfig(all_reduce_variant=variant))
        assert torch.equal(C, expected), variant
    del held


@ranks(1, 2, 3, 4, heap_size=HEAP)
@pytest.mark.parametrize("n", [1, 1000, 70001])
def test_collectives(ctx, n):
    held, world, rank = scatter_addresses(ctx), ctx.world_size, ctx.rank
    last, mine, everybody = world - 1, numbers(ctx, n), all_numbers(ctx, n)
    wide, all_wide = numbers(ctx, world * n), all_numbers(ctx, world * n)
    for variant in SUMS:
        config, output = iris_c.ccl.Config(all_reduce_variant=variant), place(ctx, n)
        ctx.ccl.all_reduce(output, mine, config=config)
        assert torch.equal(output, sum(everybody)), variant
    in_place = ctx.local_empty(n).copy_(mine)
    ctx.ccl.all_reduce(in_place, in_place, config=iris_c.ccl.Config(all_reduce_variant="two_shot"))
    assert torch.equal(in_place, sum(everybody))
    output = place(ctx, world * n)
    ctx.ccl.all_gather(output, mine)
    assert torch.equal(output, torch.cat(everybody))
    output = place(ctx, n)
    ctx.ccl.reduce_scatter(output, wide)
    assert torch.equal(output, sum(all_wide).chunk(world)[rank])
    output = place(ctx, world * n)
    ctx.ccl.all_to_all(output, wide)
    assert torch.equal(output, torch.cat([given.chunk(world)[rank] for given in all_wide]))
    output = ctx.local_empty(n).copy_(mine)
    ctx.ccl.broadcast(output, src=last)
    assert torch.equal(output, everybody[last])
    output = place(ctx, n) if rank == last else None
    ctx.ccl.reduce(output, mine, dst=last)
    assert output is None or torch.equal(output, sum(everybody))
    output = place(ctx, world * n) if rank == last else None
    ctx.ccl.gather(output, mine, dst=last)
    assert output is None or torch.equal(output, torch.cat(everybody))
    output = place(ctx, n)
    ctx.ccl.scatter(output, wide if rank == 0 else None, src=0)
    assert torch.equal(output, all_wide[0].chunk(world)[rank])
    output, residual = place(ctx, 2, n), place(ctx, 2, n)
    x = torch.stack([mine, mine])
    ctx.ccl.all_reduce_rmsnorm(output, residual, x, None, torch.ones(n))
    assert torch.equal(residual, torch.stack([sum(everybody)] * 2))
    del held


@ranks(2, 3, heap_size=128 << 20)
def test_nothing_is_staged_for_them(ctx):
    """The workspace is as large as for results on the symmetric heap."""
    held, world, S = scatter_addresses(ctx), ctx.world_size, 512
    A, B = numbers(ctx, S, 64), numbers(ctx, 64, S)
    for call, shape in (
        (lambda C: ctx.ops.matmul_all_reduce(C, A, B), (S, S)),
        (lambda C: ctx.ops.matmul_all_gather(C, A, B), (world * S, S)),
        (lambda C: ctx.ccl.all_gather(C, torch.ones(S, S)), (world * S, S)),
    ):
        sizes = []
        for make in (ctx.empty, ctx.local_empty, torch.empty):
            workspace = call(make(shape))
            sizes.append(workspace.nbytes)
            workspace.clear()
        assert sizes[0] == sizes[1] < sizes[2], sizes
    del held


@ranks(2, heap_size=HEAP)
def test_memory_that_is_used_again_at_once(ctx):
    """A result that is freed right after its call, call after call, with another one's in its
    place: no peer writes late."""
    n, chance = 5000, random.Random(ctx.rank)
    for number in range(200):
        if chance.random() < 0.3:
            held = ctx.local_empty(chance.randrange(1, 3000))
        output = place(ctx, n)
        ctx.ccl.all_reduce(output, torch.full((n,), float(number + ctx.rank)))
        assert (output == 2 * number + 1).all(), number
        del output
        other = ctx.local_empty(n).fill_(-1)
        ctx.ccl.all_gather(torch.empty(2), torch.ones(1))
        assert (other == -1).all(), number
    del held
