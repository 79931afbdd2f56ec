# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The ranks of several nodes: within a node by iris_c, between nodes by torch.distributed.

What crosses the network is the least there can be: of a sum, one partial result of each node for
each share; of a gathered tensor, each rank's part once to each other node. It crosses while the
node multiplies what comes next.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

import iris_c
from iris_c.torch._across import Across
from iris_c.torch._nodes_collectives import NodesCollectives
from iris_c.torch._nodes_products import NodesProducts

__all__ = ["Nodes"]


class Nodes:
    """The ranks of a process group on several nodes, with equally many on each.

    Stands where a context would: its `ops` have the fused products, its `ccl` has `all_reduce`,
    `all_gather` and `reduce_scatter`. The other operations raise NotImplementedError.

    Attributes
    ----------
    ctx : Context
        The ranks on this node.
    across : ProcessGroup
        One rank of each node: those that have this rank's place on their node.
    members : list of list of int
        The ranks in the whole group on each node, in the order of their places.
    rank, world_size : int
        This rank in, and the size of, the whole group.
    """

    def __init__(
        self,
        ctx: iris_c.Context,
        across: dist.ProcessGroup,
        members: list[list[int]],
        rank: int,
        peers: list[int],
    ) -> None:
        """`peers`: the ranks of `across` in the world of torch.distributed, node by node."""
        self.ctx, self.across, self.members, self.rank = ctx, across, members, rank
        self.world_size = sum(len(ranks) for ranks in members)
        self.node = next(node for node, ranks in enumerate(members) if rank in ranks)
        exchange = Across(across, peers, self.node)
        self.ccl = NodesCollectives(ctx, exchange, members)
        self.ops = NodesProducts(ctx, exchange, members, self.ccl)

    @property
    def device(self) -> Any:
        """This rank's device."""
        return self.ctx.device

    @property
    def backend(self) -> str:
        """This rank's backend."""
        return self.ctx.backend

    def barrier(self) -> None:
        """Wait until all ranks of all nodes have arrived. Collective."""
        self.ctx.barrier()
        dist.barrier(self.across)
        self.ctx.barrier()

    def close(self) -> None:
        """Close the context of this node's ranks."""
        self.ctx.close()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<iris_c.torch.Nodes rank={self.rank} world_size={self.world_size} "
            f"nodes={len(self.members)}>"
        )
