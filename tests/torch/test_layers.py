# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tensor-parallel layers against torch.nn.Linear: results, gradients, training, state."""

import warnings

import pytest
import torch
from torch import nn

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import ColumnParallelLinear, RowParallelLinear, _operations

WIDTH, HIDDEN, TOKENS, BATCH = 24, 48, 12, 3


def whole_model(bias=True):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN, bias), nn.GELU(), nn.Linear(HIDDEN, WIDTH, bias))


def parallel_model(whole, ctx, sequence_parallel):
    options = {"ctx": ctx, "sequence_parallel": sequence_parallel}
    return nn.Sequential(
        ColumnParallelLinear.from_linear(whole[0], **options),
        nn.GELU(),
        RowParallelLinear.from_linear(whole[2], **options),
    )


def part(tensor, ctx, dim):
    return tensor.chunk(ctx.world_size, dim)[ctx.rank]


def expected_gradients(whole, ctx):
    """Of this rank's parameters."""
    dims = {"0.weight": 0, "0.bias": 0, "2.weight": 1, "2.bias": None}
    return {
        name: p.grad if dims[name] is None else part(p.grad, ctx, dims[name])
        for name, p in whole.named_parameters()
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sequence_parallel", [False, True])
@ranks(1, 2, 3, deadline=120)
def test_results_and_gradients_are_the_whole_models(ctx, sequence_parallel, bias):
    iris_c.torch.register(ctx)
    whole = whole_model(bias)
    model = parallel_model(whole, ctx, sequence_parallel)
    x = torch.randn(TOKENS, BATCH, WIDTH, requires_grad=True)
    weights = torch.randn(TOKENS, BATCH, WIDTH)
    (whole(x) * weights).sum().backward()
    mine, upstream = x.detach(), weights
    if sequence_parallel:
        mine, upstream = part(mine, ctx, 0), part(weights, ctx, 0)
    mine = mine.clone().requires_grad_()
    y = model(mine)
    expected = whole(x).detach()
    torch.testing.assert_close(
        y, part(expected, ctx, 0) if sequence_parallel else expected, rtol=1e-4, atol=1e-5
    )
    (y * upstream).sum().backward()
    grad = part(x.grad, ctx, 0) if sequence_parallel else x.grad
    torch.testing.assert_close(mine.grad, grad, rtol=1e-4, atol=1e-4)
    expected = expected_gradients(whole, ctx)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sequence_parallel", [False, True])
@ranks(1, 2, 3, deadline=120)
def test_gradient_penalties_are_the_whole_models(ctx, sequence_parallel):
    """Of the input's gradients and the parameters', once and of the penalty once more."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole, ctx, sequence_parallel)
    x, weights = torch.randn(TOKENS, BATCH, WIDTH), torch.randn(TOKENS, BATCH, WIDTH)
    dims = [0 if sequence_parallel else None, 0, 0, 1, None]  # x and the parameters

    def derivatives(model, x, weights):
        tensors = [x.clone().requires_grad_(), *model.parameters()]
        number = (model(tensors[0]).sin() * weights).sum()
        for _ in range(2):
            grads = torch.autograd.grad(number, tensors, create_graph=True)
            number = sum(g.square().sum() for g in grads) / 100
            yield from grads
        yield from torch.autograd.grad(number, tensors)

    expected = list(derivatives(whole, x, weights))
    if sequence_parallel:
        x, weights = part(x, ctx, 0), part(weights, ctx, 0)
    for got, reference, dim in zip(derivatives(model, x, weights), expected, 3 * dims, strict=True):
        own = reference if dim is None else part(reference, ctx, dim)
        bound = 1e-4 * max(1.0, reference.abs().max().item())
        torch.testing.assert_close(got.detach(), own.detach(), rtol=1e-4, atol=bound)


def batches_without_rows(sequence_parallel, world):
    """Dimensions but the last, which are divided along the first with sequence_parallel."""
    if sequence_parallel:
        return [(0,), (0, BATCH), (2 * world, 0), (0, 0, BATCH)]
    return [(0,), (BATCH, 0), (0, BATCH), (2, 0, BATCH)]


@pytest.mark.parametrize("run", ["eager", "compiled", "autocast"])
@pytest.mark.parametrize("sequence_parallel", [False, True])
@ranks(1, 2, deadline=240)
def test_batches_of_no_rows(ctx, sequence_parallel, run):
    """As torch.nn.Linear: results and gradients of the right shapes, zeros in the parameters'."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole, ctx, sequence_parallel)
    if run == "compiled":
        model = torch.compile(model, fullgraph=True, backend="aot_eager")
    for lead in batches_without_rows(sequence_parallel, ctx.world_size):
        x = torch.randn(*lead, WIDTH)
        mine = (part(x, ctx, 0) if sequence_parallel else x).requires_grad_()
        whole.zero_grad()
        model.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=run == "autocast"):
            expected, y = whole(x), model(mine)
        assert y.dtype == expected.dtype
        assert y.shape == (part(expected, ctx, 0) if sequence_parallel else expected).shape
        expected.sum().backward()
        y.sum().backward()
        assert mine.grad.shape == mine.shape
        wanted = expected_gradients(whole, ctx)
        for name, p in model.named_parameters():
            assert torch.equal(p.grad, wanted[name.removeprefix("_orig_mod.")])
            assert not p.grad.any()


