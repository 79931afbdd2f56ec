# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""all_gather, reduce_scatter, scatter and copy_to_ranks: shapes, sizes, dtypes, compilation,
mistakes. Their derivatives are in test_derivatives.py."""

import pytest
import torch
from waits import waiting

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import all_gather, copy_to_ranks, reduce_scatter, scatter


def drawn(*shape, dtype=torch.float32):
    """The same on all ranks, small whole numbers."""
    generator = torch.Generator(device="cpu").manual_seed(5)
    values = torch.randint(0, 5, shape, generator=generator, device="cpu")
    return torch.empty(shape, dtype=dtype).copy_(values)


def split(x, world, dim):
    """As torch.chunk does, with empty parts for those that it has none for."""
    parts = list(x.chunk(world, dim))
    return parts + [x.narrow(dim, 0, 0)] * (world - len(parts))


def is_own(result, expected):
    """Equal, and in order in memory."""
    assert torch.equal(result, expected), (result.shape, expected.shape)
    assert result.is_contiguous()


@ranks(1, 2, 4)
def test_any_shape_dimension_and_size(ctx):
    iris_c.torch.register(ctx)
    world, rank = ctx.world_size, ctx.rank
    for size in (0, 1, 2, world, 5, 4 * world, 13):
        for dim in range(3):
            shape = [2, 1, 3]
            shape[dim] = size
            whole = drawn(*shape)
            mine = split(whole, world, dim)[rank]
            for given in (dim, dim - 3):
                is_own(scatter(whole, given), mine)
                for replicated in (False, True):
                    is_own(all_gather(mine, given, replicated=replicated), whole)
                is_own(reduce_scatter(whole * (rank + 1), given), mine * (world * (world + 1) // 2))
            is_own(all_gather(mine.transpose(0, 2).contiguous().transpose(0, 2), dim), whole)
    is_own(copy_to_ranks(drawn(3, 4).t()), drawn(3, 4).t().contiguous())
    assert copy_to_ranks(torch.ones(())).shape == ()


@ranks(3)
def test_parts_of_any_sizes(ctx):
    """Found by the ranks or given, with gradients; empty ones first, in the midst, last."""
    iris_c.torch.register(ctx)
    for sizes in ([2, 0, 3], [0, 0, 1], [1, 2, 3], [3, 3, 2], [0, 5, 0], [0, 0, 0]):
        whole = drawn(2, sum(sizes), 2)
        mine = whole.split(sizes, 1)[ctx.rank].clone().requires_grad_()
        weights = drawn(2, sum(sizes), 2) - 1
        for known in (None, sizes, tuple(sizes)):
            joined = all_gather(mine, 1, sizes=known)
            is_own(joined, whole)
            (grad,) = torch.autograd.grad((joined * weights * (ctx.rank + 1)).sum(), mine)
            assert torch.equal(grad, 6 * weights.split(sizes, 1)[ctx.rank])
        is_own(reduce_scatter(whole, 1, sizes=sizes), 3 * whole.split(sizes, 1)[ctx.rank])


@ranks(2)
def test_dtypes(ctx):
    """Whatever is moved is of any dtype, what is summed of those that are summed."""
    iris_c.torch.register(ctx)
    moved = (torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
    for dtype in moved:
        whole = drawn(3, 2, dtype=dtype)
        mine = split(whole, 2, 0)[ctx.rank]
        assert torch.equal(all_gather(mine), whole)
        assert torch.equal(scatter(whole), mine)
    for dtype in (torch.float64, torch.float16, torch.int32):
        whole = drawn(3, 2, dtype=dtype)
        assert torch.equal(reduce_scatter(whole), 2 * split(whole, 2, 0)[ctx.rank])


@ranks(2, deadline=240)
def test_compiles_to_one_graph(ctx):
    """With sizes that vary, even and not; where they are not told they count as equal."""
    iris_c.torch.register(ctx)

    def function(whole, mine, sizes):
        own = scatter(whole, 1) + reduce_scatter(whole.sin(), 1)
        joined = all_gather(mine, 1, sizes=sizes) * copy_to_ranks(whole).sum()
        return own.square().sum() + joined.cos().sum()

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (4, 6, 5, 9, 8):
        whole = drawn(2, size, 3).requires_grad_()
        parts = split(whole.detach(), 2, 1)
        sizes = None if size % 2 == 0 else [p.shape[1] for p in parts]
        mine = parts[ctx.rank].clone().requires_grad_()
        expected, got = (
            torch.autograd.grad(run(whole, mine, sizes), (whole, mine))
            for run in (function, compiled)
        )
        for mine_of_both in zip(got, expected, strict=True):
            torch.testing.assert_close(*mine_of_both)
    gather = torch.compile(lambda x: all_gather(x, 0), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="the ranks called different operations"):
        waiting(ctx, lambda: gather(torch.ones(2 - ctx.rank, 3)))()
    assert torch.equal(gather(torch.ones(2, 3)), torch.ones(4, 3))


@ranks(2)
def test_mistakes_are_named(ctx):
    iris_c.torch.register(ctx)
    x = torch.ones(2, 3)
    for function in (all_gather, reduce_scatter, scatter):
        with pytest.raises(TypeError, match="x: expected a Tensor, got list"):
            function([1.0], 0)
        with pytest.raises(ValueError, match="x: expected one dimension or more"):
            function(torch.ones(()), 0)
        for wrong in (2, -3):
            with pytest.raises(ValueError, match=f"dim: expected -2 to 1, got {wrong}"):
                function(x, wrong)
        for wrong in (True, "0", None):
            with pytest.raises(TypeError, match="dim: expected an int, got"):
                function(x, wrong)
    for wrong in ([2], [2, -1], [1, 1], [2, 2, 2]):
        with pytest.raises(ValueError, match=r"sizes: expected 2 sizes, .*being 2, got"):
            all_gather(x, 0, sizes=wrong)
    for wrong in ([2], [3, -1], [1, 2]):
        with pytest.raises(ValueError, match=r"sizes: expected 2 sizes, .* that add up to 2, got"):
            reduce_scatter(x, 0, sizes=wrong)
    with pytest.raises(TypeError, match="x: expected a Tensor, got float"):
        copy_to_ranks(1.0)
    for operation in ("own_part", "reduce_scatter"):
        with pytest.raises(RuntimeError, match="input: expected a multiple of world_size 2 along"):
            getattr(torch.ops.iris_c, operation)(x, 1, "default")
    assert torch.equal(all_gather(x), torch.ones(4, 3))
