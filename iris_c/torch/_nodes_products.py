# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Fused products over the ranks of several nodes; see _nodes.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import iris_c
from iris_c.torch._across import Across, Arrival
from iris_c.torch._node_parts import NodeParts
from iris_c.torch._nodes_collectives import NodesCollectives, expect_shape, refuse

__all__ = ["NodesProducts"]

# Bytes of a rank's share from which on a result is made in pieces, one of which crosses the network
# while the next is multiplied, and how many of them at most.
PIECE_NBYTES, MOST_PIECES = 4 << 20, 4


def _pieces(rows: int, row_nbytes: int) -> list[range]:
    """Into which runs of rows a share is cut."""
    count = max(1, min(MOST_PIECES, rows, rows * row_nbytes // PIECE_NBYTES))
    size = -(-rows // count)
    return [range(first, min(first + size, rows)) for first in range(0, rows, max(size, 1))]


class NodesProducts:
    """Called as the `ops` of a context are."""

    def __init__(
        self,
        ctx: iris_c.Context,
        across: Across,
        members: list[list[int]],
        collectives: NodesCollectives,
    ) -> None:
        self._ctx, self._ops, self._ccl = ctx, ctx.ops, collectives
        self._across, self._parts = across, NodeParts(members)

    def __getattr__(self, name: str) -> Any:
        refuse(name)

    def matmul_all_reduce(
        self, C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None, async_op: bool = True
    ) -> None:
        """C = sum over all ranks of A_r @ B_r, + bias; see iris_c.ops.matmul_all_reduce.

        C is made in pieces of rows. Of each, a rank has its share of the node's sum, to which it
        adds what the other nodes send; the node's ranks gather the shares at the end.
        """
        M, N, local = A.shape[0], B.shape[1], self._ctx.world_size
        expect_shape("C", C, (M, N))
        if M == 0 or N == 0:
            self._ops.matmul_all_reduce(C, A, B)
            return
        one_row = None if _has_rows(bias) else bias
        share_rows = -(-M // local)
        pieces = _pieces(share_rows, N * A.element_size())
        exchanged = []
        for piece in pieces:
            rows = A[piece.start * local : piece.stop * local]
            if rows.shape[0] != len(piece) * local:  # shares are of one size
                missing = rows.new_zeros(len(piece) * local - rows.shape[0], A.shape[1])
                rows = torch.cat([rows, missing])
            share = A.new_empty(len(piece), N)
            self._ops.matmul_reduce_scatter(share, rows, B)
            exchanged.append((piece, self._ccl.begin_reduction_across(share, "sum", one_row)))
        for piece, reduction in exchanged:
            self._gather_rows(C[piece.start * local : piece.stop * local], reduction())
        if bias is not None and _has_rows(bias):
            C += bias

    def _gather_rows(self, rows: Tensor, share: Tensor) -> None:
        """The node's shares, of which the last may have more rows than are wanted."""
        count = share.shape[0] * self._ctx.world_size
        if rows.shape[0] == count and rows.is_contiguous():
            self._ctx.ccl.all_gather(rows, share)
            return
        whole = share.new_empty(count, share.shape[1])
        self._ctx.ccl.all_gather(whole, share)
        rows.copy_(whole[: rows.shape[0]])

    def matmul_reduce_scatter(
        self, C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None, dim: int = 0
    ) -> None:
        """C = this rank's share of it; see iris_c.ops.matmul_reduce_scatter.

        The rows (or columns) of one node's ranks are multiplied at a time, and scattered within
        this node; what is another node's crosses the network meanwhile.
        """
        whole = [A.shape[0], B.shape[1]]
        if whole[dim] % self._parts.world_size != 0:
            raise ValueError(
                f"{'AB'[dim]}: expected {('rows', 'columns')[dim]} in a multiple of world_size "
                f"{self._parts.world_size}, got {whole[dim]}"
            )
        whole[dim] //= self._parts.world_size
        expect_shape("C", C, (whole[0], whole[1]))

        def partial(node: int) -> Tensor:
            rows = self._parts.of_node(A, node) if dim == 0 else A
            columns = self._parts.of_node(B, node, 1) if dim == 1 else B
            share = torch.empty_like(C, memory_format=torch.contiguous_format)
            self._ops.matmul_reduce_scatter(share, rows, columns, None, dim)
            return share

        C.copy_(self._ccl.scattered_across(partial, "sum", bias))

    def all_gather_matmul_hbm_buffer(
        self,
        C: Tensor,
        A_shard: Tensor,
        B: Tensor,
        bias: Tensor | None = None,
        gather_dim: int = 0,
        *,
        A_gathered: Tensor | None = None,
    ) -> None:
        """C = (all ranks' A_shard, joined) @ B, + bias; see iris_c.ops.all_gather_matmul."""
        shape, world = [*A_shard.shape], self._parts.world_size
        shape[gather_dim] *= world
        expect_shape("B", B, (shape[1], B.shape[1]))
        expect_shape("C", C, (shape[0], B.shape[1]))
        if A_gathered is not None:
            expect_shape("A_gathered", A_gathered, (shape[0], shape[1]))
        arrivals = self._across.send_to_all(A_shard)
        if gather_dim == 1:
            self._multiply_columns(C, A_shard, arrivals, B, bias, A_gathered)
            return
        one_row = None if _has_rows(bias) else bias
        self._multiply_rows(self._across.node, C, A_shard, B, one_row, A_gathered)
        for arrival in arrivals:
            self._multiply_rows(arrival.node, C, arrival.wait(), B, one_row, A_gathered)
        if bias is not None and _has_rows(bias):
            C += bias

    all_gather_matmul = all_gather_matmul_hbm_buffer

    def _multiply_rows(
        self,
        node: int,
        C: Tensor,
        shard: Tensor,
        B: Tensor,
        bias: Tensor | None,
        A_gathered: Tensor | None,
    ) -> None:
        """Of one node's ranks, whose shards the ranks of this one have, each that of its place."""
        with self._parts.written(C, node) as rows:
            if A_gathered is None:
                self._ops.all_gather_matmul_hbm_buffer(rows, shard, B, bias, 0)
                return
            with self._parts.written(A_gathered, node) as joined:
                self._ops.all_gather_matmul_hbm_buffer(rows, shard, B, bias, 0, A_gathered=joined)

    def _multiply_columns(
        self,
        C: Tensor,
        shard: Tensor,
        arrivals: list[Arrival],
        B: Tensor,
        bias: Tensor | None,
        A_gathered: Tensor | None,
    ) -> None:
        """One product, so that its sum is rounded once: of the shards as they lie on the nodes,
        with B's rows in that order."""
        places = range(self._ctx.world_size)
        mine = torch.cat(self._across.in_order(shard, arrivals), 1)
        rows = torch.cat([self._parts.by_place(B, place) for place in places])
        joined = None if A_gathered is None else torch.empty_like(A_gathered)
        self._ops.all_gather_matmul_hbm_buffer(C, mine, rows, bias, 1, A_gathered=joined)
        if A_gathered is None or joined is None:
            return
        size = shard.shape[1]
        for place in places:
            for node, ranks in enumerate(self._parts.members):
                column = (place * len(self._across.ranks) + node) * size
                A_gathered.narrow(1, ranks[place] * size, size).copy_(
                    joined.narrow(1, column, size)
                )

    def matmul_all_gather(
        self, C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None, async_op: bool = True
    ) -> None:
        """C = all ranks' A_r @ B_r + bias_r, one below the other; see iris_c.ops.matmul_all_gather.

        A rank's rows are made in pieces. Of each, the node's ranks exchange their products while
        the rank's own crosses the network.
        """
        M, N, local = A.shape[0], B.shape[1], self._ctx.world_size
        expect_shape("C", C, (M * self._parts.world_size, N))
        pieces = _pieces(M, N * A.element_size())
        sent = []
        for piece in pieces:
            rows = A[piece.start : piece.stop]
            own_bias = bias
            if bias is not None and _has_rows(bias):
                own_bias = bias[piece.start : piece.stop]
            made = A.new_empty(len(piece) * local, N)
            self._ops.matmul_all_gather(made, rows, B, own_bias)
            own = made.view(local, len(piece), N)
            sent.append((piece, own, self._across.send_to_all(own[self._ctx.rank])))
        for piece, own, arrivals in sent:
            self._put(C, self._across.node, piece, own)
            for arrival in arrivals:
                gathered = torch.empty_like(own)
                self._ctx.ccl.all_gather(gathered.view(-1, N), arrival.wait())
                self._put(C, arrival.node, piece, gathered)

    def _put(self, C: Tensor, node: int, piece: range, products: Tensor) -> None:
        """The same piece of the rows of each of a node's ranks."""
        M = C.shape[0] // self._parts.world_size
        for rank, product in zip(self._parts.members[node], products, strict=True):
            first = rank * M + piece.start
            C[first : first + len(piece)].copy_(product)


def _has_rows(bias: Tensor | None) -> bool:
    """Whether a bias differs between the rows of a product."""
    return bias is not None and bias.dim() == 2 and bias.shape[0] != 1
