# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Key and value heads among ranks of which there may be more than heads (Ainslie et al., "GQA",
2023).

Several query heads share a key and value head. Where the query heads are divided among more ranks
than there are such heads, the ranks whose query heads share one have a copy of it each. The copies
are one parameter: each rank's gradient is a part of it, and they are added up, so the copies stay
equal.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iris_c.torch._groups import context, name_of
from iris_c.torch._replicas import name_of_copies
from iris_c.torch.layers import ColumnParallelLinear

__all__ = ["KVParallelLinear"]


class KVParallelLinear(ColumnParallelLinear):
    """A column-parallel layer of key or value heads, which there may be fewer of than ranks.

    Of heads = n * world_size each rank has n, as in a ColumnParallelLinear. Of fewer heads each
    is on `copies` = world_size / heads neighbouring ranks, whose gradients of it are added up. In
    either case rank r has the heads that query heads r * q, ..., (r + 1) * q - 1 use, where a
    column-parallel layer has q query heads a rank.

    Where the parameters are DTensors, they are on a mesh of (heads, copies), divided along the one
    and replicated along the other: checkpoints have the whole layer once. Elsewhere
    `weight.part.copies` tells of the copies.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the whole layer. out_features is a multiple of `heads`.
    bias : bool
        Whether the layer adds b.
    heads : int
        Key, or value, heads of the whole layer: a multiple of world_size, or a divisor.
    **options
        ctx, sequence_parallel, device and dtype, as ColumnParallelLinear's.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, heads: int, **options: Any
    ) -> None:
        if options.get("gather_output"):
            raise ValueError("gather_output: expected False, since heads may have copies")
        group = name_of(options.pop("ctx", None))
        world_size = context(group).world_size
        if heads < 1 or out_features % heads != 0:
            raise ValueError(
                f"heads: expected a divisor of out_features {out_features}, got {heads}"
            )
        if heads % world_size != 0 and world_size % heads != 0:
            raise ValueError(
                f"heads: expected a multiple or a divisor of world_size {world_size}, got {heads}"
            )
        self.heads, self.copies = heads, max(1, world_size // heads)
        self._copies_group = name_of_copies(group, self.copies) if self.copies > 1 else group
        super().__init__(in_features, out_features, bias, ctx=group, **options)

    def _local(self, name: str) -> Tensor | None:
        """As DividedModule's; its gradient is the sum of those of all copies."""
        tensor = super()._local(name)
        if tensor is None or self.copies == 1:
            return tensor
        if not (torch.is_grad_enabled() and tensor.requires_grad):
            return tensor  # nothing to add up, and no need of a copy
        own: Tensor = torch.ops.iris_c.own_copy(tensor, self._copies_group)
        return own

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, heads={self.heads}, copies={self.copies}"
