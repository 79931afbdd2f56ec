# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives on the symmetric heap.

Every function takes the context first; ``ctx.ccl`` is this module bound to a context.
"""

from __future__ import annotations

from iris_c import _checks
from iris_c._C import (
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
