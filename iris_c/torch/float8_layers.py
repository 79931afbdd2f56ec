# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The layers of layers.py with weights in float8, for inference.

A weight has one scale, or one for each output feature. The input is quantised in each call alike:
with one scale for all of a rank's input, or one for each of its rows. Where rows travel, they do
so in float8, with their scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from iris_c.torch._groups import Named
from iris_c.torch._parts import filled
from iris_c.torch._scaled import DTYPES
from iris_c.torch.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    _check_whole,
    _ParallelLinear,
)

__all__ = ["Float8ColumnParallelLinear", "Float8RowParallelLinear", "quantize_float8"]

FORMATS = (
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)
SCALES = ("row", "tensor")
_MULTIPLE = 16  # torch._scaled_mm's, of K and N, on GPUs


def _check_format(scales: str, float8_dtype: torch.dtype) -> None:
    if scales not in SCALES:
        raise ValueError(f"scales: expected 'row' or 'tensor', got {scales!r}")
    if float8_dtype not in FORMATS:
        raise ValueError(
            "float8_dtype: expected torch.float8_e4m3fn, float8_e5m2, float8_e4m3fnuz or "
            f"float8_e5m2fnuz, got {float8_dtype}"
        )


def quantize_float8(
    x: Tensor, scales: str = "row", float8_dtype: torch.dtype = torch.float8_e4m3fn
) -> tuple[Tensor, Tensor]:
    """Return a matrix in float8 and its scales, by which it is multiplied to be `x` again.

    A scale makes the largest magnitude the format's largest; zeros stay zeros, NaN stays NaN.

    Parameters
    ----------
    x : Tensor
        (M, K), float32, float16 or bfloat16.
    scales : str
        'row': one for each row, (M, 1). 'tensor': one, (1, 1).
    float8_dtype : torch.dtype
        The format.

    Returns
    -------
    tuple of Tensor
        (M, K) of float8_dtype, and the scales, float32.

    Raises
    ------
    ValueError
        An argument is none of these.
    """
    _check_format(scales, float8_dtype)
    if x.dim() != 2 or x.dtype not in DTYPES:
        raise ValueError(
            "x: expected a matrix of float32, float16 or bfloat16, got shape "
            f"{tuple(x.shape)} of {x.dtype}"
        )
    wide, largest = x.float(), torch.finfo(float8_dtype).max
    if wide.numel() == 0:
        most = wide.new_zeros(x.shape[0] if scales == "row" else 1, 1)
    else:
        most = wide.abs().amax(1 if scales == "row" else (0, 1), True)
    scale = (most / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return (wide / scale).clamp(-largest, largest).to(float8_dtype), scale


class _Float8Linear(_ParallelLinear):
    """What both have in common: beside the weight its scales, and how the input is quantised."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        ctx: Named = None,
        scales: str = "row",
        float8_dtype: torch.dtype = torch.float8_e4m3fn,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        _check_format(scales, float8_dtype)
        self.scales, self.float8_dtype = scales, float8_dtype
        self._drawn_in = dtype
        super().__init__(in_features, out_features, bias, ctx=ctx, dtype=dtype, **options)

    def _divide(
        self,
        name: str,
        shape: tuple[int, ...],
        dim: int | None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """The weight in float8, with a parameter for its scales; none gets a gradient."""
        if name == "weight":
            rows = shape[0] if self.scales == "row" else 1
            by_rows = 0 if dim == 0 and self.scales == "row" else None
            super()._divide("weight_scale", (rows, 1), by_rows, device=device, dtype=torch.float32)
            dtype = self.float8_dtype
        super()._divide(name, shape, dim, device=device, dtype=dtype)
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def _take(self, name: str, whole: Tensor) -> None:
        """Of a weight that is not in float8 yet, its part once it is."""
        if name == "weight" and whole.dtype != self.float8_dtype:
            whole, scale = quantize_float8(whole.detach(), self.scales, self.float8_dtype)
            super()._take("weight_scale", scale)
        super()._take(name, whole)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """As torch.nn.Module's, but that `to(dtype)`, `half()` and their like leave the weight and
        its scales what they are."""
        kept = [self._parameters.get(name) for name in ("weight", "weight_scale")]

        def applied(tensor: Tensor) -> Tensor:
            result: Tensor = fn(tensor)
            if result.dtype == tensor.dtype or not any(tensor is one for one in kept):
                return result
            return tensor.to(result.device)

        module: Self = super()._apply(applied, recurse)
        return module

    def _drawn_dtype(self) -> torch.dtype | None:
        return self._drawn_in

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, ctx: Named = None, **options: Any) -> Self:
        """As a ColumnParallelLinear's; quantises the weight. `options` may have scales and
        float8_dtype too. No parameter needs a gradient."""
        return super().from_linear(linear, ctx=ctx, **options).requires_grad_(False)

    @classmethod
    def from_float8_linear(cls, linear: nn.Linear, *, ctx: Named = None, **options: Any) -> Self:
        """Return this rank's part of a layer that torchao has quantised, which every rank has.

        Parameters
        ----------
        linear : torch.nn.Linear
            Its weight is a torchao.quantization.Float8Tensor with one scale, or one for each output
            feature, that has its input quantised alike
            (Float8DynamicActivationFloat8WeightConfig).
        ctx : Context, str, ProcessGroup, DeviceMesh or None
            The ranks. None: the context named 'default'.
        **options
            The constructor's: sequence_parallel, and gather_output or input_is_parallel.

        Raises
        ------
        TypeError
            Its weight is no such tensor.
        ValueError
            It has other scales, or bounds of them.
        """
        _check_whole(linear)
        weight: Any = linear.weight
        scales = _scales_of(weight)
        layer = cls._shaped_as(
            linear, weight, ctx=ctx, scales=scales, float8_dtype=weight.qdata.dtype, **options
        )
        layer._take("weight", weight.qdata)
        layer._take("weight_scale", weight.scale.reshape(-1, 1).float())
        if linear.bias is not None:
            layer._take("bias", linear.bias)
        return layer.train(linear.training)

    @property
    def input_format(self) -> tuple[str, torch.dtype]:
        return self.scales, self.float8_dtype

    def _quantized(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return quantize_float8(rows, self.scales, self.float8_dtype)

    def _scale(self) -> Tensor:
        """Of the weight as a product's B, (K, N): (1, N), of one N on all ranks, or (1, 1)."""
        scale = self._local("weight_scale")
        assert scale is not None
        if self.scales == "row" and self.divided == 0:
            scale = filled(scale, 0, self._largest)
        return scale.t()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scales={self.scales!r}, float8_dtype={self.float8_dtype}"


def _scales_of(weight: Any) -> str:
    """Which scales a tensor of torchao has."""
    if not all(hasattr(weight, name) for name in ("qdata", "scale", "block_size")):
        raise TypeError(
            "linear: expected a weight that is a torchao.quantization.Float8Tensor, got a "
            f"{type(weight).__name__}; from_linear quantises one that is not"
        )
    blocks, shape = list(weight.block_size), list(weight.shape)
    scales = {"row": [1, shape[1]], "tensor": shape}
    found = [name for name, block in scales.items() if blocks == block]
    if not found:
        raise ValueError(
            "linear: expected a weight with one scale, or one for each output feature, got one "
            f"for each block of {tuple(blocks)}"
        )
    how = getattr(weight, "act_quant_kwargs", None)
    if how is None:
        raise ValueError(
            "linear: expected an input that is quantised in each call "
            "(Float8DynamicActivationFloat8WeightConfig), got a weight that is quantised alone"
        )
    granularity = {"PerRow": "row", "PerTensor": "tensor"}.get(type(how.granularity).__name__)
    if granularity not in found:
        raise ValueError(
            f"linear: expected an input with scales as the weight has, by {found[0]}, got "
            f"{how.granularity}"
        )
    if how.float8_dtype != weight.qdata.dtype:
        raise ValueError(
            f"linear: expected an input quantised to {weight.qdata.dtype}, as the weight is, got "
            f"{how.float8_dtype}"
        )
    if how.hp_value_lb is not None or how.hp_value_ub is not None:
        raise ValueError(
            "linear: expected scales without bounds, got hp_value_lb="
            f"{how.hp_value_lb} and hp_value_ub={how.hp_value_ub}"
        )
    return granularity


def _cast(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The bias in the dtype of the result."""
    return None if bias is None else bias.to(dtype)


def _own_product(
    rows: Tensor,
    weight: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """Of this rank alone, by torch: (M, K) times a transposed weight, (K, N), with scales (M, 1) or
    (1, 1), and (1, N) or (1, 1)."""
    (M, K), N = rows.shape, weight.shape[1]
    more_k, more_n = -K % _MULTIPLE, -N % _MULTIPLE
    if more_k or more_n:
        rows, weight = pad(rows, [0, more_k]), pad(weight.t(), [0, more_k, 0, more_n]).t()
    by_tensors = scale_a.shape == scale_b.shape == (1, 1) and N > 1
    by_rows = scale_a.shape == (M, 1) and scale_b.shape == (1, N)
    if out_dtype == torch.float32 or not (by_tensors or (by_rows and out_dtype == torch.bfloat16)):
        # Scales of rows torch has for results in bfloat16 alone, a bias for 16 bits.
        one = scale_a.new_ones(())
        y = torch._scaled_mm(rows, weight, one, one, out_dtype=torch.float32)[:, :N]
        y = y * scale_a * scale_b
        return (y if bias is None else y + bias).to(out_dtype)
    bias = None if bias is None else pad(bias, [0, more_n])
    if by_tensors:
        scale_a, scale_b = scale_a.view(()), scale_b.view(())
    else:
        scale_b = pad(scale_b, [0, more_n]).contiguous()
    y = torch._scaled_mm(rows, weight, scale_a, scale_b, bias=bias, out_dtype=out_dtype)
    return y[:, :N].contiguous()


class Float8ColumnParallelLinear(_Float8Linear, ColumnParallelLinear):
    """A ColumnParallelLinear whose weight and input are in float8. It has no gradients.

    With `sequence_parallel` each rank quantises its rows, which are gathered in float8.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer.
    bias : bool
        Whether the layer adds b.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks, of one node. None: the context named 'default'.
    scales : str
        'row': a scale for each output feature, and each row of the input. 'tensor': one for the
        weight and, on each rank, one for the input.
    float8_dtype : torch.dtype
        The format of both: what the device multiplies.
    dtype : torch.dtype or None
        Of the bias. None: torch's default. The result has the input's: bfloat16, float16 or
        float32.
    **options
        sequence_parallel, sequence_dim, sequence_sizes, gather_output and device, as
        ColumnParallelLinear's.
    """

    @staticmethod
    def _replicated_products(layers: Sequence[Any], rows: Tensor) -> list[Tensor]:
        a, scale = layers[0]._quantized(rows)
        return _own_products(layers, a, scale, rows.dtype)

    @staticmethod
    def _gathered_products(layers: Sequence[Any], rows: Tensor) -> list[Tensor]:
        first = layers[0]
        a, scale = first._quantized(rows)
        if len(layers) == 1:
            weight, bias = first._factors()
            bias, scale_b = _cast(bias, rows.dtype), first._scale()
            return [
                torch.ops.iris_c.scaled_gathered_matmul(
                    a, weight, scale, scale_b, bias, 0, rows.dtype, first.group
                )
            ]
        if first.scales == "tensor":
            scale = scale.expand(a.shape[0], 1).contiguous()
        return _own_products(
            layers,
            _gathered_bytes(a, first.group),
            torch.ops.iris_c.all_gather(scale, 0, first.group),
            rows.dtype,
        )


def _own_products(
    layers: Sequence[Any], a: Tensor, scale: Tensor, out_dtype: torch.dtype
) -> list[Tensor]:
    products = []
    for layer in layers:
        weight, bias = layer._factors()
        bias = _cast(bias, out_dtype)
        products.append(_own_product(a, weight, scale, layer._scale(), bias, out_dtype))
    return products


def _gathered_bytes(a: Tensor, group: str) -> Tensor:
    """All ranks' matrices of float8, one below the other."""
    gathered: Tensor = torch.ops.iris_c.all_gather(a.view(torch.uint8), 0, group)
    return gathered.view(a.dtype)


class Float8RowParallelLinear(_Float8Linear, RowParallelLinear):
    """A RowParallelLinear whose weight and input are in float8. It has no gradients.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer.
    bias : bool
        Whether the layer adds b.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks, of one node. None: the context named 'default'.
    scales : str
        'row': a scale for each output feature, and each row of the input. 'tensor': one for the
        weight and, on each rank, one for its input.
    float8_dtype : torch.dtype
        The format of both: what the device multiplies.
    dtype : torch.dtype or None
        Of the bias. None: torch's default. The result, and the partial sums, which travel, have the
        input's: bfloat16, float16 or float32.
    **options
        sequence_parallel, sequence_dim, input_is_parallel and device, as RowParallelLinear's.
    """

    def _sum(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        a, scale = self._quantized(rows)
        result: Tensor = torch.ops.iris_c.scaled_matmul_all_reduce(
            a, weight, scale, self._scale(), _cast(bias, rows.dtype), rows.dtype, self.group
        )
        return result

    def _share_of_sum(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        a, scale = self._quantized(rows)
        result: Tensor = torch.ops.iris_c.scaled_matmul_reduce_scatter(
            a, weight, scale, self._scale(), _cast(bias, rows.dtype), 0, rows.dtype, self.group
        )
        return result
