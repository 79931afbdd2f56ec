# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A tensor of all ranks' parts, seen node by node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["NodeParts"]


class NodeParts:
    """Where the parts of a node's ranks lie in a tensor that is divided among all ranks.

    They are a view where the node's ranks follow one another in the whole group, as they do in
    every usual launch; else they are copied.

    Parameters
    ----------
    members : list of list of int
        The ranks on each node, in the order of their places.
    """

    def __init__(self, members: list[list[int]]) -> None:
        self.members = members
        self.world_size = sum(len(ranks) for ranks in members)

    def _first(self, node: int) -> int | None:
        """The node's first rank, if the others follow it."""
        ranks = self.members[node]
        return ranks[0] if ranks == list(range(ranks[0], ranks[0] + len(ranks))) else None

    def of_node(self, whole: Tensor, node: int, dim: int = 0) -> Tensor:
        """The parts of a node's ranks, joined in the order of their places."""
        size = whole.shape[dim] // self.world_size
        first, ranks = self._first(node), self.members[node]
        if first is not None:
            return whole.narrow(dim, first * size, len(ranks) * size)
        return torch.cat([whole.narrow(dim, rank * size, size) for rank in ranks], dim)

    @contextlib.contextmanager
    def written(self, whole: Tensor, node: int, dim: int = 0) -> Iterator[Tensor]:
        """A tensor to write the parts of a node's ranks into; at the end they are in `whole`."""
        parts = self.of_node(whole, node, dim)
        yield parts
        if self._first(node) is None:
            size = whole.shape[dim] // self.world_size
            for place, rank in enumerate(self.members[node]):
                whole.narrow(dim, rank * size, size).copy_(parts.narrow(dim, place * size, size))

    def by_place(self, whole: Tensor, place: int, dim: int = 0) -> Tensor:
        """The parts of the ranks with one place, joined in the order of the nodes."""
        size = whole.shape[dim] // self.world_size
        return torch.cat(
            [whole.narrow(dim, ranks[place] * size, size) for ranks in self.members], dim
        )
