# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives on the symmetric heap.

Every function takes the context first; ``ctx.ccl`` is this module bound to a context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from iris_c import _C, _checks
from iris_c._C import (
    all_gather,
    all_reduce,
    all_reduce_preamble,
    all_reduce_rmsnorm,
    all_to_all,
    batch,
    broadcast,
    gather,
    recv,
    reduce,
    reduce_scatter,
    scatter,
    send,
    sendrecv,
)
from iris_c.config import Config

if TYPE_CHECKING:
    from iris_c.context import Context

__all__ = [
    "Config",
    "Recv",
    "Send",
    "all_gather",
    "all_reduce",
    "all_reduce_preamble",
    "all_reduce_rmsnorm",
    "all_to_all",
    "barrier",
    "batch",
    "broadcast",
    "gather",
    "recv",
    "reduce",
    "reduce_scatter",
    "scatter",
    "send",
    "sendrecv",
]


class Send(NamedTuple):
    """A message of :func:`batch`: `tensor` goes to rank `dst`."""

    tensor: Any
    dst: int


class Recv(NamedTuple):
    """A message of :func:`batch`: `tensor` gets what rank `src` sends."""

    tensor: Any
    src: int


def barrier(ctx: Context, stream: Any = None, group: Sequence[int] | None = None) -> None:
    """Order the work of the ranks' streams: ``ctx.device_barrier``. Collective."""
    _checks.context("ctx", ctx)
    members: _C.Context = ctx
    if group is not None:
        members = _checks.context("group", ctx.group(group), "ctx.group() to return ")
    members.device_barrier(stream)
