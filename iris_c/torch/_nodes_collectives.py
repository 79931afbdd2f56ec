# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives over the ranks of several nodes; see _nodes.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import iris_c
from iris_c.torch._across import Across, reduce_parts
from iris_c.torch._node_parts import NodeParts
from iris_c.torch._reductions import reduction_name
from iris_c.typing import Reduction

__all__ = ["NodesCollectives", "expect_shape", "refuse"]

# Bytes of a share up to which each node sends all of its partial sum to each other one: one step
# of the network. Above, each reduces a part of it and hands that out: two steps, fewer bytes.
ONE_STEP_NBYTES = 256 << 10


def refuse(name: str) -> Any:
    """Answers to an attribute that only one node's context has."""
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(
        f"{name}: works among ranks of one node; across nodes there are the fused products, and "
        "all_reduce, all_gather and reduce_scatter"
    )


def expect_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")


class NodesCollectives:
    """Called as the `ccl` of a context is."""

    def __init__(self, ctx: iris_c.Context, across: Across, members: list[list[int]]) -> None:
        self._ctx, self._across, self._parts = ctx, across, NodeParts(members)

    def __getattr__(self, name: str) -> Any:
        refuse(name)

    def all_reduce(self, output: Tensor, input: Tensor, op: Reduction = "sum") -> None:
        """output = all ranks' input reduced; see iris_c.ccl.all_reduce."""
        op, count = reduction_name(op), input.numel()
        if output.numel() != count:
            expect_shape("output", output, tuple(input.shape))
        within = "sum" if op == "avg" else op
        size = -(-count // self._ctx.world_size)
        if size == 0:
            return
        flat = input.reshape(-1)
        if count != size * self._ctx.world_size:  # shares are of one size
            flat = torch.cat([flat, flat.new_zeros(size * self._ctx.world_size - count)])
        share = input.new_empty(size)
        self._ctx.ccl.reduce_scatter(share, flat.contiguous(), within)
        whole = flat.new_empty(flat.shape)
        self._ctx.ccl.all_gather(whole, self.begin_reduction_across(share, within)())
        output.copy_(self._averaged(whole[:count].view(output.shape), op))

    def _averaged(self, reduced: Tensor, op: str) -> Tensor:
        """Integers are rounded towards zero, as within a node."""
        if op != "avg":
            return reduced
        rounding = None if reduced.is_floating_point() else "trunc"
        return torch.div(reduced, self._parts.world_size, rounding_mode=rounding)

    def begin_reduction_across(
        self, share: Tensor, op: str, bias: Tensor | None = None
    ) -> Callable[[], Tensor]:
        """Begins the reduction of what the ranks with this place have; the answer waits for it and
        returns it, equal on all of them, plus the bias (one row, for a matrix)."""
        across, nodes = self._across, len(self._across.ranks)
        if nodes == 2 or share.numel() * share.element_size() <= ONE_STEP_NBYTES:
            arrivals = across.send_to_all(share)
            return lambda: reduce_parts(across.in_order(share, arrivals), op, bias)
        rows = share.view(-1, share.shape[-1]) if bias is not None else share.reshape(-1)
        size = -(-rows.shape[0] // nodes)
        missing = rows.new_zeros(size * nodes - rows.shape[0], *rows.shape[1:])
        parts = torch.cat([rows, missing]).split(size)
        arrivals = [across.exchange(step, parts[across.receiver(step)]) for step in across.steps]

        def finish() -> Tensor:
            mine = reduce_parts(across.in_order(parts[across.node], arrivals), op, bias)
            whole = torch.cat(across.in_order(mine, across.send_to_all(mine)))
            return whole[: rows.shape[0]].view(share.shape)

        return finish

    def scattered_across(
        self, partial: Callable[[int], Tensor], op: str, bias: Tensor | None = None
    ) -> Tensor:
        """This node's share of a reduction, plus a bias: `partial(node)` makes what this node has
        for a share.

        It is called for this node's own share last, while the others' travel.
        """
        across = self._across
        arrivals = [across.exchange(step, partial(across.receiver(step))) for step in across.steps]
        return reduce_parts(across.in_order(partial(across.node), arrivals), op, bias)

    def all_gather(self, output: Tensor, input: Tensor) -> None:
        """output = all ranks' input, one after the other; see iris_c.ccl.all_gather."""
        output = self._joined("output", output, input)
        arrivals = self._across.send_to_all(input)
        with self._parts.written(output, self._across.node) as block:
            self._ctx.ccl.all_gather(block, input)
        for arrival in arrivals:
            with self._parts.written(output, arrival.node) as block:
                self._ctx.ccl.all_gather(block, arrival.wait())

    def _joined(self, name: str, tensor: Tensor, part: Tensor) -> Tensor:
        """A tensor of all ranks' parts, of whatever shape, with the parts one below the other."""
        shape = tuple(part.shape) or (1,)
        wanted = (shape[0] * self._parts.world_size, *shape[1:])
        if tensor.numel() != math.prod(wanted) or not tensor.is_contiguous():
            expect_shape(name, tensor, wanted)
        return tensor.view(wanted) if tensor.is_contiguous() else tensor

    def reduce_scatter(self, output: Tensor, input: Tensor, op: Reduction = "sum") -> None:
        """output = this rank's share of all ranks' input reduced; see iris_c.ccl.reduce_scatter."""
        op = reduction_name(op)
        input = self._joined("input", input, output)
        within = "sum" if op == "avg" else op

        def partial(node: int) -> Tensor:
            share = torch.empty_like(output)
            self._ctx.ccl.reduce_scatter(share, self._parts.of_node(input, node), within)
            return share

        output.copy_(self._averaged(self.scattered_across(partial, within), op))
