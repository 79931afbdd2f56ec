# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tensors that are divided among the ranks along one dimension, as the tokens of a sequence.

What a model does between tensor-parallel layers with this rank's tokens alone it does on *own*
tensors; what all ranks do alike, on *replicated* ones (_gradients.py, NOTE [own and replicated]).
These functions lead from one to the other, of any shape and along any dimension. Megatron-LM has
the same ones in tensor_parallel/mappings.py.

    function                      result                             its gradient
    all_gather                    own: all parts, joined             reduce_scatter
    all_gather, replicated=True   replicated: all parts, joined      scatter
    reduce_scatter                own: this rank's part of the sum   all_gather
    scatter                       own: this rank's part              all_gather, replicated=True
    copy_to_ranks                 own: the same                      all_reduce
    all_reduce (functions.py)     replicated: the sum                copy_to_ranks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import iris_c.torch._gradients  # noqa: F401  (the operations, and their gradients)
from iris_c.torch import _parts
from iris_c.torch._groups import Named, context, name_of

__all__ = ["all_gather", "copy_to_ranks", "reduce_scatter", "scatter"]


def _tensor(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a Tensor, got {type(x).__name__}")


def _dimension(x: Any, dim: Any) -> int:
    """The dimension's number from the front."""
    _tensor(x)
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"dim: expected an int, got {type(dim).__name__}")
    if x.dim() == 0:
        raise ValueError("x: expected one dimension or more, got a tensor without any")
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim: expected {-x.dim()} to {x.dim() - 1}, got {dim}")
    return dim if dim >= 0 else dim + int(x.dim())


def all_gather(
    x: Tensor,
    dim: int = 0,
    *,
    sizes: _parts.Sizes = None,
    replicated: bool = False,
    ctx: Named = None,
) -> Tensor:
    """Return all ranks' parts, joined along `dim` in the order of the ranks. Collective.

    Parameters
    ----------
    x : Tensor
        This rank's part, of any dtype. Parts may differ in size along `dim`, and be empty.
    dim : int
        The dimension that is divided; negative ones count from the last.
    sizes : sequence of int, 'equal' or None
        All ranks' sizes along `dim`. None: the hosts of the ranks tell each other, and wait for
        each other, not for their devices. Under torch.compile None is 'equal'. Where sizes that
        are to be equal are not, all ranks get a ValueError.
    replicated : bool
        What is computed from the result. False: each rank computes something of its own, as a
        column-parallel layer does, so the gradients of all are summed (reduce_scatter). True: all
        ranks compute the same, as a loss of the whole, which counts once: the gradient is this
        rank's part (scatter).
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    """
    dim, group = _dimension(x, dim), name_of(ctx)
    known = _parts.agreed_sizes(x, x.shape[dim], sizes, group)
    if known is not None:
        x = _parts.filled(x, dim, max(known))
    gather = torch.ops.iris_c.all_gather if replicated else torch.ops.iris_c.own_gathered
    return _parts.joined_of(gather(x, dim, group), dim, known)


def reduce_scatter(
    x: Tensor, dim: int = 0, *, sizes: Sequence[int] | None = None, ctx: Named = None
) -> Tensor:
    """Return this rank's part, along `dim`, of the sum of all ranks' tensors. Collective.

    Parameters
    ----------
    x : Tensor
        Of one shape on all ranks, in a dtype of iris_c.ccl.reduce_scatter.
    dim : int
        The dimension that is divided; negative ones count from the last.
    sizes : sequence of int or None
        All ranks' sizes along `dim` of the result. None: as torch.chunk divides it, but with
        parts for all ranks, of which the last ones may be empty.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    """
    dim, group = _dimension(x, dim), name_of(ctx)
    ctx_of_group, total = context(group), x.shape[dim]
    world_size = ctx_of_group.world_size
    if sizes is not None:
        if len(sizes) != world_size or any(s < 0 for s in sizes) or sum(sizes) != total:
            raise ValueError(
                f"sizes: expected {world_size} sizes, one of each rank, that add up to {total}, "
                f"got {list(sizes)}"
            )
        x = _parts.spread(x, dim, sizes)
        part: Tensor = torch.ops.iris_c.reduce_scatter(x, dim, group)
        return part.narrow(dim, 0, sizes[ctx_of_group.rank]).contiguous()
    return _own_part(torch.ops.iris_c.reduce_scatter, x, dim, group)


def scatter(x: Tensor, dim: int = 0, *, ctx: Named = None) -> Tensor:
    """Return this rank's part, along `dim`, of a tensor that all ranks have alike.

    Communicates nothing; the gradient, which is all ranks' parts joined, does, so it is collective.
    The dimension is divided as torch.chunk does, but with parts for all ranks, of which the last
    ones may be empty. The parameters are those of reduce_scatter.
    """
    dim, group = _dimension(x, dim), name_of(ctx)
    return _own_part(torch.ops.iris_c.own_part, x, dim, group)


def _own_part(operation: Any, x: Tensor, dim: int, group: str) -> Tensor:
    """What an operation that divides evenly says is this rank's part."""
    total, world_size = x.shape[dim], context(group).world_size
    if total % world_size == 0:
        even: Tensor = operation(x, dim, group)
        return even
    x = _parts.filled(x, dim, -(-total // world_size) * world_size)
    uneven: Tensor = _parts.part_of(operation(x, dim, group), dim, total, group)
    return uneven


def copy_to_ranks(x: Tensor, *, ctx: Named = None) -> Tensor:
    """Return a copy of a tensor that all ranks have alike, as an operand of this rank's own.

    Communicates nothing; the gradient, the sum of all ranks', does, so it is collective. It is for
    a parameter, or a tensor, that each rank combines with tensors of its own.
    """
    _tensor(x)
    copy: Tensor = torch.ops.iris_c.own_copy(x, name_of(ctx))
    return copy
