# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.ops.iris_c: the operations and their shapes for tracing.

An operation names its context by a string (`group`). It checks nothing: the core does. Results are
complete on this rank; nobody else reads them. Those that peers write lie where they can, see
_results.py. Gradients are in _gradients.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iris_c.torch import _results
from iris_c.torch._autocast import without_autocast
from iris_c.torch._groups import context, ops, world_size
from iris_c.torch._library import operation


def _empty(like: Tensor, *shape: int) -> Tensor:
    """An ordinary tensor, also where `like` is none: the core says so, and names it."""
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _expect_matrices(**tensors: Tensor) -> None:
    """What the core would say, which needs the result first."""
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            raise ValueError(
                f"{name}: expected a 2-D tensor, got {tensor.dim()}-D with shape "
                f"{tuple(tensor.shape)}"
            )


def _expect_dimension(name: str, dim: int) -> None:
    if dim not in (0, 1):
        raise ValueError(f"{name}: expected 0 or 1, got {dim}")


def _product_shape(A: Tensor, B: Tensor) -> tuple[int, int]:
    """Rows and columns of A @ B."""
    try:
        (M, _), (_, N) = A.shape, B.shape
    except ValueError:
        _expect_matrices(A=A, B=B)
        raise
    return M, N


def _empty_product(A: Tensor, B: Tensor, times: int = 1) -> Tensor:
    """Of `times` as many rows as A has."""
    M, N = _product_shape(A, B)
    return _empty(A, M * times, N)


# ---- C = sum over ranks of A_r @ B_r ----


@operation("matmul_all_reduce_out", mutates_args={"C"})
def _matmul_all_reduce_out(
    C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, group: str
) -> None:
    ops[group].matmul_all_reduce(C, A, B, bias, True)


