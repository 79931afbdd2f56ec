# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""fuse_inputs: one exchange for layers of one input, and never a result of something else."""

import copy
import gc

import pytest
import torch
from noted_calls import noted_calls
from process_groups import DEVICE
from torch import nn
from torch.utils.checkpoint import checkpoint

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import ColumnParallelLinear, RowParallelLinear, fuse_inputs

WIDTH, TOKENS = 8, 6
GATHER, SCATTER, SUM = "all_gather_matmul_hbm_buffer", "matmul_reduce_scatter", "matmul_all_reduce"


class Heads(nn.Module):
    """Three layers of one input, of two widths."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(4)
        self.q = ColumnParallelLinear(WIDTH, 8, **options)
        self.k = ColumnParallelLinear(WIDTH, 4, bias=False, **options)
        self.v = ColumnParallelLinear(WIDTH, 4, **options)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return torch.cat([q.sin(), k * v], -1)


def pair(**options):
    """Alike, one of them fused."""
    alone, fused = Heads(**options), Heads(**options)
    return alone, fused, fuse_inputs(fused.q, fused.k, fused.v)


def are_equal(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@ranks(1, 2, 3, deadline=120)
def test_results_and_gradients_are_the_layers_own(ctx, monkeypatch):
    """With one exchange each way; tokens in parts of any sizes too."""
    iris_c.torch.register(ctx)
    calls = noted_calls(monkeypatch)
    for sequence_parallel in (False, True):
        alone, fused, _ = pair(sequence_parallel=sequence_parallel)
        assert list(fused.state_dict()) == list(alone.state_dict())
        assert len(list(fused.modules())) == 4
        for turn in range(3):
            tokens = TOKENS + (turn and ctx.rank)
            x = torch.randn(tokens if sequence_parallel else TOKENS, 2, WIDTH)
            results = []
            for model in (alone, fused):
                mine = x.clone().requires_grad_()
                calls.clear()
                y = model(mine)
                y.sum().backward()
                results.append([y, mine.grad, *(p.grad for p in model.parameters())])
            assert calls == ([GATHER, SCATTER] if sequence_parallel else [SUM])
            assert fused.q._shared._kept is None
            for got, expected in zip(*results, strict=True):
                are_equal(got, expected)
    first, second = fused(x), copy.deepcopy(fused)(x)
    assert torch.equal(first, second)


@ranks(2, deadline=120)
def test_nothing_stale_is_handed_out(ctx, monkeypatch):
    iris_c.torch.register(ctx)
    calls = noted_calls(monkeypatch)
    alone, fused, handle = pair(sequence_parallel=True)
    x = torch.randn(TOKENS, WIDTH)

    def check(name, given, exchanges):
        calls.clear()
        got = getattr(fused, name)(given)
        assert calls == [GATHER] * exchanges, name
        are_equal(got, getattr(alone, name)(given))
        return got

    for order in ("qkv", "vkq", "kqv"):
        for i, name in enumerate(order):
            check(name, x, i == 0)
    # The same once more; another one, though equal; that one changed.
    check("q", x, 1)
    check("q", x, 1)
    check("k", x.clone(), 1)
    check("q", x, 1)
    x.add_(1)
    check("k", x, 1)
    check("v", x, 0)
    check("q", x, 0)
    # Another mode, with and without gradients; parameters that have changed, or others.
    check("q", x, 1)
    with torch.no_grad():
        assert not check("k", x, 1).requires_grad
    assert check("v", x, 1).requires_grad
    for model in (alone, fused):
        with torch.no_grad():
            model.k.weight.mul_(2)
    check("k", x, 1)
    for model in (alone, fused):
        model.q.weight = nn.Parameter(model.q.weight.detach() + 1)
    check("q", x, 1)
    check("v", x, 0)
    fused.k.weight.requires_grad_(False)
    check("k", x, 1)
    fused.k.weight.requires_grad_(True)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert fused.q(x).dtype == torch.bfloat16
    assert check("k", x, 1).dtype == torch.float32
    # In inference mode each for itself; after an error, as if nothing had been.
    with torch.inference_mode():
        inside = x + 1
        for name in "qkv":
            check(name, inside, 1)
        inside.add_(1)
        check("k", inside, 1)
    with pytest.raises(ValueError, match="x: expected a last dimension of 8"):
        fused.q(torch.ones(2, 3))
    check("q", x, 1)
    # What nobody asks for goes with its input.
    kept = fused.q._shared._kept
    with torch.no_grad():
        gone = torch.randn(TOKENS, WIDTH)
        check("q", gone, 1)
        kept = fused.q._shared._kept
        assert len(kept.outputs) == 2
        del gone
        gc.collect()
        assert not kept.outputs
    handle.remove()
    for name in "qkv":
        check(name, x, 1)


@ranks(2, deadline=180)
def test_checkpoints_and_compilation(ctx):
    """Also a checkpoint around some of the layers, whose input the others have outside."""
    iris_c.torch.register(ctx)
    alone, fused, _ = pair(sequence_parallel=True)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")

    def partly(model, x):
        q = checkpoint(lambda x: model.q(x).sin() * model.v(x).sum(), x, use_reentrant=False)
        return torch.cat([q, model.k(x)], -1)

    runs = [
        (alone, fused),
        *((alone, lambda x, r=r: checkpoint(fused, x, use_reentrant=r)) for r in (False, True)),
        (lambda x: partly(alone, x), lambda x: partly(fused, x)),
        (alone, compiled),
        (alone, lambda x: torch.func.functional_call(fused, dict(fused.named_parameters()), (x,))),
    ]
    for reference, run in runs:
        x = torch.randn(TOKENS, WIDTH)
        results = []
        for model, function in ((alone, reference), (fused, run)):
            mine = x.clone().requires_grad_()
            for _ in range(2):
                y = function(mine)
                y.square().sum().backward()
            results.append([y, mine.grad, *(p.grad for p in model.parameters())])
            model.zero_grad()
        for got, expected in zip(*results, strict=True):
            are_equal(got, expected)


@ranks(2)
def test_mistakes_are_named(ctx):
    iris_c.torch.register(ctx)
    a, b = (ColumnParallelLinear(WIDTH, 4) for _ in range(2))
    with pytest.raises(ValueError, match="layers: expected two or more, got 1"):
        fuse_inputs(a)
    with pytest.raises(ValueError, match="layers: expected different ones, got one twice"):
        fuse_inputs(a, a)
    for wrong in (nn.Linear(WIDTH, 4), RowParallelLinear(WIDTH, 4)):
        with pytest.raises(TypeError, match="layers: expected ColumnParallelLinear, got"):
            fuse_inputs(a, wrong)
    for name, other in (
        ("in_features", ColumnParallelLinear(4, 4)),
        ("sequence_parallel", ColumnParallelLinear(WIDTH, 4, sequence_parallel=True)),
        ("sequence_dim", ColumnParallelLinear(WIDTH, 4, sequence_dim=1)),
    ):
        with pytest.raises(ValueError, match=f"layers: expected one {name}, got"):
            fuse_inputs(a, other)
    fuse_inputs(a, b)
    with pytest.raises(ValueError, match="layers: expected some that share no input yet"):
        fuse_inputs(a, ColumnParallelLinear(WIDTH, 4))
