# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Layers with sequence_parallel: along any dimension, in parts of any sizes, against torch's."""

import pytest
import torch
from torch import nn

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    _parts,
    sequence_parallel,
)

WIDTH, HIDDEN, BATCH = 8, 16, 3


def models(sequence_dim=0, **options):
    torch.manual_seed(3)
    whole = nn.Sequential(
        nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH)
    )
    place = {"sequence_parallel": True, "sequence_dim": sequence_dim}
    model = nn.Sequential(
        nn.LayerNorm(WIDTH),
        ColumnParallelLinear.from_linear(whole[1], **place, **options),
        nn.GELU(),
        RowParallelLinear.from_linear(whole[3], **place),
    )
    sequence_parallel(model)
    return whole, model


def sizes_of(total, world):
    """As torch.chunk divides, with nothing for the ranks that it has no chunk for."""
    sizes = [x.shape[0] for x in torch.empty(total, 1).chunk(world)]
    return sizes + [0] * (world - len(sizes)) if total else [0] * world


def part(tensor, ctx, dim, sizes=None):
    if dim is None:
        return tensor
    return tensor.split(sizes or sizes_of(tensor.shape[dim], ctx.world_size), dim)[ctx.rank]


def is_close(got, expected):
    bound = 1e-4 * max(1.0, expected.abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(got.detach(), expected.detach(), rtol=1e-4, atol=bound)


def check_parameters(whole, model, ctx):
    dims = {"1.weight": 0, "1.bias": 0, "3.weight": 1}
    for (name, p), mine in zip(whole.named_parameters(), model.parameters(), strict=True):
        is_close(mine.grad, part(p.grad, ctx, dims.get(name)))
        mine.grad = p.grad = None


def drawn(shape):
    torch.manual_seed(sum(shape))
    return torch.randn(shape), torch.randn(shape)


def check(whole, run, model, ctx, shape, dim):
    """The result, and gradients of the input and the parameters."""
    x, weights = drawn(shape)
    x.requires_grad_()
    mine = part(x.detach(), ctx, dim).clone().requires_grad_()
    expected, y = whole(x), run(mine)
    is_close(y, part(expected, ctx, dim))
    assert y.is_contiguous()
    (expected * weights).sum().backward()
    (y * part(weights, ctx, dim)).sum().backward()
    is_close(mine.grad, part(x.grad, ctx, dim))
    check_parameters(whole, model, ctx)
    with torch.no_grad():
        is_close(run(part(x, ctx, dim)), part(expected, ctx, dim))


@ranks(1, 2, 4, deadline=180)
def test_any_dimension_and_number_of_tokens(ctx):
    """13 tokens of 4 ranks are 4, 4, 4 and 1; 5 are 2, 2, 1 and none."""
    iris_c.torch.register(ctx)
    for dim in (0, 1, 2, -2, -3):
        whole, model = models(dim)
        for tokens in (13, 5, 1, 0, 8):
            lead = [2, BATCH, 2]
            place = dim if dim >= 0 else dim + 4
            lead[place] = tokens
            check(whole, model, model, ctx, (*lead, WIDTH), place)
    whole, model = models()
    assert sizes_of(13, 4) == [4, 4, 4, 1]
    for tokens in (13, 5, 1, 0, 8):
        check(whole, model, model, ctx, (tokens, WIDTH), 0)  # a matrix
        check(whole, model, model, ctx, (tokens, 0, WIDTH), 0)  # of no batch
    whole, model = models(-2)
    check(whole, model, model, ctx, (7, WIDTH), 0)
    table = nn.Embedding(9, WIDTH)
    for dim, shape in ((0, (13, BATCH)), (1, (BATCH, 5)), (-2, (BATCH, 1)), (0, (3,)), (0, (0, 2))):
        ids = torch.arange(torch.Size(shape).numel()).view(shape) % 9
        own = VocabParallelEmbedding.from_embedding(table, sequence_parallel=True, sequence_dim=dim)
        expected, y = table(ids), own(ids)
        place = dim if dim >= 0 else len(shape) - 1
        is_close(y, part(expected, ctx, place))
        (table.weight.grad,) = torch.autograd.grad(expected.sin().sum(), table.weight)
        y.sin().sum().backward()
        is_close(own.weight.grad, part(table.weight.grad, ctx, 0))


@ranks(2, deadline=120)
def test_layouts_of_a_pair(ctx):
    """Between the layers tokens stay where the ranks exchange them: nothing is copied there."""
    iris_c.torch.register(ctx)
    _, model = models(1)
    y = model[1](torch.randn(BATCH, 4, WIDTH))
    assert y.shape == (BATCH, 8, HIDDEN // 2)
    assert y.transpose(0, 1).is_contiguous()
    rows, _ = model[3]._rows(model[2](y), HIDDEN // 2)
    assert rows.is_contiguous()
    assert model[2](y).transpose(0, 1).is_contiguous()


@ranks(3, deadline=120)
def test_parts_that_are_no_chunks(ctx, monkeypatch):
    """Sizes that the hosts tell each other, or that the layer is told and nobody else."""
    iris_c.torch.register(ctx)
    told, real = [], _parts._told
    monkeypatch.setattr(_parts, "_told", lambda *given: told.append(given) or real(*given))
    for sizes in ([2, 0, 3], [0, 0, 4], [1, 5, 1]):
        for options in ({}, {"sequence_sizes": sizes}):
            whole, model = models(**options)
            x, _ = drawn((sum(sizes), BATCH, WIDTH))
            expected = whole[1](whole[0](x))
            y = model[1](model[0](part(x, ctx, 0, sizes)))
            is_close(y, part(expected, ctx, 2))
            y.square().sum().backward()
            expected.square().sum().backward()
            is_close(model[1].weight.grad, part(whole[1].weight.grad, ctx, 0))
            is_close(model[0].weight.grad, whole[0].weight.grad)
            assert len(told) == (not options)
            told.clear()
    whole, model = models(sequence_sizes="equal")
    check(whole, model, model, ctx, (6, BATCH, WIDTH), 0)
    assert not told
    with pytest.raises(ValueError, match="the ranks called different operations"):
        model(torch.ones(2 if ctx.rank else 1, WIDTH))
    check(whole, model, model, ctx, (6, BATCH, WIDTH), 0)
    model[1].sequence_sizes = None
    check(whole, model, model, ctx, (7, BATCH, WIDTH), 0)


@ranks(2, deadline=240)
def test_compiled(ctx):
    """Parts count as equal, unless their sizes are told; no rank goes on with wrong ones."""
    iris_c.torch.register(ctx)
    for dim in (0, 1):
        whole, model = models(dim)
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
        for tokens in (6, 8):
            shape = (tokens, BATCH) if dim == 0 else (BATCH, tokens)
            check(whole, compiled, model, ctx, (*shape, WIDTH), dim)
        with pytest.raises(ValueError, match="the ranks called different operations"):
            compiled(part(drawn((7, 7, WIDTH))[0], ctx, dim))
        model[1].sequence_sizes = [4, 3]
        shape = (7, BATCH) if dim == 0 else (BATCH, 7)
        check(whole, compiled, model, ctx, (*shape, WIDTH), dim)


@ranks(2, deadline=120)
def test_gradients_of_gradients(ctx):
    iris_c.torch.register(ctx)
    for dim, shape in ((0, (5, BATCH, WIDTH)), (1, (BATCH, 5, WIDTH))):
        whole, model = models(dim)
        x, weights = drawn(shape)
        results = []
        for run, given, factor in (
            (whole, x, weights),
            (model, part(x, ctx, dim), part(weights, ctx, dim)),
        ):
            tensors = [given.clone().requires_grad_(), *run.parameters()]
            number = (run(tensors[0]).sin() * factor).sum()
            grads = torch.autograd.grad(number, tensors, create_graph=True)
            penalty = sum(g.square().sum() for g in grads) / 100
            results.append(torch.autograd.grad(penalty, tensors))
        dims = [dim, None, None, 0, 0, 1, None]
        for reference, mine, place in zip(*results, dims, strict=True):
            is_close(mine, part(reference, ctx, place))


@ranks(2)
def test_mistakes_are_named(ctx):
    iris_c.torch.register(ctx)
    for kind in (ColumnParallelLinear, RowParallelLinear):
        with pytest.raises(TypeError, match="sequence_dim: expected an int, got bool"):
            kind(4, 4, sequence_dim=True)
        with pytest.raises(ValueError, match="sequence_dim: expected another dimension than the"):
            kind(4, 4, sequence_dim=-1)
        width = 4 if kind is ColumnParallelLinear else 2
        for dim, least in ((1, 3), (-3, 3), (2, 4)):
            layer = kind(4, 4, sequence_parallel=True, sequence_dim=dim)
            message = f"x: expected {least} or more .*sequence_dim={dim}, got shape"
            with pytest.raises(ValueError, match=message):
                layer(torch.ones(2, width))
        assert "sequence_dim=2" in repr(layer)
    table = VocabParallelEmbedding(4, 4, sequence_parallel=True, sequence_dim=1)
    with pytest.raises(ValueError, match=r"input: expected 2 or more .*sequence_dim=1, got shape"):
        table(torch.zeros(2, dtype=torch.int64))
    layer = ColumnParallelLinear(4, 4, sequence_parallel=True, sequence_sizes=[1, 2])
    with pytest.raises(ValueError, match="sizes: expected 2 sizes, one of each rank"):
        layer(torch.ones(3, 4))
    layer.sequence_sizes = "even"
    with pytest.raises(ValueError, match="sizes: expected sizes, None or 'equal', got 'even'"):
        layer(torch.ones(3, 4))
