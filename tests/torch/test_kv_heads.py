# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Attention whose key and value heads are fewer than the ranks, against the whole module's."""

import contextlib

import pytest
import torch
from process_groups import distributed, starts_ranks
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import iris_c.torch
from iris_c.testing import ranks, run_ranks
from iris_c.torch import ColumnParallelLinear, KVParallelLinear, RowParallelLinear

WIDTH, HEAD, TOKENS, BATCH = 12, 4, 12, 2
NAMES = ("q", "k", "v", "o")


class Attention(nn.Module):
    """Of (tokens, batch, width): heads from the weights' sizes."""

    def __init__(self, q, k, v, o):
        super().__init__()
        self.q, self.k, self.v, self.o = q, k, v, o

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (-1, HEAD)).permute(1, 2, 0, 3) for p in
                   (self.q, self.k, self.v))  # fmt: skip
        y = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(y.permute(2, 0, 1, 3).flatten(2))


def whole_attention(query_heads, heads, bias=True):
    torch.manual_seed(5)
    sizes = (query_heads * HEAD, heads * HEAD, heads * HEAD)
    return Attention(*(nn.Linear(WIDTH, size, bias) for size in sizes),
                     nn.Linear(query_heads * HEAD, WIDTH, bias))  # fmt: skip


def divided_attention(whole, heads, **options):
    return Attention(
        ColumnParallelLinear.from_linear(whole.q, **options),
        KVParallelLinear.from_linear(whole.k, heads=heads, **options),
        KVParallelLinear.from_linear(whole.v, heads=heads, **options),
        RowParallelLinear.from_linear(whole.o, **options),
    )


def own(ctx, name, tensor, heads):
    """This rank's part of a whole parameter."""
    layer, kind = name.split(".")
    if layer == "o":
        return tensor.chunk(ctx.world_size, 1)[ctx.rank] if kind == "weight" else tensor
    if layer == "q" or heads >= ctx.world_size:
        return tensor.chunk(ctx.world_size)[ctx.rank]
    return tensor.chunk(heads)[ctx.rank * heads // ctx.world_size]


def divisions(world):
    """Key and value heads of 2 * world query heads."""
    return [h for h in range(1, 2 * world + 1)
            if 2 * world % h == 0 and (world % h == 0 or h % world == 0)]  # fmt: skip


@pytest.mark.parametrize("sequence_parallel", [False, True])
@ranks(1, 2, 3, 4, deadline=180)
def test_results_and_gradients_are_the_whole_attentions(ctx, sequence_parallel):
    iris_c.torch.register(ctx)
    for heads in divisions(ctx.world_size):
        for bias in (True, False):
            whole = whole_attention(2 * ctx.world_size, heads, bias)
            model = divided_attention(whole, heads, sequence_parallel=sequence_parallel)
            assert model.k.copies == max(1, ctx.world_size // heads)
            for name, p in model.named_parameters():
                expected = own(ctx, name, whole.get_parameter(name), heads)
                assert torch.equal(p, expected), (heads, name)
            x, weights = torch.randn(2, TOKENS, BATCH, WIDTH)
            x.requires_grad_()
            expected = whole(x)
            (expected * weights).sum().backward()

            def mine(t, sequence_parallel=sequence_parallel):
                return t.chunk(ctx.world_size)[ctx.rank] if sequence_parallel else t

            given = mine(x.detach()).clone().requires_grad_()
            got = model(given)
            torch.testing.assert_close(got, mine(expected), rtol=1e-4, atol=1e-5)
            (got * mine(weights)).sum().backward()
            torch.testing.assert_close(given.grad, mine(x.grad), rtol=1e-4, atol=1e-4)
            for name, p in model.named_parameters():
                expected = own(ctx, name, whole.get_parameter(name).grad, heads)
                torch.testing.assert_close(
                    p.grad, expected, rtol=1e-4, atol=1e-4,
                    msg=lambda m, w=(heads, bias, name): f"{w}: {m}",
                )  # fmt: skip
            with torch.no_grad():
                torch.testing.assert_close(model(given.detach()), got)


@ranks(2, 4, deadline=180)
def test_training_penalties_and_compilation(ctx):
    """Copies stay equal, and the whole attention's; a penalty's gradient; one compiled graph."""
    iris_c.torch.register(ctx)
    heads = ctx.world_size // 2
    # A key's bias changes no softmax: Adam would divide its gradient's noise by itself.
    whole = whole_attention(2 * ctx.world_size, heads, bias=False)
    model = divided_attention(whole, heads)
    runs = [(whole, whole), (model, model)]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2) for m, _ in runs]
    for turn in range(4):
        x = torch.randn(TOKENS, BATCH, WIDTH)
        for i, (module, run) in enumerate(runs):
            # Torch compiles no second derivative, and of attention has that of one kernel.
            with sdpa_kernel(SDPBackend.MATH) if turn == 1 else contextlib.nullcontext():
                number = run(x).sin().sum()
            if turn == 1:
                grads = torch.autograd.grad(number, [module.k.weight], create_graph=True)
                number = grads[0].square().sum()
            number.backward()
            optimizers[i].step()
            optimizers[i].zero_grad()
        if turn == 1:
            runs[1] = (model, torch.compile(model, fullgraph=True, backend="aot_eager"))
    for name, p in model.named_parameters():
        expected = own(ctx, name, whole.get_parameter(name), heads)
        torch.testing.assert_close(p, expected, atol=1e-4, rtol=0, msg=lambda m, n=name: n + m)
    for layer in (model.k, model.v):
        everybodys = iris_c.torch.all_gather(layer.weight[None].detach())
        for rank in range(0, ctx.world_size, 2):
            assert torch.equal(everybodys[rank], everybodys[rank + 1])  # every bit


