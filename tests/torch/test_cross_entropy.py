# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Cross entropy of divided logits against torch's: results, derivatives, what is exchanged."""

import itertools

import pytest
import torch
from descriptors import ON_GPU
from torch.autograd import forward_ad
from torch.nn.functional import cross_entropy

import iris_c.torch
from iris_c.testing import ranks
from iris_c.torch import _groups, vocab_parallel_cross_entropy

ROWS = 6
IGNORED = -100


def sizes_of(world):
    """Ways to divide a vocabulary: evenly, as torch.chunk does, with a part of nothing."""
    return [[5] * world, [5] * (world - 1) + [2], [3] * (world - 1) + [0], [0] + [4] * (world - 1)]


def drawn(*shape, salt=0):
    """The same on all ranks."""
    generator = torch.Generator().manual_seed(sum(shape) + salt)
    values = torch.randn(shape, generator=generator, device="cpu")
    return torch.empty(shape).copy_(values)


def targets(classes, shape=(ROWS,)):
    generator = torch.Generator().manual_seed(classes)
    values = torch.randint(classes, shape, generator=generator, device="cpu")
    return torch.empty(shape, dtype=torch.int64).copy_(values)


def own(tensor, sizes, ctx):
    return tensor.split(sizes, -1)[ctx.rank]


def leaf(tensor, sizes, ctx):
    return own(tensor.detach(), sizes, ctx).clone().requires_grad_()


def some_sizes(world):
    return [sizes for sizes in sizes_of(world) if sum(sizes) > 0]


@ranks(1, 2, 3, 4, deadline=180)
def test_results_and_gradients_are_torchs(ctx):
    iris_c.torch.register(ctx)
    for sizes in some_sizes(ctx.world_size):
        x, target = (3 * drawn(ROWS, sum(sizes))).requires_grad_(), targets(sum(sizes))
        target[2] = IGNORED
        options = itertools.product(
            ("mean", "sum", "none"), (0.0, 0.1, 1.0), (IGNORED, int(target[0]))
        )
        for reduction, smoothing, ignored in options:
            given = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": ignored}
            chosen = target.masked_fill(target == IGNORED, ignored)
            mine = leaf(x, sizes, ctx)
            expected = cross_entropy(x, chosen, **given)
            got = vocab_parallel_cross_entropy(mine, chosen, **given)
            torch.testing.assert_close(got, expected, msg=lambda m, g=given: f"{sizes} {g}: {m}")
            weights = drawn(*expected.shape, salt=1)
            (grad,) = torch.autograd.grad((expected * weights).sum(), x)
            (got,) = torch.autograd.grad((got * weights).sum(), mine)
            torch.testing.assert_close(
                got, own(grad, sizes, ctx), msg=lambda m, g=given: f"{sizes} {g}: {m}"
            )


@ranks(1, 2, 3, deadline=120)
def test_shapes_and_extreme_logits(ctx):
    iris_c.torch.register(ctx)
    sizes = [5] * (ctx.world_size - 1) + [3]
    classes = sum(sizes)
    for lead in ((), (4, 3), (0,), (2, 0, 3)):
        x, target = drawn(*lead, classes), targets(classes, lead)
        mine = leaf(x, sizes, ctx)
        got = vocab_parallel_cross_entropy(mine, target.int(), reduction="none", ctx=ctx)
        expected = cross_entropy(x.view(-1, classes), target.view(-1), reduction="none")
        torch.testing.assert_close(got, expected.view(lead))
        got.sum().backward()
        assert mine.grad.shape == mine.shape
        mean = vocab_parallel_cross_entropy(mine, target)
        assert mean.isnan() if target.numel() == 0 else mean.isfinite()
    x, target = drawn(ROWS, classes), targets(classes)
    for change in (
        lambda x: x + 30000.0,  # nothing is lost where all are large
        lambda x: 1000.0 * x,
        lambda x: x.masked_fill(torch.arange(classes) != target[:, None], float("-inf")),
        lambda x: x.masked_fill(torch.arange(classes) < sizes[0], float("-inf")),
        lambda x: x.masked_fill(torch.arange(classes) == 1, float("nan")),
    ):
        whole = change(x).requires_grad_()
        mine = leaf(whole, sizes, ctx)
        expected = cross_entropy(whole, target, reduction="none")
        got = vocab_parallel_cross_entropy(mine, target, reduction="none")
        torch.testing.assert_close(got, expected, equal_nan=True)
        expected.sum().backward()
        got.sum().backward()
        torch.testing.assert_close(mine.grad, own(whole.grad, sizes, ctx), equal_nan=True)
    nobody = torch.full((ROWS,), IGNORED)
    mine = leaf(x, sizes, ctx)
    loss = vocab_parallel_cross_entropy(mine, nobody)
    assert loss.isnan()
    loss.backward()
    assert not mine.grad.any()