@operation("matmul_all_reduce", mutates_args=())
def _matmul_all_reduce(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    M, N = _product_shape(A, B)
    C = _results.empty(context(group), A, M, N)
    ops[group].matmul_all_reduce(C, A, B, bias, True)
    return C


@_matmul_all_reduce.register_fake
def _(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    return _empty_product(A, B)


# ---- a rank's share of it ----


@operation("matmul_reduce_scatter_out", mutates_args={"C"})
def _matmul_reduce_scatter_out(
    C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, dim: int, group: str
) -> None:
    ops[group].matmul_reduce_scatter(C, A, B, bias, dim)


def _share_shape(A: Tensor, B: Tensor, dim: int, group: str) -> list[int]:
    """Of a share of A @ B."""
    _expect_matrices(A=A, B=B)
    _expect_dimension("dim", dim)
    shape, world = [A.shape[0], B.shape[1]], world_size(group)
    torch._check(
        shape[dim] % world == 0,
        lambda: (
            f"{'AB'[dim]}: expected {('rows', 'columns')[dim]} in a multiple of world_size "
            f"{world} for dim={dim}, got {shape[dim]}"
        ),
    )
    shape[dim] = shape[dim] // world
    return shape


def _share(A: Tensor, B: Tensor, dim: int, group: str) -> Tensor:
    """An empty share of A @ B."""
    return _empty(A, *_share_shape(A, B, dim, group))


@operation("matmul_reduce_scatter", mutates_args=())
def _matmul_reduce_scatter(
    A: Tensor, B: Tensor, bias: Tensor | None, dim: int, group: str
) -> Tensor:
    C = _share(A, B, dim, group)
    ops[group].matmul_reduce_scatter(C, A, B, bias, dim)
    return C


@_matmul_reduce_scatter.register_fake
def _(A: Tensor, B: Tensor, bias: Tensor | None, dim: int, group: str) -> Tensor:
    return _share(A, B, dim, group)


# ---- C = (all ranks' A_shard, joined) @ B ----


@operation("all_gather_matmul_out", mutates_args={"C", "A_gathered"})
def _all_gather_matmul_out(
    C: Tensor,
    A_gathered: Tensor | None,
    A_shard: Tensor,
    B: Tensor,
    bias: Tensor | None,
    gather_dim: int,
    group: str,
) -> None:
    ops[group].all_gather_matmul_hbm_buffer(C, A_shard, B, bias, gather_dim, A_gathered=A_gathered)


def _gathered_shape(A_shard: Tensor, B: Tensor, dim: int, group: str) -> tuple[int, int]:
    """Of the product."""
    _expect_matrices(A_shard=A_shard, B=B)
    _expect_dimension("gather_dim", dim)
    times = world_size(group) if dim == 0 else 1
    return A_shard.shape[0] * times, B.shape[1]


def _gathered_product(A_shard: Tensor, B: Tensor, dim: int, group: str) -> Tensor:
    """An empty product."""
    return _empty(A_shard, *_gathered_shape(A_shard, B, dim, group))


def _joined(A_shard: Tensor, B: Tensor, dim: int, group: str) -> tuple[Tensor, Tensor]:
    """Empty results: the product and the joined operand."""
    return _gathered_product(A_shard, B, dim, group), _empty_joined(A_shard, dim, group)


@operation("all_gather_matmul", mutates_args=())
def _all_gather_matmul(
    A_shard: Tensor, B: Tensor, bias: Tensor | None, gather_dim: int, group: str
) -> tuple[Tensor, Tensor]:
    C, joined = _joined(A_shard, B, gather_dim, group)
    ops[group].all_gather_matmul_hbm_buffer(C, A_shard, B, bias, gather_dim, A_gathered=joined)
    return C, joined


@_all_gather_matmul.register_fake
def _(
    A_shard: Tensor, B: Tensor, bias: Tensor | None, gather_dim: int, group: str
) -> tuple[Tensor, Tensor]:
    return _joined(A_shard, B, gather_dim, group)


# ---- the same of several B, with one gathering ----


def _expect_factors(columns: int, B: Sequence[Tensor], bias: Sequence[Tensor | None]) -> None:
    if not B:
        raise ValueError("B: expected one tensor or more, got an empty list")
    if len(bias) != len(B):
        raise ValueError(f"bias: expected {len(B)}, one for each of B, got {len(bias)}")
    _expect_matrices(**{f"B[{i}]": factor for i, factor in enumerate(B)})
    for i, factor in enumerate(B):
        torch._check(
            factor.shape[0] == columns,
            lambda i=i, factor=factor: (
                f"B[{i}]: expected {columns} rows, the columns of A, got {factor.shape[0]}"
            ),
        )


@operation("all_gather_matmul_list", mutates_args=())
def _all_gather_matmul_list(
    A_shard: Tensor,
    B: Sequence[Tensor],
    bias: Sequence[Tensor | None],
    gather_dim: int,
    group: str,
) -> list[Tensor]:
    """The products, then the joined operand.

    The widest B is multiplied while the operand arrives, the others when it is there: to join the
    B's, so that one product could do, would move all their elements in each call.
    """
    results = _joined_list(A_shard, B, bias, gather_dim, group)
    joined = results[-1]
    first = max(range(len(B)), key=lambda i: B[i].shape[1])
    ops[group].all_gather_matmul_hbm_buffer(
        results[first], A_shard, B[first], bias[first], gather_dim, A_gathered=joined
    )
    with without_autocast(joined):
        for i, (factor, addend) in enumerate(zip(B, bias, strict=True)):
            if i != first:
                _multiply(joined, factor, addend, results[i])
    return results


def _multiply(A: Tensor, B: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(A, B, out=out)
    else:
        torch.addmm(bias, A, B, out=out)


def _joined_list(
    A_shard: Tensor, B: Sequence[Tensor], bias: Sequence[Tensor | None], dim: int, group: str
) -> list[Tensor]:
    """Empty results."""
    _expect_matrices(A_shard=A_shard)
    _expect_dimension("gather_dim", dim)
    joined = _empty_joined(A_shard, dim, group)
    _expect_factors(joined.shape[1], B, bias)
    return [*(_empty(A_shard, joined.shape[0], factor.shape[1]) for factor in B), joined]


@_all_gather_matmul_list.register_fake
def _(
    A_shard: Tensor,
    B: Sequence[Tensor],
    bias: Sequence[Tensor | None],
    gather_dim: int,
    group: str,
) -> list[Tensor]:
    return _joined_list(A_shard, B, bias, gather_dim, group)


# ---- the same without the joined operand, which takes time to store ----


@operation("gathered_matmul", mutates_args=())
def _gathered_matmul(
    A_shard: Tensor, B: Tensor, bias: Tensor | None, gather_dim: int, group: str
) -> Tensor:
    C = _gathered_product(A_shard, B, gather_dim, group)
    ops[group].all_gather_matmul_hbm_buffer(C, A_shard, B, bias, gather_dim)
    return C


@_gathered_matmul.register_fake
def _(A_shard: Tensor, B: Tensor, bias: Tensor | None, gather_dim: int, group: str) -> Tensor:
    return _gathered_product(A_shard, B, gather_dim, group)


# ---- all ranks' A_r @ B_r, one below the other ----


@operation("matmul_all_gather_out", mutates_args={"C"})
def _matmul_all_gather_out(
    C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, group: str
) -> None:
    ops[group].matmul_all_gather(C, A, B, bias, True)


@operation("matmul_all_gather", mutates_args=())
def _matmul_all_gather(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    M, N = _product_shape(A, B)
    ctx = context(group)
    C = _results.empty(ctx, A, M * ctx.world_size, N)
    ops[group].matmul_all_gather(C, A, B, bias, True)
    return C


@_matmul_all_gather.register_fake
def _(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    return _empty_product(A, B, world_size(group))


# ---- C = A @ B of an A that is equal on all ranks: only the gradient is shared ----


@operation("matmul_replicated", mutates_args=())
def _matmul_replicated(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    context(group)  # which only the gradient needs; a wrong name is an error now
    _expect_matrices(A=A, B=B)
    # Autocast has changed what an operation is given; it would change the result besides.
    with without_autocast(A):
        return A @ B if bias is None else torch.addmm(bias, A, B)


@_matmul_replicated.register_fake
def _(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    return _empty_product(A, B)


@operation("matmul_replicated_list", mutates_args=())
def _matmul_replicated_list(
    A: Tensor, B: Sequence[Tensor], bias: Sequence[Tensor | None], group: str
) -> list[Tensor]:
    """Of several B: the gradient of A is one sum over the ranks."""
    context(group)
    results = _replicated_list(A, B, bias)
    with without_autocast(A):
        for factor, addend, result in zip(B, bias, results, strict=True):
            _multiply(A, factor, addend, result)
    return results


def _replicated_list(A: Tensor, B: Sequence[Tensor], bias: Sequence[Tensor | None]) -> list[Tensor]:
    """Empty products."""
    _expect_matrices(A=A)
    _expect_factors(A.shape[1], B, bias)
    return [_empty(A, A.shape[0], factor.shape[1]) for factor in B]


@_matmul_replicated_list.register_fake
def _(A: Tensor, B: Sequence[Tensor], bias: Sequence[Tensor | None], group: str) -> list[Tensor]:
    return _replicated_list(A, B, bias)


# ---- sum over ranks ----


@operation("all_reduce_out", mutates_args={"output"})
def _all_reduce_out(output: Tensor, input: Tensor, op: str, group: str) -> None:
    context(group).ccl.all_reduce(output, input, op)


@operation("all_reduce", mutates_args=())
def _all_reduce(input: Tensor, op: str, group: str) -> Tensor:
    if input.layout == torch.strided:  # what else there is, the core refuses
        input = input.contiguous()
    ctx = context(group)
    output = _results.empty(ctx, input, *input.shape)
    ctx.ccl.all_reduce(output, input, op)
    return output


@_all_reduce.register_fake
def _(input: Tensor, op: str, group: str) -> Tensor:
    return _empty(input, *input.shape)


# ---- what gradients are made of besides: between replicated tensors and each rank's own ----


@operation("own_copy", mutates_args=())
def _own_copy(input: Tensor, group: str) -> Tensor:
    """A replicated tensor, as an operand of this rank's own."""
    context(group)
    return input.clone(memory_format=torch.contiguous_format)


@_own_copy.register_fake
def _(input: Tensor, group: str) -> Tensor:
    return torch.empty_like(input, memory_format=torch.contiguous_format)


@operation("own_part", mutates_args=())
def _own_part(input: Tensor, dim: int, group: str) -> Tensor:
    """This rank's part, along `dim`, of a replicated tensor."""
    output = _empty_part(input, dim, group)
    size = output.shape[dim]
    return output.copy_(input.narrow(dim, context(group).rank * size, size))


@_own_part.register_fake
def _(input: Tensor, dim: int, group: str) -> Tensor:
    return _empty_part(input, dim, group)


@operation("all_gather", mutates_args=())
def _all_gather(input: Tensor, dim: int, group: str) -> Tensor:
    """All ranks' parts, joined along `dim`: a replicated tensor."""
    return _gathered(input, dim, group)


@_all_gather.register_fake
def _(input: Tensor, dim: int, group: str) -> Tensor:
    return _empty_joined(input, dim, group)


@operation("own_gathered", mutates_args=())
def _own_gathered(input: Tensor, dim: int, group: str) -> Tensor:
    """All ranks' parts, joined along `dim`, as an operand of this rank's own."""
    return _gathered(input, dim, group)


@_own_gathered.register_fake
def _(input: Tensor, dim: int, group: str) -> Tensor:
    return _empty_joined(input, dim, group)


@operation("reduce_scatter", mutates_args=())
def _reduce_scatter(input: Tensor, dim: int, group: str) -> Tensor:
    """This rank's part, along `dim`, of the sum over ranks."""
    output, world_size = _empty_part(input, dim, group), context(group).world_size
    parts = input.unflatten(dim, (world_size, output.shape[dim])).movedim(dim, 0)
    context(group).ccl.reduce_scatter(output, parts.contiguous(), "sum")
    return output


@_reduce_scatter.register_fake
def _(input: Tensor, dim: int, group: str) -> Tensor:
    return _empty_part(input, dim, group)


def _gathered(input: Tensor, dim: int, group: str) -> Tensor:
    """The parts arrive one after the other; where `dim` is not the first dimension but for some
    of size 1, they are joined by a copy."""
    ctx = context(group)
    parts = _results.empty(ctx, input, ctx.world_size, *input.shape)
    ctx.ccl.all_gather(parts, input.contiguous())
    shape = list(input.shape)
    shape[dim] *= ctx.world_size
    return parts.movedim(0, dim).contiguous().view(shape)


def _empty_part(input: Tensor, dim: int, group: str) -> Tensor:
    shape, world = list(input.shape), world_size(group)
    torch._check(
        shape[dim] % world == 0,
        lambda: (
            f"input: expected a multiple of world_size {world} along dim={dim}, got {shape[dim]}"
        ),
    )
    shape[dim] = shape[dim] // world
    return _empty(input, *shape)


def _empty_joined(input: Tensor, dim: int, group: str) -> Tensor:
    shape = list(input.shape)
    shape[dim] = shape[dim] * world_size(group)
    return _empty(input, *shape)
