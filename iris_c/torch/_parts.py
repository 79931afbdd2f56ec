# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How a dimension of a tensor is divided among the ranks.

Collectives divide evenly. Parts of other sizes are filled up with zeros to the largest on the way
in, and what is too much is left away on the way out; both are torch's operations, so they have
derivatives, and are traced, as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

import iris_c
from iris_c.torch._groups import context
from iris_c.torch._nodes import Nodes

__all__ = [
    "Sizes",
    "agreed_sizes",
    "bounds",
    "checked_sequence_dim",
    "filled",
    "joined_of",
    "part_of",
    "spread",
]


def bounds(size: int, world_size: int, rank: int) -> tuple[int, int]:
    """The rank's range of a dimension, as torch.chunk and DTensor's Shard divide it: the first
    ranks have ceil(size / world_size) each, the last ones the rest, or nothing."""
    step = -(-size // world_size)
    return min(rank * step, size), min((rank + 1) * step, size)


def checked_sequence_dim(dim: int) -> int:
    """A dimension that a sequence may have, which is not the last one."""
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"sequence_dim: expected an int, got {type(dim).__name__}")
    if dim == -1:
        raise ValueError("sequence_dim: expected another dimension than the last, got -1")
    return dim


# All ranks' sizes of a divided dimension: told, or all equal, or (None) to be found.
Sizes: TypeAlias = Sequence[int] | Literal["equal"] | None


def agreed_sizes(x: Tensor, size: int, sizes: Sizes, group: str) -> list[int] | None:
    """All ranks' sizes of a dimension of `x`, of which this rank has `size`; None: all are equal.

    Collective if `sizes` is None: the hosts tell each other, without waiting for a device. While
    torch.compile traces, and of tensors without values, they do not; sizes count as equal then,
    and ranks that have others get the core's error.
    """
    ctx = context(group)
    if sizes is None:
        if ctx.world_size == 1 or torch.compiler.is_compiling():
            return None
        if x.is_meta or type(x).__name__ == "FakeTensor":
            return None
        sizes = _told(ctx, int(size))
    elif isinstance(sizes, str):
        if sizes != "equal":
            raise ValueError(f"sizes: expected sizes, None or 'equal', got {sizes!r}")
        return None
    elif len(sizes) != ctx.world_size or any(s < 0 for s in sizes) or sizes[ctx.rank] != size:
        raise ValueError(
            f"sizes: expected {ctx.world_size} sizes, one of each rank, this rank's being {size}, "
            f"got {list(sizes)}"
        )
    return None if all(s == sizes[0] for s in sizes) else list(sizes)


def _told(ctx: iris_c.Context | Nodes, size: int) -> Sequence[int]:
    """All ranks' sizes."""
    if not isinstance(ctx, Nodes):
        return ctx._exchange(size)
    # The hosts of several nodes have no memory in common, but a network that devices use.
    own = torch.tensor([size], device=ctx.device)
    sizes = own.new_empty(ctx.world_size)
    ctx.ccl.all_gather(sizes, own)
    told: list[int] = sizes.tolist()
    return told


def filled(x: Tensor, dim: int, size: int) -> Tensor:
    """`x` with zeros behind it along `dim`, up to `size`."""
    lacking = size - x.shape[dim]
    return pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, lacking]) if lacking else x


def joined_of(joined: Tensor, dim: int, sizes: Sequence[int] | None) -> Tensor:
    """All ranks' parts without what has filled them up to one size."""
    if sizes is None:
        return joined
    most, total = max(sizes), sum(sizes)
    if all(size == max(0, min(most, total - rank * most)) for rank, size in enumerate(sizes)):
        return joined.narrow(dim, 0, total).contiguous()  # what is too much is at the end
    parts = [joined.narrow(dim, rank * most, size) for rank, size in enumerate(sizes)]
    return torch.cat(parts, dim)


def spread(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """What joined_of undoes: the ranks' parts of `x`, each filled up to the largest."""
    most = max(sizes)
    return torch.cat([filled(part, dim, most) for part in x.split(list(sizes), dim)], dim)


def part_of(x: Tensor, dim: int, size: int, group: str) -> Tensor:
    """This rank's part, of which `x` has been filled up, of a dimension of `size`."""
    ctx = context(group)
    start, stop = bounds(size, ctx.world_size, ctx.rank)
    return x.narrow(dim, 0, stop - start).contiguous()
