# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Layers whose sizes are no multiple of the ranks, whose output is gathered, whose input is not
divided; against torch.nn.Linear."""

import pytest
import torch
from torch import nn

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import ColumnParallelLinear, RowParallelLinear
from iris_c.torch._parts import bounds

WIDTH, ROWS = 6, 12


def own(tensor, dim, ctx):
    """As torch.chunk divides, also where there are fewer chunks than ranks."""
    start, stop = bounds(tensor.shape[dim], ctx.world_size, ctx.rank)
    return tensor.narrow(dim, start, stop - start)


def close(got, expected):
    torch.testing.assert_close(got.detach(), expected.detach(), rtol=1e-4, atol=1e-5)


def linear(*sizes, bias=True):
    torch.manual_seed(sum(sizes))
    return nn.Linear(*sizes, bias)


def parameters_are_parts(layer, whole, ctx):
    for name, parameter in layer.named_parameters():
        dim = {"weight": layer.divided, "bias": 0 if layer.divided == 0 else None}[name]
        expected = getattr(whole, name)
        for part, value in ((parameter, expected), (parameter.grad, expected.grad)):
            close(part, value if dim is None else own(value, dim, ctx))


def test_parts_are_those_of_chunk():
    for size in (0, 1, 5, 8, 50257):
        for world_size in (1, 2, 3, 4, 8):
            chunks = torch.arange(size).chunk(world_size)
            for rank in range(world_size):
                start, stop = bounds(size, world_size, rank)
                expected = chunks[rank].tolist() if rank < len(chunks) else []
                assert list(range(start, stop)) == expected


@pytest.mark.parametrize("sequence_parallel", [False, True])
@ranks(2, 4, deadline=120)
def test_uneven_sizes(ctx, sequence_parallel):
    """Some ranks have less, some have nothing; a pair of layers passes the parts on."""
    iris_c.torch.register(ctx)
    for hidden in (1, 2, 3, 5, 9, 50257 % 101):
        first, second = linear(WIDTH, hidden), linear(hidden, WIDTH, bias=hidden != 3)
        options = {"sequence_parallel": sequence_parallel}
        column = ColumnParallelLinear.from_linear(first, **options)
        row = RowParallelLinear.from_linear(second, **options)
        x = torch.randn(ROWS, 2, WIDTH, requires_grad=True)
        mine = (own(x, 0, ctx) if sequence_parallel else x).detach().clone().requires_grad_()
        between = column(mine)
        close(between, own(first(x), 2, ctx))
        y, expected = row(between.sin()), second(first(x).sin())
        close(y, own(expected, 0, ctx) if sequence_parallel else expected)
        y.square().sum().backward()
        expected.square().sum().backward()
        close(mine.grad, own(x.grad, 0, ctx) if sequence_parallel else x.grad)
        parameters_are_parts(column, first, ctx)
        parameters_are_parts(row, second, ctx)
        with torch.no_grad():
            close(row(column(mine).sin()), y)


@pytest.mark.parametrize("compiled", [False, True])
@ranks(2, 3, deadline=240)
def test_gathered_output_and_whole_input(ctx, compiled):
    """All ranks have the whole tensor between the layers, and its one gradient."""
    iris_c.torch.register(ctx)
    for hidden, sequence_parallel in ((6, False), (5, False), (1, False), (5, True)):
        first, second = linear(WIDTH, hidden), linear(hidden, WIDTH)
        options = {"sequence_parallel": sequence_parallel}
        column = ColumnParallelLinear.from_linear(first, gather_output=True, **options)
        row = RowParallelLinear.from_linear(second, input_is_parallel=False, **options)
        model = nn.Sequential(column, nn.GELU(), row)
        if compiled:
            model = torch.compile(model, fullgraph=True, backend="aot_eager")
        x = torch.randn(ROWS, 2, WIDTH, requires_grad=True)
        mine = (own(x, 0, ctx) if sequence_parallel else x).detach().clone().requires_grad_()
        between = column(mine)
        assert between.is_contiguous()
        close(between, first(x))
        y, expected = model(mine), second(nn.functional.gelu(first(x)))
        close(y, own(expected, 0, ctx) if sequence_parallel else expected)
        y.square().sum().backward()
        expected.square().sum().backward()
        close(mine.grad, own(x.grad, 0, ctx) if sequence_parallel else x.grad)
        parameters_are_parts(column, first, ctx)
        parameters_are_parts(row, second, ctx)
    with pytest.raises(ValueError, match=r"x: expected a last dimension of 5, got shape \(2, 4\)"):
        row(torch.zeros(2, 4))


@ranks(2, deadline=120)
def test_empty_batches_of_uneven_layers(ctx):
    iris_c.torch.register(ctx)
    first, second = linear(WIDTH, 3), linear(3, WIDTH)
    for gathered in (False, True):
        column = ColumnParallelLinear.from_linear(first, gather_output=gathered)
        row = RowParallelLinear.from_linear(second, input_is_parallel=not gathered)
        x = torch.randn(0, WIDTH, requires_grad=True)
        y = row(column(x))
        assert y.shape == (0, WIDTH)
        y.sum().backward()
        assert x.grad.shape == (0, WIDTH)
        for parameter in (*column.parameters(), *row.parameters()):
            assert parameter.grad.shape == parameter.shape
            assert not parameter.grad.any()