@ranks(1, 2)
def test_inputs_of_few_dimensions(ctx):
    """One row without a dimension for it, as torch.nn.Linear takes; no features at all."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    x = torch.randn(WIDTH)
    torch.testing.assert_close(parallel_model(whole, ctx, False)(x), whole(x), rtol=1e-4, atol=1e-5)
    for layer in parallel_model(whole, ctx, True)[::2]:
        with pytest.raises(ValueError, match="x: expected 2 or more dimensions with sequence_para"):
            layer(x)
    for layer in parallel_model(whole, ctx, False)[::2]:
        with pytest.raises(ValueError, match="x: expected 1 or more dimensions with sequence_para"):
            layer(torch.tensor(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's initialization
        none = nn.Linear(0, WIDTH)
    for kind in (ColumnParallelLinear, RowParallelLinear):
        y = kind.from_linear(none)(torch.empty(BATCH, 0))
        expected = none(torch.empty(BATCH, 0))
        torch.testing.assert_close(
            y, part(expected, ctx, 1) if kind is ColumnParallelLinear else expected
        )


@ranks(2, deadline=120)
def test_training_stays_the_whole_models(ctx):
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole, ctx, True)
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (whole, model)]
    for _ in range(5):
        x, target = torch.randn(TOKENS, WIDTH), torch.randn(TOKENS, WIDTH)
        nn.functional.mse_loss(whole(x), target, reduction="sum").backward()
        own = (part(tensor, ctx, 0) for tensor in (x, target))
        y, wanted = model(next(own)), next(own)
        nn.functional.mse_loss(y, wanted, reduction="sum").backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(model[0].weight, part(whole[0].weight, ctx, 0), atol=1e-4, rtol=0)
    torch.testing.assert_close(model[2].weight, part(whole[2].weight, ctx, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(model[2].bias, whole[2].bias, atol=1e-4, rtol=0)


@ranks(2)
def test_state_is_taken_whole_or_in_parts(ctx):
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole_model(), ctx, False)
    for p in model.parameters():
        nn.init.zeros_(p)
    parts = parallel_model(whole, ctx, False).state_dict()
    for state in (whole.state_dict(), parts):
        model.load_state_dict(state)
        for name, p in model.state_dict().items():
            assert torch.equal(p, parts[name]), name
        for p in model.parameters():
            nn.init.zeros_(p)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        model[0].load_state_dict({"weight": torch.zeros(5, 5), "bias": torch.zeros(HIDDEN)})


@ranks(2)
def test_equal_generators_make_parts_of_one_layer(ctx):
    iris_c.torch.register(ctx)
    torch.manual_seed(7)
    layer = RowParallelLinear(WIDTH, HIDDEN, ctx=ctx)
    torch.manual_seed(7)
    whole = nn.Linear(WIDTH, HIDDEN)
    assert torch.equal(layer.weight, part(whole.weight, ctx, 1))
    assert torch.equal(layer.bias, whole.bias)
    assert "world_size=2" in repr(layer)


@ranks(2)
def test_what_is_frozen_stays_so(ctx):
    """And what is not gets its gradient through it."""
    iris_c.torch.register(ctx)
    whole = whole_model().eval()
    whole[2].weight.requires_grad_(False)
    for sequence_parallel in (False, True):
        model = parallel_model(whole, ctx, sequence_parallel)
        assert not model[2].training
        model(torch.randn(TOKENS, WIDTH)).sum().backward()
        without = {name for name, p in model.named_parameters() if p.grad is None}
        assert without == {"2.weight"}


@ranks(2, deadline=180)
def test_compiles(ctx):
    iris_c.torch.register(ctx)
    for sequence_parallel in (False, True):
        model = parallel_model(whole_model(), ctx, sequence_parallel)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        x = torch.randn(TOKENS, WIDTH)
        torch.testing.assert_close(compiled(x), model(x))


def noted_gathers(monkeypatch):
    """Of each gathered product that runs: whether its joined operand is stored."""
    found, real = [], _operations.ops

    class Noted:
        def __init__(self, ops):
            self.ops = ops

        def __getattr__(self, name):
            operation = getattr(self.ops, name)
            if name != "all_gather_matmul_hbm_buffer":
                return operation

            def noted(*args, **options):
                found.append(options.get("A_gathered") is not None)
                return operation(*args, **options)

            return noted

    monkeypatch.setattr(_operations, "ops", {"default": Noted(real["default"])})
    return found


@pytest.mark.parametrize("compiled", [False, True])
@ranks(2, deadline=240)
def test_joined_operands_are_stored_for_gradients_of_weights_alone(ctx, monkeypatch, compiled):
    """Not where the layer merely runs, in whatever mode, nor for a weight that is frozen."""
    iris_c.torch.register(ctx)
    stored = noted_gathers(monkeypatch)
    whole = whole_model()
    model = parallel_model(whole, ctx, True)
    run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    x = torch.randn(TOKENS, WIDTH)
    mine = part(x, ctx, 0)
    expected = part(whole(x).detach(), ctx, 0)
    for mode, gradients in ((torch.enable_grad, True), (torch.no_grad, False),
                            (torch.inference_mode, False), (torch.enable_grad, True)):  # fmt: skip
        stored.clear()
        with mode():
            y = run(mine)
        assert stored == [gradients], mode
        assert y.requires_grad == gradients
        torch.testing.assert_close(y.detach(), expected, rtol=1e-4, atol=1e-5)
    for parameters in (whole.parameters(), model.parameters()):
        for parameter in parameters:
            parameter.requires_grad_(False)
    stored.clear()
    x, mine = x.requires_grad_(), mine.detach().requires_grad_()
    y, whole_y = run(mine), whole(x)
    y.sum().backward()
    whole_y.sum().backward()
    assert stored == [False, False]  # the row-parallel layer gathers its gradient
    torch.testing.assert_close(y, part(whole_y, ctx, 0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.grad, part(x.grad, ctx, 0), rtol=1e-4, atol=1e-4)


@ranks(2, deadline=120)
def test_functional_gradients_of_layers(ctx):
    """Of parameters that torch.func hands in, which are frozen or not as it sees fit."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    model = parallel_model(whole, ctx, True)
    x = torch.randn(TOKENS, WIDTH)
    whole(x).sum().backward()
    expected = expected_gradients(whole, ctx)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    mine = part(x, ctx, 0)
    gradients = torch.func.grad(
        lambda given: torch.func.functional_call(model, given, (mine,)).sum()
    )(parameters)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4)