@ranks(1, 2, 3, deadline=120)
def test_sixteen_bits_are_computed_in_float32(ctx):
    iris_c.torch.register(ctx)
    sizes = [50] * (ctx.world_size - 1) + [31]
    for dtype in (torch.float16, torch.bfloat16):
        x = (4 * drawn(ROWS, sum(sizes))).to(dtype)
        target = targets(sum(sizes))
        wide = x.float().requires_grad_()
        expected = cross_entropy(wide, target, label_smoothing=0.1)
        expected.backward()
        with torch.autocast(x.device.type, torch.bfloat16):
            mine = leaf(x, sizes, ctx)
            got = vocab_parallel_cross_entropy(mine, target, label_smoothing=0.1)
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, expected)
            got.backward()
        assert torch.equal(mine.grad, own(wide.grad, sizes, ctx).to(dtype)) or (
            (mine.grad.float() - own(wide.grad, sizes, ctx)).abs().max() < 1e-3
        )
        torch.testing.assert_close(mine.grad, own(wide.grad, sizes, ctx).to(dtype))


@ranks(2)
def test_float64_stays_so(ctx):
    """Also in derivatives, and forward mode: to its own rounding."""
    iris_c.torch.register(ctx)
    sizes = [5, 3]
    x, target = drawn(ROWS, 8).double().requires_grad_(), targets(8)
    mine = leaf(x, sizes, ctx)
    for smoothing in (0.0, 0.1):

        def torchs(x, smoothing=smoothing):
            return cross_entropy(x, target, label_smoothing=smoothing)

        def ours(x, smoothing=smoothing):
            return vocab_parallel_cross_entropy(x, target, label_smoothing=smoothing)

        close = {"rtol": 1e-13, "atol": 1e-15}
        torch.testing.assert_close(ours(mine), torchs(x), **close)
        expected = torch.func.grad(torchs)(x.detach())
        got = torch.func.grad(ours)(mine.detach())
        torch.testing.assert_close(got, own(expected, sizes, ctx), **close)
        _, expected = torch.func.jvp(torchs, (x.detach(),), (x.detach().sin(),))
        _, got = torch.func.jvp(ours, (mine.detach(),), (mine.detach().sin(),))
        torch.testing.assert_close(got, expected, **close)


@ranks(1, 2, 3, deadline=120)
def test_derivatives_of_any_order_and_mode(ctx):
    """The gradient of a gradient penalty, a tangent, and a tangent of a gradient."""
    iris_c.torch.register(ctx)
    for sizes in some_sizes(ctx.world_size):
        x, target = drawn(ROWS, sum(sizes)).requires_grad_(), targets(sum(sizes))
        target[1] = IGNORED
        for smoothing in (0.0, 0.3):
            mine = leaf(x, sizes, ctx)

            def torchs(x, target=target, smoothing=smoothing):
                return cross_entropy(x, target, label_smoothing=smoothing).sin()

            def ours(x, target=target, smoothing=smoothing):
                return vocab_parallel_cross_entropy(x, target, label_smoothing=smoothing).sin()

            penalties = []
            for run, at in ((torchs, x), (ours, mine)):
                number, grads = run(at), []
                for _ in range(3):
                    (grad,) = torch.autograd.grad(number, at, create_graph=True)
                    number = grad.sin().square().sum()
                    grads.append(grad.detach())
                penalties.append(grads)
            for expected, got in zip(*penalties, strict=True):
                torch.testing.assert_close(got, own(expected, sizes, ctx), rtol=1e-4, atol=1e-6)
            way = drawn(*x.shape, salt=2)
            _, expected = torch.func.jvp(torchs, (x.detach(),), (way,))
            given = (mine.detach(),), (own(way, sizes, ctx),)
            _, got = torch.func.jvp(ours, *given)
            torch.testing.assert_close(got, expected)
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(mine.detach(), own(way, sizes, ctx))
                torch.testing.assert_close(forward_ad.unpack_dual(ours(dual)).tangent, expected)
            _, expected = torch.func.jvp(torch.func.grad(torchs), (x.detach(),), (way,))
            _, got = torch.func.jvp(torch.func.grad(ours), *given)
            torch.testing.assert_close(got, own(expected, sizes, ctx), rtol=1e-4, atol=1e-6)


