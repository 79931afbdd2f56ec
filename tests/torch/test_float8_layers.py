# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Layers in float8 beside the products of what they have quantised, widened; torchao's weights."""

import copy
import itertools

import pytest
import torch
from cases import cpu_only
from process_groups import distributed, starts_ranks
from torch import nn

import iris_c.torch
from iris_c.testing import preload, ranks, run_ranks
from iris_c.torch import (
    ColumnParallelLinear,
    Float8ColumnParallelLinear,
    Float8RowParallelLinear,
    quantize_float8,
)

preload("iris_c.torch")
pytestmark = [cpu_only, starts_ranks]

FP8 = torch.float8_e4m3fn
IN, OUT = 40, 26  # no multiples of 16, nor of 3 ranks


def whole_layer(bias=True, dtype=torch.float32, inputs=IN, outputs=OUT):
    torch.manual_seed(5)
    return nn.Linear(inputs, outputs, bias, dtype=dtype)


def tokens(name, *shape, dtype=torch.float32):
    torch.manual_seed(len(name))
    return torch.randn(*shape).mul(torch.linspace(0.1, 30, shape[-2]).unsqueeze(-1)).to(dtype)


def widened(x, scales, format=FP8):
    """What is multiplied in the place of `x`."""
    rows, scale = quantize_float8(x.reshape(-1, x.shape[-1]), scales, format)
    return (rows.double() * scale.double()).view(x.shape)


def product(x, linear, scales, format=FP8):
    bias = 0 if linear.bias is None else linear.bias.double()
    return x @ widened(linear.weight, scales, format).t() + bias