@ranks(2, deadline=120)
def test_autocast(ctx):
    """Products in its dtype, parameters and their gradients as they are: as torch's layers."""
    iris_c.torch.register(ctx)
    whole = whole_model()
    x = torch.randn(TOKENS, WIDTH)
    for sequence_parallel in (False, True):
        model = parallel_model(whole, ctx, sequence_parallel)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        mine = part(x, ctx, 0) if sequence_parallel else x
        with torch.autocast(x.device.type, torch.bfloat16):
            expected = whole(x)
            for run in (model, compiled):
                y = run(run(mine))  # takes, and gives, what is in that dtype
                assert y.dtype == torch.bfloat16
                y.sum().backward()
                assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
                torch.testing.assert_close(
                    run(mine), part(expected, ctx, 0) if sequence_parallel else expected,
                    rtol=3e-2, atol=3e-2,
                )  # fmt: skip


@ranks(2)
def test_mistakes_are_named(ctx):
    iris_c.torch.register(ctx)
    with pytest.raises(ValueError, match=r"x: expected a last dimension of 4, got shape \(3, 2\)"):
        ColumnParallelLinear(4, 5, ctx=ctx)(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"x: expected a last dimension of 2, got shape \(3, 4\)"):
        RowParallelLinear(4, 5, ctx=ctx)(torch.zeros(3, 4))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@ranks(2)
def test_what_is_no_whole_linear_layer_is_not_taken(ctx):
    iris_c.torch.register(ctx)
    column = ColumnParallelLinear(4, 6)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    for given, error, message in (
        (nn.Conv1d(4, 6, 1), TypeError, r"expected a torch\.nn\.Linear, got Conv1d"),
        (column, TypeError, r"expected a whole torch\.nn\.Linear, got a ColumnParallelLinear"),
        (Doubled(4, 6), TypeError, r"expected one that computes .* got Doubled, which"),
        (normed, ValueError, r"expected parameters, got a weight that is computed \(by param"),
        (nn.LazyLinear(4), ValueError, r"expected parameters, got a weight that has no shape"),
    ):
        for kind in (ColumnParallelLinear, RowParallelLinear):
            with pytest.raises(error, match=f"linear: {message}"):
                kind.from_linear(given)
    nn.utils.parametrize.remove_parametrizations(normed, "weight")
    torch.testing.assert_close(
        ColumnParallelLinear.from_linear(normed)(torch.ones(2, 4)),
        part(normed(torch.ones(2, 4)), ctx, 1),
    )
