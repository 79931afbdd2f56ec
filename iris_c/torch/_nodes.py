# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Sums over the ranks of several nodes: within a node by iris_c, across by torch.distributed.

Each rank gets its share of the node's sum, adds it up with the ranks that have the same share on
the other nodes, and the node's ranks gather the result: what crosses the network is one share a
rank, the least there can be.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import iris_c
from iris_c.torch._reductions import reduction_name
from iris_c.typing import Reduction

__all__ = ["Nodes"]

ACROSS = {
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
    "prod": dist.ReduceOp.PRODUCT,
}


class _Sums:
    """The operations that work across nodes, called as those of a context are."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(
            f"{name}: works among ranks of one node; across nodes there are matmul_all_reduce and "
            "all_reduce"
        )

    def matmul_all_reduce(
        self, C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None, async_op: bool = True
    ) -> None:
        """C = sum over all ranks of A_r @ B_r, + bias; see iris_c.ops.matmul_all_reduce."""
        local, shape = self._nodes.ctx, (A.shape[0], B.shape[1])
        if tuple(C.shape) != shape:
            raise ValueError(f"C: expected shape {shape}, got {tuple(C.shape)}")
        rows = -(-shape[0] // local.world_size) * local.world_size
        if rows != shape[0]:  # shares are of one size
            A = torch.cat([A, A.new_zeros(rows - shape[0], A.shape[1])])
        share = A.new_empty(rows // local.world_size, shape[1])
        local.ops.matmul_reduce_scatter(share, A, B)
        C.copy_(self._finished(share, dist.ReduceOp.SUM)[: shape[0]])
        if bias is not None:
            C += bias

    def all_reduce(self, output: Tensor, input: Tensor, op: Reduction = "sum") -> None:
        """output = all ranks' input reduced; see iris_c.ccl.all_reduce."""
        op, local, count = reduction_name(op), self._nodes.ctx, input.numel()
        size = -(-count // local.world_size)
        if size == 0:
            return
        flat = input.new_zeros(size * local.world_size)
        flat[:count] = input.reshape(-1)
        share = input.new_empty(size)
        within = "sum" if op == "avg" else op
        local.ccl.reduce_scatter(share, flat, within)
        output.copy_(self._finished(share, ACROSS[within])[:count].view(output.shape))
        if op == "avg":
            # Integers are rounded towards zero, as within a node.
            rounding = None if output.is_floating_point() else "trunc"
            output.copy_(torch.div(output, self._nodes.world_size, rounding_mode=rounding))

    def _finished(self, share: Tensor, op: Any) -> Tensor:
        """All the node's shares, each reduced across."""
        local = self._nodes.ctx
        dist.all_reduce(share, op, self._nodes.across)
        whole = share.new_empty(share.shape[0] * local.world_size, *share.shape[1:])
        local.ccl.all_gather(whole, share)
        return whole


class Nodes:
    """The ranks of a process group on several nodes, with equally many on each.

    Stands where a context would: its `ops` have matmul_all_reduce, its `ccl` has all_reduce. The
    other operations raise NotImplementedError.

    Attributes
    ----------
    ctx : Context
        The ranks on this node.
    across : ProcessGroup
        One rank of each node: those that have this rank's place on their node.
    rank, world_size : int
        This rank in, and the size of, the whole group.
    """

    def __init__(
        self, ctx: iris_c.Context, across: dist.ProcessGroup, rank: int, world_size: int
    ) -> None:
        self.ctx, self.across = ctx, across
        self.rank, self.world_size = rank, world_size
        self.ops = self.ccl = _Sums(self)

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
            f"nodes={self.world_size // self.ctx.world_size}>"
        )
