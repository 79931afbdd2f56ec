# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What passes between nodes: each rank speaks with those that have its place on the others.

In step s every node sends to the s-th one after it and receives from the s-th one before it, so
that in n - 1 steps each has heard from each, and no link has two senders at a time. A step is one
pair of a send and a receive that torch.distributed begins together, in the same order everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Across", "Arrival", "reduce_parts"]


class Arrival(NamedTuple):
    """A tensor on its way from another node."""

    node: int
    tensor: Tensor
    works: list[dist.Work]
    sent: Tensor  # kept until the exchange is over

    def wait(self) -> Tensor:
        """The tensor, once it is there; on GPUs the current stream waits, not the host."""
        for work in self.works:
            work.wait()
        return self.tensor


class Across:
    """The ranks with one place on all nodes.

    Parameters
    ----------
    group : ProcessGroup
    ranks : sequence of int
        Their ranks in the world of torch.distributed, in the order of the nodes.
    node : int
        This rank's node.
    """

    def __init__(self, group: dist.ProcessGroup, ranks: Sequence[int], node: int) -> None:
        self.group, self.ranks, self.node = group, list(ranks), node

    @property
    def steps(self) -> range:
        return range(1, len(self.ranks))

    def receiver(self, step: int) -> int:
        """The node to which this one sends in a step."""
        return (self.node + step) % len(self.ranks)

    def exchange(self, step: int, outgoing: Tensor) -> Arrival:
        """Begins a step; what arrives has the shape and dtype of what is sent."""
        outgoing = outgoing.contiguous()
        sender = (self.node - step) % len(self.ranks)
        incoming = torch.empty_like(outgoing)
        if outgoing.numel() == 0:
            return Arrival(sender, incoming, [], outgoing)
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, outgoing, self.ranks[self.receiver(step)], self.group),
                dist.P2POp(dist.irecv, incoming, self.ranks[sender], self.group),
            ]
        )
        return Arrival(sender, incoming, works, outgoing)

    def send_to_all(self, outgoing: Tensor) -> list[Arrival]:
        """Begins all steps with one tensor."""
        return [self.exchange(step, outgoing) for step in self.steps]

    def in_order(self, own: Tensor, arrivals: Sequence[Arrival]) -> list[Tensor]:
        """One tensor of each node, in their order: so all ranks reduce them alike."""
        parts = {arrival.node: arrival.wait() for arrival in arrivals}
        parts[self.node] = own
        return [parts[node] for node in range(len(self.ranks))]


_REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "prod": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
}


def reduce_parts(parts: Sequence[Tensor], op: str, bias: Tensor | None = None) -> Tensor:
    """The reduction of equally shaped tensors, in their order, plus a bias that broadcasts.

    What has 16 bits is reduced in float32 and rounded once.
    """
    dtype = parts[0].dtype
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    result = parts[0].to(wide)
    for part in parts[1:]:
        result = _REDUCTIONS[op](result, part.to(wide))
    if bias is not None:
        result = result + bias.to(wide)
    return result.to(dtype)
