# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives on the symmetric heap.

Every function takes the context first; ``ctx.ccl`` is this module bound to a context.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from iris_c import _checks
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


def barrier(ctx, stream=None, group=None) -> None:
    """Order the work of the ranks' streams: ``ctx.device_barrier``. Collective."""
    _checks.context("ctx", ctx)
    if group is not None:
        ctx = _checks.context("group", ctx.group(group), "ctx.group() to return ")
    ctx.device_barrier(stream)
