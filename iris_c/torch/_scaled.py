# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.ops.iris_c: products of float8 operands with scales, and their shapes for tracing.

As in _operations.py; they have no gradients. The two that begin with `fused_` have the schemas of
torch.ops.symm_mem's of the same names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import iris_c
from iris_c.torch import _results
from iris_c.torch._autograd import refuse_to_differentiate
from iris_c.torch._groups import context, name_of_either, world_size
from iris_c.torch._library import kernels, operation
from iris_c.torch._operations import (
    _empty_joined,
    _expect_matrices,
    _gathered_shape,
    _share_shape,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _context(group: str) -> iris_c.Context:
    ctx = context(group)
    if not isinstance(ctx, iris_c.Context):
        raise ValueError(
            f"ctx: expected the ranks of one node for float8 operands, got {type(ctx).__name__}"
        )
    return ctx


def _like(A: Tensor, out_dtype: torch.dtype) -> Tensor:
    """A tensor of the result's dtype, without elements, where A is."""
    if out_dtype not in DTYPES:
        raise ValueError(
            f"out_dtype: expected torch.float32, torch.float16 or torch.bfloat16, got {out_dtype}"
        )
    return torch.empty(0, dtype=out_dtype, device=A.device)


# ---- C = sum over ranks of A_r @ B_r ----


@operation("scaled_matmul_all_reduce", mutates_args=())
def _scaled_matmul_all_reduce(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    ctx = _context(group)
    _expect_matrices(A=A, B=B)
    C = _results.empty(ctx, _like(A, out_dtype), A.shape[0], B.shape[1])
    ctx.ops.matmul_all_reduce(C, A, B, bias, True, scale_a=scale_a, scale_b=scale_b)
    return C


@_scaled_matmul_all_reduce.register_fake
def _(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    _expect_matrices(A=A, B=B)
    return _like(A, out_dtype).new_empty(A.shape[0], B.shape[1])


# ---- a rank's share of it ----


def _empty_share(A: Tensor, B: Tensor, dim: int, out_dtype: torch.dtype, group: str) -> Tensor:
    shape = _share_shape(A, B, dim, group)
    return _like(A, out_dtype).new_empty(shape)


@operation("scaled_matmul_reduce_scatter", mutates_args=())
def _scaled_matmul_reduce_scatter(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    dim: int,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    ctx = _context(group)
    C = _empty_share(A, B, dim, out_dtype, group)
    ctx.ops.matmul_reduce_scatter(C, A, B, bias, dim, scale_a=scale_a, scale_b=scale_b)
    return C


@_scaled_matmul_reduce_scatter.register_fake
def _(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    dim: int,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    return _empty_share(A, B, dim, out_dtype, group)


# ---- all ranks' A_r @ B_r, one below the other ----


@operation("scaled_matmul_all_gather", mutates_args=())
def _scaled_matmul_all_gather(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    ctx = _context(group)
    _expect_matrices(A=A, B=B)
    C = _results.empty(ctx, _like(A, out_dtype), A.shape[0] * ctx.world_size, B.shape[1])
    ctx.ops.matmul_all_gather(C, A, B, bias, True, scale_a=scale_a, scale_b=scale_b)
    return C


@_scaled_matmul_all_gather.register_fake
def _(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    _expect_matrices(A=A, B=B)
    return _like(A, out_dtype).new_empty(A.shape[0] * world_size(group), B.shape[1])


# ---- C = (all ranks' A_shard, joined) @ B ----


def _gathered_product(
    A_shard: Tensor, B: Tensor, dim: int, out_dtype: torch.dtype, group: str
) -> Tensor:
    """An empty product."""
    shape = _gathered_shape(A_shard, B, dim, group)
    return _like(A_shard, out_dtype).new_empty(shape)


def _joined(
    A_shard: Tensor, B: Tensor, dim: int, out_dtype: torch.dtype, group: str
) -> tuple[Tensor, Tensor]:
    """Empty results: the product and the joined operand."""
    C = _gathered_product(A_shard, B, dim, out_dtype, group)
    return C, _empty_joined(A_shard, dim, group)


@operation("scaled_all_gather_matmul", mutates_args=())
def _scaled_all_gather_matmul(
    A_shard: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    gather_dim: int,
    out_dtype: torch.dtype,
    group: str,
) -> tuple[Tensor, Tensor]:
    ctx = _context(group)
    C, joined = _joined(A_shard, B, gather_dim, out_dtype, group)
    ctx.ops.all_gather_matmul_hbm_buffer(
        C, A_shard, B, bias, gather_dim, A_gathered=joined, scale_a=scale_a, scale_b=scale_b
    )
    return C, joined


@_scaled_all_gather_matmul.register_fake
def _(
    A_shard: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    gather_dim: int,
    out_dtype: torch.dtype,
    group: str,
) -> tuple[Tensor, Tensor]:
    return _joined(A_shard, B, gather_dim, out_dtype, group)


@operation("scaled_gathered_matmul", mutates_args=())
def _scaled_gathered_matmul(
    A_shard: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    gather_dim: int,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    """The same without the joined operand, which takes time to store."""
    ctx = _context(group)
    C = _gathered_product(A_shard, B, gather_dim, out_dtype, group)
    ctx.ops.all_gather_matmul_hbm_buffer(
        C, A_shard, B, bias, gather_dim, scale_a=scale_a, scale_b=scale_b
    )
    return C


@_scaled_gathered_matmul.register_fake
def _(
    A_shard: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    gather_dim: int,
    out_dtype: torch.dtype,
    group: str,
) -> Tensor:
    return _gathered_product(A_shard, B, gather_dim, out_dtype, group)


for _name in (
    "scaled_matmul_all_reduce",
    "scaled_matmul_reduce_scatter",
    "scaled_matmul_all_gather",
    "scaled_all_gather_matmul",
    "scaled_gathered_matmul",
):
    refuse_to_differentiate(_name, "has no gradient; detach it, or call the operation")


# ---- with torch's schemas ----

_SCATTER = (
    "(Tensor A, Tensor B, Tensor A_scale, Tensor B_scale, str reduce_op, int orig_scatter_dim, "
    "int scatter_dim_after_maybe_reshape, str group_name, SymInt[]? output_shape, "
    "Tensor? bias=None, Tensor? result_scale=None, ScalarType? out_dtype=None, "
    "bool use_fast_accum=False) -> Tensor"
)
_GATHER = (
    "(Tensor A, Tensor[] Bs, Tensor A_scale, Tensor[] B_scales, int gather_dim, str group_name, "
    "Tensor?[] biases, Tensor?[] result_scales, ScalarType?[] out_dtypes, "
    "bool[] use_fast_accum) -> (Tensor, Tensor[])"
)
# A list of dtypes comes as one of c10::ScalarType's numbers.
_DTYPES_BY_NUMBER = {5: torch.float16, 6: torch.float32, 15: torch.bfloat16}


def _expect_none(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: expected None, got a {type(value).__name__}")


def _rows_first(tensor: Tensor, dim: int) -> Tensor:
    """As a matrix whose rows begin with the dimension `dim`."""
    return tensor.movedim(dim, 0).flatten(0, -2)


def _from_rows_first(matrix: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """The tensor of that shape of which a matrix is _rows_first."""
    moved = [shape[dim], *shape[:dim], *shape[dim + 1 :]]
    return matrix.view(moved).movedim(0, dim).contiguous()


def _scatter_shape(
    A: Tensor, B: Tensor, dim: int, output_shape: Sequence[int] | None, group: str
) -> list[int]:
    """The shape of the whole result."""
    shape = [*(A.shape[:-1] if output_shape is None else output_shape[:-1]), B.shape[1]]
    world = world_size(group)
    if math.prod(shape[:-1]) != math.prod(A.shape[:-1]):
        raise ValueError(
            f"output_shape: expected as many rows as A has, {math.prod(A.shape[:-1])}, got "
            f"{tuple(shape)}"
        )
    if not 0 <= dim < len(shape):
        raise ValueError(f"orig_scatter_dim: expected 0 to {len(shape) - 1}, got {dim}")
    torch._check(
        shape[dim] % world == 0,
        lambda: (
            f"output_shape: expected a multiple of world_size {world} along orig_scatter_dim="
            f"{dim}, got {shape[dim]}"
        ),
    )
    return shape


def _expect_scattered(
    reduce_op: str, bias: Any, result_scale: Any, out_dtype: torch.dtype | None
) -> torch.dtype:
    if reduce_op not in ("sum", "avg"):
        raise ValueError(f"reduce_op: expected 'sum' or 'avg', got {reduce_op!r}")
    # torch's adds each rank's to its product: the sum has all of them.
    _expect_none(bias=bias, result_scale=result_scale)
    if out_dtype is None:
        raise ValueError(
            "out_dtype: expected torch.float32, torch.float16 or torch.bfloat16, got None"
        )
    return out_dtype


@operation("fused_scaled_matmul_reduce_scatter", mutates_args=(), schema=_SCATTER)
def _fused_scaled_matmul_reduce_scatter(
    A: Tensor,
    B: Tensor,
    A_scale: Tensor,
    B_scale: Tensor,
    reduce_op: str,
    orig_scatter_dim: int,
    scatter_dim_after_maybe_reshape: int,
    group_name: str,
    output_shape: Sequence[int] | None,
    bias: Tensor | None = None,
    result_scale: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    dtype = _expect_scattered(reduce_op, bias, result_scale, out_dtype)
    group_name = name_of_either(group_name)
    _expect_matrices(B=B)
    dim, world = orig_scatter_dim, world_size(group_name)
    shape = _scatter_shape(A, B, dim, output_shape, group_name)
    lead, by_columns = shape[:-1], dim == len(shape) - 1
    first = 0 if by_columns else dim
    matrix = _rows_first(A.reshape(*lead, A.shape[-1]), first)
    scale = A_scale
    if scale.numel() > 1:
        scale = _rows_first(scale.reshape(*lead, scale.shape[-1]), first)
    C: Tensor = kernels["scaled_matmul_reduce_scatter"](
        matrix, B, scale, B_scale, None, int(by_columns), dtype, group_name
    )
    if reduce_op == "avg":
        C = C.div_(world)
    shape[dim] //= world
    return _from_rows_first(C, first, shape)


@_fused_scaled_matmul_reduce_scatter.register_fake
def _(
    A: Tensor,
    B: Tensor,
    A_scale: Tensor,
    B_scale: Tensor,
    reduce_op: str,
    orig_scatter_dim: int,
    scatter_dim_after_maybe_reshape: int,
    group_name: str,
    output_shape: Sequence[int] | None,
    bias: Tensor | None = None,
    result_scale: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    dtype = _expect_scattered(reduce_op, bias, result_scale, out_dtype)
    group_name = name_of_either(group_name)
    _expect_matrices(B=B)
    shape = _scatter_shape(A, B, orig_scatter_dim, output_shape, group_name)
    shape[orig_scatter_dim] = shape[orig_scatter_dim] // world_size(group_name)
    return _like(A, dtype).new_empty(shape)


def _expect_gathered(A: Tensor, Bs: Sequence[Tensor], gather_dim: int) -> None:
    if A.dim() < 2:
        raise ValueError(f"A: expected 2 dimensions or more, got {A.dim()}")
    if not 0 <= gather_dim < A.dim():
        raise ValueError(f"gather_dim: expected 0 to {A.dim() - 1}, got {gather_dim}")
    if not Bs:
        raise ValueError("Bs: expected one tensor or more, got an empty list")
    _expect_matrices(**{f"Bs[{i}]": B for i, B in enumerate(Bs)})


def _dtypes_of_products(Bs: Sequence[Tensor], **lists: Sequence[Any]) -> list[torch.dtype]:
    """The `out_dtypes` among the lists, each of which has one element for each of Bs."""
    for name, given in lists.items():
        if len(given) != len(Bs):
            raise ValueError(f"{name}: expected {len(Bs)}, one for each of Bs, got {len(given)}")
    _expect_none(**{f"result_scales[{i}]": one for i, one in enumerate(lists["result_scales"])})
    dtypes = [_DTYPES_BY_NUMBER.get(dtype, dtype) for dtype in lists["out_dtypes"]]
    for i, dtype in enumerate(dtypes):
        if dtype not in DTYPES:
            raise ValueError(
                f"out_dtypes[{i}]: expected torch.float32, torch.float16 or torch.bfloat16, got "
                f"{dtype}"
            )
    return dtypes


def _gathered_shapes(
    A: Tensor, Bs: Sequence[Tensor], gather_dim: int, group: str
) -> tuple[list[int], list[list[int]]]:
    whole = list(A.shape)
    whole[gather_dim] = whole[gather_dim] * world_size(group)
    return whole, [[*whole[:-1], B.shape[1]] for B in Bs]


def _own_scale(A: Tensor, scale: Tensor, gather_dim: int, group: str) -> Tensor | None:
    """This rank's: of its shard's rows, given as such or with all ranks'. None: one for all."""
    ctx = _context(group)
    if scale.dim() == A.dim() and scale.shape[:-1] == A.shape[:-1] and scale.shape[-1] == 1:
        return scale
    if scale.numel() == 1:
        return None
    if gather_dim < A.dim() - 1 and scale.dim() == A.dim():
        if scale.shape[gather_dim] == A.shape[gather_dim] * ctx.world_size:
            return scale.chunk(ctx.world_size, gather_dim)[ctx.rank]
    return scale


@operation("fused_all_gather_scaled_matmul", mutates_args=(), schema=_GATHER)
def _fused_all_gather_scaled_matmul(
    A: Tensor,
    Bs: Sequence[Tensor],
    A_scale: Tensor,
    B_scales: Sequence[Tensor],
    gather_dim: int,
    group_name: str,
    biases: Sequence[Tensor | None],
    result_scales: Sequence[Tensor | None],
    out_dtypes: Sequence[Any],
    use_fast_accum: Sequence[bool],
) -> tuple[Tensor, list[Tensor]]:
    """Each B gathers A again: a wide B that is several side by side gathers it once."""
    group_name = name_of_either(group_name)
    _expect_gathered(A, Bs, gather_dim)
    dtypes = _dtypes_of_products(
        Bs, B_scales=B_scales, biases=biases, result_scales=result_scales,
        out_dtypes=out_dtypes, use_fast_accum=use_fast_accum,
    )  # fmt: skip
    whole, shapes = _gathered_shapes(A, Bs, gather_dim, group_name)
    by_columns = gather_dim == A.dim() - 1
    first = 0 if by_columns else gather_dim
    own = _own_scale(A, A_scale, gather_dim, group_name)
    # One for all is this rank's, whatever others have: it goes with B's.
    scale = torch.ones_like(A_scale) if own is None else _rows_first(own, first)
    if own is None:
        B_scales = [scale_b * A_scale.reshape(1, 1) for scale_b in B_scales]
    matrix = _rows_first(A, first)
    results: list[Tensor] = []
    joined = matrix
    for i, (B, scale_b, bias, dtype, shape) in enumerate(
        zip(Bs, B_scales, biases, dtypes, shapes, strict=True)
    ):
        arguments = (matrix, B, scale, scale_b, bias, int(by_columns), dtype, group_name)
        if i == 0:
            C, joined = kernels["scaled_all_gather_matmul"](*arguments)
        else:
            C = kernels["scaled_gathered_matmul"](*arguments)
        results.append(_from_rows_first(C, first, shape))
    return _from_rows_first(joined, first, whole), results


@_fused_all_gather_scaled_matmul.register_fake
def _(
    A: Tensor,
    Bs: Sequence[Tensor],
    A_scale: Tensor,
    B_scales: Sequence[Tensor],
    gather_dim: int,
    group_name: str,
    biases: Sequence[Tensor | None],
    result_scales: Sequence[Tensor | None],
    out_dtypes: Sequence[Any],
    use_fast_accum: Sequence[bool],
) -> tuple[Tensor, list[Tensor]]:
    group_name = name_of_either(group_name)
    _expect_gathered(A, Bs, gather_dim)
    dtypes = _dtypes_of_products(
        Bs, B_scales=B_scales, biases=biases, result_scales=result_scales,
        out_dtypes=out_dtypes, use_fast_accum=use_fast_accum,
    )  # fmt: skip
    whole, shapes = _gathered_shapes(A, Bs, gather_dim, group_name)
    results = [
        torch.empty(shape, dtype=dtype, device=A.device)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    return A.new_empty(whole), results