@ranks(4)
def test_state_names_and_mistakes(ctx):
    iris_c.torch.register(ctx)
    whole = nn.Linear(WIDTH, 2 * HEAD)
    layer = KVParallelLinear(WIDTH, 2 * HEAD, heads=2)
    part = layer.weight.part
    assert (part.shape, part.copies) == ((2 * HEAD, WIDTH), 2)
    assert (part.start, part.stop) == ((0, HEAD), (HEAD, 2 * HEAD))[ctx.rank // 2]
    parts = KVParallelLinear.from_linear(whole, heads=2).state_dict()
    for state in (whole.state_dict(), parts):
        nn.init.zeros_(layer.weight)
        layer.load_state_dict(state)
        assert torch.equal(layer.weight, parts["weight"])
    assert "heads=2, copies=2" in repr(layer)
    assert KVParallelLinear(WIDTH, 8 * HEAD, heads=8).copies == 1
    for heads, message in (
        (3, "a divisor of out_features 8, got 3"),
        (0, "a divisor of out_features 8, got 0"),
    ):
        with pytest.raises(ValueError, match=f"heads: expected {message}"):
            KVParallelLinear(WIDTH, 8, heads=heads)
    with pytest.raises(ValueError, match="heads: expected a multiple or a divisor of world_size 4"):
        KVParallelLinear(WIDTH, 12, heads=6)
    with pytest.raises(ValueError, match="gather_output: expected False"):
        KVParallelLinear(WIDTH, 8, heads=8, gather_output=True)


@distributed
def _as_dtensors(rank):
    """On a mesh of heads and copies: the whole layer, once, for all that asks."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    with iris_c.torch.init(heap_size=16 << 20) as ctx:
        for heads in (1, 2, 4):
            whole = whole_attention(8, heads)
            model = divided_attention(whole, heads)
            for name in ("k", "v"):
                weight = model.get_parameter(f"{name}.weight")
                assert isinstance(weight, DTensor)
                expected = (Shard(0),) if heads == 4 else (Shard(0), Replicate())
                assert weight.placements == expected
                assert torch.equal(weight.full_tensor(), whole.get_parameter(f"{name}.weight"))
            x = torch.randn(
                TOKENS,
                BATCH,
                WIDTH,
                generator=torch.Generator(torch.get_default_device()).manual_seed(1),
            )
            for m in (whole, model):
                m(x).square().sum().backward()
            for name, p in model.named_parameters():
                torch.testing.assert_close(
                    p.grad.full_tensor(), whole.get_parameter(name).grad, rtol=1e-4, atol=1e-4
                )
            norms = [
                torch.nn.utils.get_total_norm([p.grad for p in m.k.parameters()])
                for m in (whole, model)
            ]
            torch.testing.assert_close(norms[1].full_tensor(), norms[0], rtol=1e-4, atol=1e-4)
            nn.init.zeros_(model.k.weight)
            model.load_state_dict(whole.state_dict())
            assert torch.equal(model.k.weight.full_tensor(), whole.k.weight)
        ctx.barrier()


@starts_ranks
def test_layers_are_dtensors(tmp_path):
    run_ranks((__name__, "_as_dtensors"), 4, str(tmp_path / "store"), deadline=120)