def close(got, expected, dtype=torch.float32):
    """Beside sums in fp32 there is the rounding to `dtype`, of partial sums too."""
    assert got.dtype == dtype
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    atol = rtol * expected.abs().max().item()
    torch.testing.assert_close(got.double(), expected.detach(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("format", [FP8, torch.float8_e5m2])
@pytest.mark.parametrize("scales", ["row", "tensor"])
def test_quantising(scales, format):
    largest = torch.finfo(format).max
    x = tokens("x", 7, 9)
    x[2] = 0
    rows, scale = quantize_float8(x, scales, format)
    assert rows.dtype == format
    assert scale.shape == ((7, 1) if scales == "row" else (1, 1))
    sizes = x.abs().amax(1, True) if scales == "row" else x.abs().max().view(1, 1)
    there = sizes[:, 0] > 0
    torch.testing.assert_close(scale[there], sizes[there] / largest)
    assert rows.float().abs().max() == largest
    assert not rows[2].float().any()
    steps = 2.0 ** -(4 if format == FP8 else 3)  # half of a unit in the last place
    least = torch.finfo(format).tiny * steps * scale.expand(x.shape)
    error = (rows.float() * scale - x).abs()
    assert (error <= x.abs() * steps * 1.001 + least * 2).all()
    assert error.max() > 0
    x[1, 3] = float("nan")
    assert quantize_float8(x, scales, format)[0].float().isnan().any()
    for wrong in (
        {"scales": "block"},
        {"float8_dtype": torch.int8},
        {"x": x[0]},
        {"x": x.double()},
    ):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            quantize_float8(**({"x": x} | wrong))
    for M in (0, 3):
        rows, scale = quantize_float8(torch.zeros(M, 0), scales, format)
        assert rows.shape == (M, 0)


@pytest.mark.parametrize("scales", ["row", "tensor"])
@ranks(1, 2, 3, deadline=120)
def test_column_parallel(ctx, scales):
    iris_c.torch.register(ctx)
    for dtype, bias, gather in itertools.product(
        (torch.float32, torch.bfloat16, torch.float16), (True, False), (True, False)
    ):
        linear = whole_layer(bias, dtype)
        layer = Float8ColumnParallelLinear.from_linear(linear, scales=scales, gather_output=gather)
        assert layer.weight.dtype == FP8
        x = tokens("x", 2, 3, IN, dtype=dtype)
        expected = product(widened(x, scales), linear, scales)
        if not gather:
            expected = expected.split(-(-OUT // ctx.world_size), -1)[ctx.rank]
        close(layer(x), expected, dtype)
        assert layer(x[:0]).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("scales", ["row", "tensor"])
@ranks(1, 2, 3, deadline=120)
def test_column_parallel_gathers_tokens(ctx, scales):
    iris_c.torch.register(ctx)
    options = {"scales": scales, "sequence_parallel": True, "sequence_dim": 1}
    for dtype, uneven in itertools.product((torch.float32, torch.bfloat16), (False, True)):
        linears = [whole_layer(True, dtype), whole_layer(False, dtype, outputs=8)]
        layers = [Float8ColumnParallelLinear.from_linear(one, **options) for one in linears]
        counts = [2 + rank * uneven for rank in range(ctx.world_size)]
        parts = [tokens("x" * rank, 2, n, IN, dtype=dtype) for rank, n in enumerate(counts)]
        x = torch.cat([widened(part, scales) for part in parts], 1)
        for fused in (False, True):
            if fused:
                iris_c.torch.fuse_inputs(*layers)
            for linear, layer in zip(linears, layers, strict=True):
                expected = product(x, linear, scales)
                share = -(-linear.out_features // ctx.world_size)
                own = expected.split(share, -1)[ctx.rank]
                close(layer(parts[ctx.rank]), own, dtype)


@pytest.mark.parametrize("scales", ["row", "tensor"])
@ranks(1, 2, 3, deadline=120)
def test_row_parallel(ctx, scales):
    iris_c.torch.register(ctx)
    share = -(-IN // ctx.world_size)
    for dtype, bias, scatter, parallel in itertools.product(
        (torch.float32, torch.bfloat16), (True, False), (True, False), (True, False)
    ):
        linear = whole_layer(bias, dtype)
        layer = Float8RowParallelLinear.from_linear(
            linear, scales=scales, sequence_parallel=scatter, input_is_parallel=parallel
        )
        x = tokens("x", 7, IN, dtype=dtype)
        parts = x.split(share, -1)
        expected = product(torch.cat([widened(p, scales) for p in parts], -1), linear, scales)
        if scatter:
            expected = expected.split(-(-7 // ctx.world_size))[ctx.rank]
        close(layer(parts[ctx.rank] if parallel else x), expected, dtype)


@ranks(2, deadline=120)
def test_other_formats(ctx):
    iris_c.torch.register(ctx)
    for format in (torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
        linear = whole_layer()
        layer = Float8RowParallelLinear.from_linear(linear, float8_dtype=format)
        x = tokens("x", 5, IN)
        parts = x.chunk(2, -1)
        whole = torch.cat([widened(part, "row", format) for part in parts], -1)
        close(layer(parts[ctx.rank]), product(whole, linear, "row", format))


@ranks(2, deadline=120)
def test_state(ctx):
    """Drawn as a whole, saved, loaded whole or in parts, copied, compiled; without gradients."""
    iris_c.torch.register(ctx)
    torch.manual_seed(5)
    layer = Float8RowParallelLinear(IN, OUT)
    same = Float8RowParallelLinear.from_linear(whole_layer())
    x = tokens("x", 5, IN // 2)
    torch.testing.assert_close(layer(x), same(x), rtol=0, atol=0)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "weight_scale", "bias"}
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    other = Float8RowParallelLinear(IN, OUT)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(layer.state_dict())
    weight, scale = quantize_float8(whole_layer().weight.detach())
    third = Float8RowParallelLinear(IN, OUT)
    third.load_state_dict({"weight": weight, "weight_scale": scale, "bias": whole_layer().bias})
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for one in (other, third, copy.deepcopy(layer), compiled):
        torch.testing.assert_close(one(x), layer(x), rtol=0, atol=0)
    # Results have the input's dtype; what changes the dtypes of modules leaves the weight as it is.
    expected = layer(x)
    assert copy.deepcopy(layer).half().weight_scale.dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        narrow = copy.deepcopy(layer).to(dtype)
        assert narrow.weight.dtype == FP8
        assert narrow.bias.dtype == dtype
        for one in (layer, narrow):
            assert torch.allclose(one(x.to(dtype)).float(), expected, rtol=0.1, atol=2.0)
            assert one(x.to(dtype)).dtype == dtype
    with pytest.raises(RuntimeError, match="no gradient"):
        layer(x.requires_grad_())
    with torch.no_grad():
        layer(x)
    ctx.barrier()


@ranks(1)
def test_refusals(ctx):
    iris_c.torch.register(ctx)
    with pytest.raises(ValueError, match="scales: expected 'row' or 'tensor', got 'block'"):
        Float8RowParallelLinear(IN, OUT, scales="block")
    with pytest.raises(ValueError, match=r"float8_dtype: expected .*, got torch\.int8"):
        Float8RowParallelLinear(IN, OUT, float8_dtype=torch.int8)
    with pytest.raises(TypeError, match=r"torchao\.quantization\.Float8Tensor, got a Parameter"):
        Float8RowParallelLinear.from_float8_linear(whole_layer())
    linear = whole_layer()
    with pytest.raises(ValueError, match="input_format"):
        iris_c.torch.fuse_inputs(
            Float8ColumnParallelLinear.from_linear(linear), ColumnParallelLinear.from_linear(linear)
        )


@distributed
def _is_a_dtensor(rank):
    with iris_c.torch.init(heap_size=16 << 20):
        for scales, dim in itertools.product(("row", "tensor"), (0, 1)):
            kind = (Float8ColumnParallelLinear, Float8RowParallelLinear)[dim]
            layer = kind.from_linear(whole_layer(), scales=scales)
            weight, scale = quantize_float8(whole_layer().weight.detach(), scales)
            state = layer.state_dict()
            assert state["weight"].shape == (OUT, IN)
            assert state["weight"].placements[0].is_shard(dim)
            # Gloo does not send float8.
            own = weight.chunk(2, dim)[rank]
            assert torch.equal(state["weight"].to_local().float(), own.float())
            assert torch.equal(state["weight_scale"].full_tensor(), scale)
            other = kind(IN, OUT, scales=scales)
            other.load_state_dict(state)
            x = tokens("x", 4, IN if dim == 0 else IN // 2)
            torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)


def test_parameters_are_dtensors(tmp_path):
    run_ranks(_is_a_dtensor, 2, tmp_path / "store", deadline=120)


# ---- torchao ----


def _quantised_by_torchao(scales, dtype=torch.bfloat16, **options):
    """As quantize_ with Float8DynamicActivationFloat8WeightConfig does on GPUs."""
    from torchao.quantization import Float8Tensor, PerRow, PerTensor
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import (
        QuantizeTensorToFloat8Kwargs,
    )

    granularity = {"row": PerRow(), "tensor": PerTensor()}[scales]
    options = {"granularity": granularity} | options
    how = options.pop("how", QuantizeTensorToFloat8Kwargs(granularity=granularity))
    linear = whole_layer(dtype=dtype)
    weight = Float8Tensor.from_hp(linear.weight.detach(), act_quant_kwargs=how, **options)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


@distributed
def _takes_torchaos(rank):
    from torchao.quantization import PerGroup, PerRow, PerTensor
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import (
        QuantizeTensorToFloat8Kwargs as How,
    )

    with iris_c.torch.init(heap_size=16 << 20):
        for scales in ("row", "tensor"):
            linear = _quantised_by_torchao(scales)
            wide = linear.weight.dequantize().double()
            column = Float8ColumnParallelLinear.from_float8_linear(linear, gather_output=True)
            row = Float8RowParallelLinear.from_float8_linear(linear, sequence_parallel=True)
            x = tokens("x", 6, IN, dtype=torch.bfloat16)
            expected = widened(x, scales) @ wide.t() + linear.bias.double()
            close(column(x), expected, torch.bfloat16)
            parts = x.chunk(2, -1)
            whole = torch.cat([widened(part, scales) for part in parts], -1)
            expected = whole @ wide.t() + linear.bias.double()
            close(row(parts[rank]), expected.chunk(2)[rank], torch.bfloat16)
        take = Float8RowParallelLinear.from_float8_linear
        for options, what in (
            ({"how": None}, "weight that is quantised alone"),
            ({"granularity": PerGroup(20)}, r"one for each block of \(1, 20\)"),
            ({"how": How(granularity=PerTensor())}, "as the weight has, by row, got PerTensor"),
            ({"how": How(float8_dtype=torch.float8_e5m2, granularity=PerRow())}, "got .*e5m2"),
            ({"how": How(granularity=PerRow(), hp_value_ub=1.0)}, "hp_value_ub=1.0"),
        ):
            with pytest.raises(ValueError, match=what):
                take(_quantised_by_torchao("row", **options))


def test_takes_what_torchao_has_quantised(tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed")
    run_ranks(_takes_torchaos, 2, tmp_path / "store", deadline=120)
