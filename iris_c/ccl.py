# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives on the symmetric heap.

Every function takes the context first; ``ctx.ccl`` is this module bound to a context.
"""

from __future__ import annotations

from iris_c._C import (
    FusedWorkspace,
    all_gather,
    all_reduce,
    all_reduce_preamble,
    all_to_all,
    broadcast,
    gather,
    reduce,
    reduce_scatter,
    scatter,
)
from iris_c.config import Config

__all__ = [
    "Config",
    "all_gather",
    "all_reduce",
    "all_reduce_preamble",
    "all_to_all",
    "barrier",
    "broadcast",
    "gather",
    "reduce",
    "reduce_scatter",
    "scatter",
]


def barrier(ctx, stream=None) -> None:
    """Order the work of all ranks' streams: ``ctx.device_barrier``. Collective."""
    ctx.device_barrier(stream)


class BoundCcl:
    """The functions of ``iris_c.ccl`` with the context filled in."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx):
        self._ctx = ctx

    def all_reduce(
        self, output, input, op="sum", async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_reduce`."""
        return all_reduce(self._ctx, output, input, op, async_op, config, workspace)

    def all_reduce_preamble(self, output, input, config=None, workspace=None) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_reduce_preamble`."""
        return all_reduce_preamble(self._ctx, output, input, config, workspace)

    def reduce_scatter(
        self, output, input, op="sum", async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.reduce_scatter`."""
        return reduce_scatter(self._ctx, output, input, op, async_op, config, workspace)

    def all_gather(
        self, output, input, async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_gather`."""
        return all_gather(self._ctx, output, input, async_op, config, workspace)

    def all_to_all(
        self, output, input, async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_to_all`."""
        return all_to_all(self._ctx, output, input, async_op, config, workspace)

    def broadcast(
        self, tensor, src=0, async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.broadcast`."""
        return broadcast(self._ctx, tensor, src, async_op, config, workspace)

    def reduce(
        self, output, input, dst=0, op="sum", async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.reduce`."""
        return reduce(self._ctx, output, input, dst, op, async_op, config, workspace)

    def gather(
        self, output, input, dst=0, async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.gather`."""
        return gather(self._ctx, output, input, dst, async_op, config, workspace)

    def scatter(
        self, output, input, src=0, async_op=False, config=None, workspace=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.scatter`."""
        return scatter(self._ctx, output, input, src, async_op, config, workspace)

    def barrier(self, stream=None) -> None:
        """See :func:`iris_c.ccl.barrier`."""
        self._ctx.device_barrier(stream)
