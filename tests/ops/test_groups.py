# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Operations of some of the ranks: ``group=`` and ``Context.group``."""

import cases
import pytest
import torch

import iris_c
from iris_c.testing import ranks

HEAP = 16 << 20


def partition(world: int) -> list[tuple[int, ...]]:
    """Groups that together are all ranks."""
    return [tuple(range(0, world, 2)), tuple(range(1, world, 2))]


@ranks(3, 4)
def test_collectives_of_a_group(ctx):
    """Two groups at once, each with its own ranks, results on the heap of the world."""
    group = next(g for g in partition(ctx.world_size) if ctx.rank in g)
    ctx.group(group, HEAP)
    position, n = group.index(ctx.rank), 3001
    results = [ctx.zeros(n) for _ in range(2)]
    inputs = [cases.contribution(rank, n, torch.float32) for rank in group]
    given = torch.empty(n).copy_(inputs[position])
    for output in (results[0], torch.empty(n)):
        ctx.ccl.all_reduce(output, given, group=group)
        assert torch.allclose(output, sum(inputs), atol=1e-5)
    whole = torch.empty(len(group) * n)
    ctx.ccl.all_gather(whole, given, group=list(group))
    assert torch.equal(whole, torch.cat(inputs))
    root = group[-1]
    ctx.ccl.broadcast(given, src=root, group=group)
    assert torch.equal(given, inputs[-1])
    ctx.ccl.gather(whole, given, dst=root, group=group)
    ctx.ccl.scatter(results[1], whole, src=root, group=group)
    assert torch.equal(results[1], inputs[-1])
    ctx.ccl.reduce(results[0], given, dst=root, op="max", group=group)
    if ctx.rank == root:
        assert torch.equal(results[0], inputs[-1])
    ctx.ccl.reduce_scatter(results[0], whole if ctx.rank == root else torch.zeros_like(whole),
                           group=group)  # fmt: skip
    assert torch.equal(results[0], inputs[-1])
    given = torch.cat([torch.full((n,), 10.0 * ctx.rank + peer) for peer in group])
    expected = torch.cat([torch.full((n,), 10.0 * peer + ctx.rank) for peer in group])
    sizes = [n] * len(group)
    for options in ({}, {"output_split_sizes": sizes, "input_split_sizes": sizes}):
        ctx.ccl.all_to_all(whole.zero_(), given, group=group, **options)
        assert torch.equal(whole, expected), options
    rows = [torch.zeros(3, 8) for _ in range(2)]
    ones = torch.ones(3, 8)
    ctx.ccl.all_reduce_rmsnorm(*rows, ones, None, torch.ones(8), eps=0.0, group=group)
    assert torch.equal(rows[1], ones * len(group))
    assert torch.allclose(rows[0], ones)
    ctx.ccl.barrier(group=group)
    ctx.barrier()


@ranks(4)
def test_groups_that_share_ranks(ctx):
    """Around the ring: each rank is in two groups of two, beside the world's own calls."""
    n = 100
    for turn in range(3):
        for group in ((0, 1), (2, 3), (1, 2), (0, 3)):
            if ctx.rank not in group:
                continue
            ctx.group(group, HEAP)
            output = torch.empty(n)
            ctx.ccl.all_reduce(output, torch.full((n,), float(ctx.rank + turn)), group=group)
            assert (output == sum(group) + 2 * turn).all()
        output = torch.empty(n)
        ctx.ccl.all_reduce(output, torch.full((n,), float(ctx.rank)))
        assert (output == 6).all()


@ranks(3)
def test_messages_within_a_group(ctx):
    group = (1, 2)
    if ctx.rank in group:
        ctx.group(group, HEAP)
        tensor = torch.full((70000,), float(ctx.rank))
        if ctx.rank == 1:
            ctx.ccl.send(tensor, dst=2, group=group)
        else:
            ctx.ccl.recv(tensor, src=1, group=group)
        assert (tensor == 1).all()
    ctx.barrier()


@ranks(3)
def test_a_group_is_a_context(ctx):
    """With a heap of its own, fused operations, RMA, and names for its ranks."""
    group = (0, 2)
    if ctx.rank in group:
        part = ctx.group(group, HEAP)
        assert part is ctx.group([2, 0])
        assert (part.ranks, ctx.ranks) == (group, (0, 1, 2))
        assert (part.rank, part.world_size) == (group.index(ctx.rank), 2)
        assert (part.backend, part.heap_size) == (ctx.backend, HEAP)
        C = part.empty(20, 30)
        assert (part.is_symmetric(C), ctx.is_symmetric(C)) == (True, False)
        part.ops.matmul_all_reduce(C, torch.ones(20, 40), torch.ones(40, 30))
        assert (C == 80).all()
        place = part.zeros(5)
        part.barrier()
        part.put(place, torch.full((5,), float(ctx.rank)), 1 - part.rank)
        part.device_barrier()
        assert (place == 2 - ctx.rank).all()
        part.barrier()
    ctx.barrier()


@ranks(3)
def test_mistakes_are_named(ctx):
    for wrong in ((0, 3), (-1, 0), (ctx.rank, ctx.rank), ()):
        with pytest.raises(ValueError, match="group: expected"):
            ctx.group(wrong)
    others = tuple(rank for rank in range(3) if rank != ctx.rank)
    with pytest.raises(ValueError, match=f"group: expected this rank, {ctx.rank}, among"):
        ctx.ccl.all_reduce(torch.zeros(4), torch.zeros(4), group=others)
    with pytest.raises(TypeError):
        ctx.ccl.all_reduce(torch.zeros(4), torch.zeros(4), group=5)
    if ctx.rank < 2:
        part = ctx.group((0, 1), HEAP)
        with pytest.raises(ValueError, match=f"heap_size: expected {HEAP}"):
            ctx.group((0, 1), 2 * HEAP)
        with pytest.raises(ValueError, match="src: expected a rank of the group, got 2"):
            ctx.ccl.broadcast(torch.zeros(4), src=2, group=(0, 1))
        with pytest.raises(ValueError, match=r"different operations.*group of ranks 0, 1"):
            ctx.ccl.all_reduce(torch.zeros(4 + ctx.rank), torch.zeros(4 + ctx.rank), group=(0, 1))
        part.barrier()
    ctx.barrier()


@cases.cpu_only
@ranks(3)
def test_a_member_that_leaves_is_named_as_the_world_calls_it(ctx):
    group = (1, 2)
    if ctx.rank in group:
        part = ctx.group(group, HEAP)
        if ctx.rank == 2:
            part.close()
        else:
            with pytest.raises(iris_c.PeerError, match="group of ranks 1, 2") as error:
                while True:
                    ctx.ccl.all_reduce(torch.zeros(4), torch.zeros(4), group=group)
            assert error.value.rank == 2
    ctx.barrier()  # the world goes on
