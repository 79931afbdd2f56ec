# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives on the symmetric heap.

Every function takes the context first; ``ctx.ccl`` is this module bound to a context.
"""

from __future__ import annotations

from iris_c import _checks
from iris_c._C import (
    FusedWorkspace,
    all_gather,
    all_reduce,
    all_reduce_preamble,
    all_reduce_rmsnorm,
    all_to_all,
    broadcast,
    gather,
    recv,
    reduce,
    reduce_scatter,
    scatter,
    send,
)
from iris_c.config import Config

__all__ = [
    "Config",
    "all_gather",
    "all_reduce",
    "all_reduce_preamble",
    "all_reduce_rmsnorm",
    "all_to_all",
    "barrier",
    "broadcast",
    "gather",
    "recv",
    "reduce",
    "reduce_scatter",
    "scatter",
    "send",
]


def barrier(ctx, stream=None, group=None) -> None:
    """Order the work of the ranks' streams: ``ctx.device_barrier``. Collective."""
    _checks.context("ctx", ctx)
    if group is not None:
        ctx = _checks.context("group", ctx.group(group), "ctx.group() to return ")
    ctx.device_barrier(stream)


class BoundCcl:
    """The functions of ``iris_c.ccl`` with the context filled in."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx):
        self._ctx = ctx

    def all_reduce(
        self, output, input, op="sum", async_op=False, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_reduce`."""
        return all_reduce(self._ctx, output, input, op, async_op, config, workspace, group)

    def all_reduce_preamble(
        self, output, input, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_reduce_preamble`."""
        return all_reduce_preamble(self._ctx, output, input, config, workspace, group)

    def all_reduce_rmsnorm(
        self, output, residual_out, input, residual, weight, eps=1e-6, async_op=False,
        config=None, workspace=None, group=None,
    ) -> FusedWorkspace:  # fmt: skip
        """See :func:`iris_c.ccl.all_reduce_rmsnorm`."""
        return all_reduce_rmsnorm(
            self._ctx, output, residual_out, input, residual, weight, eps, async_op, config,
            workspace, group,
        )  # fmt: skip

    def reduce_scatter(
        self, output, input, op="sum", async_op=False, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.reduce_scatter`."""
        return reduce_scatter(self._ctx, output, input, op, async_op, config, workspace, group)

    def all_gather(
        self, output, input, async_op=False, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.all_gather`."""
        return all_gather(self._ctx, output, input, async_op, config, workspace, group)

    def all_to_all(
        self, output, input, async_op=False, config=None, workspace=None,
        output_split_sizes=None, input_split_sizes=None, group=None,
    ) -> FusedWorkspace:  # fmt: skip
        """See :func:`iris_c.ccl.all_to_all`."""
        return all_to_all(
            self._ctx, output, input, async_op, config, workspace, output_split_sizes,
            input_split_sizes, group,
        )  # fmt: skip

    def broadcast(
        self, tensor, src=0, async_op=False, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.broadcast`."""
        return broadcast(self._ctx, tensor, src, async_op, config, workspace, group)

    def reduce(
        self, output, input, dst=0, op="sum", async_op=False, config=None, workspace=None,
        group=None,
    ) -> FusedWorkspace:  # fmt: skip
        """See :func:`iris_c.ccl.reduce`."""
        return reduce(self._ctx, output, input, dst, op, async_op, config, workspace, group)

    def gather(
        self, output, input, dst=0, async_op=False, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.gather`."""
        return gather(self._ctx, output, input, dst, async_op, config, workspace, group)

    def scatter(
        self, output, input, src=0, async_op=False, config=None, workspace=None, group=None
    ) -> FusedWorkspace:
        """See :func:`iris_c.ccl.scatter`."""
        return scatter(self._ctx, output, input, src, async_op, config, workspace, group)

    def send(self, tensor, dst, group=None) -> None:
        """See :func:`iris_c.ccl.send`."""
        send(self._ctx, tensor, dst, group)

    def recv(self, tensor, src, group=None) -> None:
        """See :func:`iris_c.ccl.recv`."""
        recv(self._ctx, tensor, src, group)

    def barrier(self, stream=None, group=None) -> None:
        """See :func:`iris_c.ccl.barrier`."""
        barrier(self._ctx, stream, group)