@ranks(2, 3, deadline=240)
def test_traces_and_compiles(ctx):
    iris_c.torch.register(ctx)
    sizes = [5] * (ctx.world_size - 1) + [2]
    x, target = drawn(ROWS, sum(sizes)), targets(sum(sizes))
    for smoothing in (0.0, 0.1):
        mine = leaf(x, sizes, ctx)
        torch.library.opcheck(
            torch.ops.iris_c.vocabulary_terms.default,
            (mine, target, IGNORED, smoothing > 0, "default"),
        )

        def loss(x, smoothing=smoothing):
            return vocab_parallel_cross_entropy(2 * x, target, label_smoothing=smoothing)

        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(mine), loss(mine))
        grads = [torch.autograd.grad(run(mine), mine) for run in (loss, compiled)]
        torch.testing.assert_close(*grads)


@ranks(2, 3)
def test_two_small_messages_are_all(ctx, monkeypatch):
    """Maxima with sizes, and sums; and a gradient needs none."""
    iris_c.torch.register(ctx)
    sent, real = [], ctx.ccl.all_reduce

    class Noted:
        def all_reduce(self, output, input, op="sum"):
            sent.append((op, input.numel()))
            return real(output, input, op)

    class Context:
        ccl, rank, world_size, closed = Noted(), ctx.rank, ctx.world_size, False

    monkeypatch.setitem(_groups._contexts, "default", Context)
    for smoothing, terms in ((0.0, 2), (0.1, 3)):
        sent.clear()
        x = drawn(ROWS, 4000).requires_grad_()
        loss = vocab_parallel_cross_entropy(x, targets(4000), label_smoothing=smoothing)
        assert sent == [("max", ROWS + ctx.world_size), ("sum", terms * ROWS)]
        loss.backward()
        assert len(sent) == 2


@ranks(2)
def test_mistakes_are_named(ctx):
    """On every rank, and the context goes on."""
    iris_c.torch.register(ctx)
    x, target = drawn(ROWS, 5), targets(5)
    loss = vocab_parallel_cross_entropy
    # On GPUs what is no class is a device-side assertion, after which the process has no device.
    for wrong in () if ON_GPU else (10, -1, 1 << 40):
        bad = target.clone()
        bad[3] = wrong
        with pytest.raises(
            IndexError, match=f"target: expected 0 to 9 or ignore_index -100, got {wrong}"
        ):
            loss(x, bad)
    for dtype in (torch.complex64, torch.int64):
        with pytest.raises(TypeError, match="logits_shard: expected float32, float64, float16 or"):
            loss(x.to(dtype), target)
    for dtype in (torch.float32, torch.bool, torch.uint8):
        with pytest.raises(TypeError, match="target: expected int64 or int32, got"):
            loss(x, target.to(dtype))
    for shape in ((ROWS, 5), (ROWS - 1,), ()):
        with pytest.raises(ValueError, match="target: expected the shape of logits_shard without"):
            loss(x, torch.zeros(shape, dtype=torch.int64))
    for smoothing in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="label_smoothing: expected 0 to 1, got"):
            loss(x, target, label_smoothing=smoothing)
    with pytest.raises(ValueError, match="reduction: expected 'mean', 'sum' or 'none', got 'max'"):
        loss(x, target, reduction="max")
    with pytest.raises(ValueError, match="group: expected the name of a context"):
        loss(x, target, ctx="unknown")
    assert loss(x, target).isfinite()
