# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The operations as functions: contexts by name or as such, autocast, given results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

import iris_c.torch._gradients  # noqa: F401  (the operations, and their gradients)
from iris_c.torch._autocast import in_autocast_dtype, list_in_autocast_dtype
from iris_c.torch._groups import Named, name_of
from iris_c.torch._reductions import reduction_name
from iris_c.typing import Reduction


def _dimension(name: str, dim: Any) -> int:
    """What is an int, since torch's schemas take True for 1."""
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"{name}: expected an int, got {type(dim).__name__}")
    return dim


def matmul_all_reduce(
    A: Tensor,
    B: Tensor,
    bias: Tensor | None = None,
    *,
    ctx: Named = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return the sum over ranks of A_r (M, K) @ B_r (K, N), plus bias. Collective.

    The result is equal on all ranks. The gradients of A and B are products of this rank alone.

    Parameters
    ----------
    A, B : Tensor
        This rank's factors: 2-D, float32, float16 or bfloat16, any strides.
    bias : Tensor or None
        Broadcasts to (M, N), is equal on all ranks and is added once.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    out : Tensor or None
        The tensor to write into; such a call has no gradient. None: a new one.

    Raises
    ------
    RuntimeError
        `out` is given and an argument requires grad, under grad mode.
    """
    if out is not None:
        torch.ops.iris_c.matmul_all_reduce_out(out, A, B, bias, name_of(ctx))
        return out
    result: Tensor = torch.ops.iris_c.matmul_all_reduce(
        *in_autocast_dtype(A, B, bias), name_of(ctx)
    )
    return result


def matmul_reduce_scatter(
    A: Tensor,
    B: Tensor,
    bias: Tensor | None = None,
    dim: int = 0,
    *,
    ctx: Named = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return this rank's share of the sum over ranks of A_r @ B_r, plus bias. Collective.

    The share is the rank-th of world_size equal parts: of the rows for `dim` 0, of the columns for
    1. `bias` broadcasts to the share; one that broadcasts along `dim` is equal on all ranks. The
    gradient is computed by all_gather_matmul. The other parameters are those of matmul_all_reduce.
    """
    if out is not None:
        torch.ops.iris_c.matmul_reduce_scatter_out(
            out, A, B, bias, _dimension("dim", dim), name_of(ctx)
        )
        return out
    result: Tensor = torch.ops.iris_c.matmul_reduce_scatter(
        *in_autocast_dtype(A, B, bias), _dimension("dim", dim), name_of(ctx)
    )
    return result


def _listed(
    B: Sequence[Tensor], bias: Sequence[Tensor | None] | None
) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """Several factors, and a bias or None for each."""
    if bias is not None and not isinstance(bias, list | tuple):
        raise TypeError(
            f"bias: expected a list beside a list of B, or None, got {type(bias).__name__}"
        )
    return B, [None] * len(B) if bias is None else bias


@overload
def all_gather_matmul(
    A_shard: Tensor,
    B: Tensor,
    bias: Tensor | None = None,
    gather_dim: int = 0,
    *,
    ctx: Named = None,
) -> tuple[Tensor, Tensor]: ...
@overload
def all_gather_matmul(
    A_shard: Tensor,
    B: Sequence[Tensor],
    bias: Sequence[Tensor | None] | None = None,
    gather_dim: int = 0,
    *,
    ctx: Named = None,
) -> tuple[list[Tensor], Tensor]: ...
def all_gather_matmul(
    A_shard: Tensor,
    B: Any,
    bias: Any = None,
    gather_dim: int = 0,
    *,
    ctx: Named = None,
) -> Any:
    """Return A @ B + bias, and A: all ranks' A_shard, joined along `gather_dim`. Collective.

    Both results are this rank's own: matmul_reduce_scatter adds up the gradients of all ranks. The
    gradient of B uses the A that is there. The other parameters are those of matmul_all_reduce.

    With a list of B, and one of biases or None, the first result is the list of products. A is
    gathered once, while it is multiplied by the widest B, and its gradient is one
    matmul_reduce_scatter.
    """
    dim = _dimension("gather_dim", gather_dim)
    if isinstance(B, list | tuple):
        *products, joined = torch.ops.iris_c.all_gather_matmul_list(
            *list_in_autocast_dtype(A_shard, *_listed(B, bias)), dim, name_of(ctx)
        )
        return products, joined
    return torch.ops.iris_c.all_gather_matmul(
        *in_autocast_dtype(A_shard, B, bias), dim, name_of(ctx)
    )


def gathered_matmul(
    A_shard: Tensor,
    B: Tensor,
    bias: Tensor | None = None,
    gather_dim: int = 0,
    *,
    ctx: Named = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return the first result of all_gather_matmul alone, which takes less time. Collective.

    A gradient of B gathers A once more: where there will be one, all_gather_matmul is faster. The
    other parameters are those of all_gather_matmul and matmul_all_reduce.
    """
    dim = _dimension("gather_dim", gather_dim)
    if out is not None:
        torch.ops.iris_c.all_gather_matmul_out(out, None, A_shard, B, bias, dim, name_of(ctx))
        return out
    result: Tensor = torch.ops.iris_c.gathered_matmul(
        *in_autocast_dtype(A_shard, B, bias), dim, name_of(ctx)
    )
    return result


def matmul_all_gather(
    A: Tensor,
    B: Tensor,
    bias: Tensor | None = None,
    *,
    ctx: Named = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return the products A_r @ B_r + bias_r of all ranks, one below the other. Collective.

    The result is equal on all ranks; `bias` is this rank's own. The other parameters are those of
    matmul_all_reduce.
    """
    if out is not None:
        torch.ops.iris_c.matmul_all_gather_out(out, A, B, bias, name_of(ctx))
        return out
    result: Tensor = torch.ops.iris_c.matmul_all_gather(
        *in_autocast_dtype(A, B, bias), name_of(ctx)
    )
    return result


@overload
def matmul_replicated(
    A: Tensor, B: Tensor, bias: Tensor | None = None, *, ctx: Named = None
) -> Tensor: ...
@overload
def matmul_replicated(
    A: Tensor,
    B: Sequence[Tensor],
    bias: Sequence[Tensor | None] | None = None,
    *,
    ctx: Named = None,
) -> list[Tensor]: ...
def matmul_replicated(A: Tensor, B: Any, bias: Any = None, *, ctx: Named = None) -> Any:
    """Return A @ B + bias of an A that is equal on all ranks and a B that is this rank's own.

    The forward pass communicates nothing. The gradient of A is computed by matmul_all_reduce, so
    the backward pass is collective. The other parameters are those of matmul_all_reduce.

    With a list of B, and one of biases or None, the result is the list of products, and the
    gradient of A is one matmul_all_reduce.
    """
    if isinstance(B, list | tuple):
        return torch.ops.iris_c.matmul_replicated_list(
            *list_in_autocast_dtype(A, *_listed(B, bias)), name_of(ctx)
        )
    return torch.ops.iris_c.matmul_replicated(*in_autocast_dtype(A, B, bias), name_of(ctx))


def all_reduce(
    input: Tensor,
    op: Reduction = "sum",
    *,
    ctx: Named = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return the reduction of all ranks' tensors, equal on all ranks. Collective.

    `op` is one of those of iris_c.ccl.all_reduce; 'sum' and 'avg' have a gradient. `ctx` and `out`
    are those of matmul_all_reduce.
    """
    op = reduction_name(op)
    if out is not None:
        torch.ops.iris_c.all_reduce_out(out, input, op, name_of(ctx))
        return out
    result: Tensor = torch.ops.iris_c.all_reduce(input, op, name_of(ctx))
    return result
