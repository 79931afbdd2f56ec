# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Python objects of one rank for all: pickled, over the channel on which the ranks have met."""

from __future__ import annotations

import pickle
from typing import Any

from iris_c import _C, _checks

__all__ = ["broadcast"]

# What the ranks tell each other first: who is the source, and how many bytes it has.
_SIZE_BITS = 48
_UNABLE = -1


def _prepared(ctx: _C.Context, obj: Any, src: Any) -> tuple[int, bytes | None]:
    src = _checks.integer("src", src)
    if not 0 <= src < ctx.world_size:
        raise ValueError(f"src: expected a rank, 0 to {ctx.world_size - 1}, got {src}")
    return src, pickle.dumps(obj, pickle.HIGHEST_PROTOCOL) if src == ctx.rank else None


def _tell(ctx: _C.Context, what: str, value: int, error: Exception | None) -> tuple[int, ...]:
    """All ranks' values; raises on all ranks where one has an error."""
    told = ctx._exchange(_UNABLE if error else value)
    if error is not None:
        raise error
    unable = ", ".join(str(rank) for rank, value in enumerate(told) if value == _UNABLE)
    if unable:
        raise RuntimeError(f"broadcast_object: {what} on rank(s) {unable}, which raised the reason")
    return told


def broadcast(ctx: _C.Context, obj: Any, src: int) -> Any:
    """`obj` of rank `src`, on every rank; see Context.broadcast_object."""
    ctx._require_open()
    error, value, data = None, 0, None
    try:
        src, data = _prepared(ctx, obj, src)
        value = src << _SIZE_BITS | len(data or b"")
    except Exception as failure:  # whatever pickling raises
        error = failure
    told = _tell(ctx, "it could not begin", value, error)
    sources = [value >> _SIZE_BITS for value in told]
    if set(sources) != {src}:
        raise ValueError(
            "src: expected one on all ranks, got "
            + ", ".join(f"{source} on rank {rank}" for rank, source in enumerate(sources))
        )
    received = ctx._broadcast(data, told[src] & ((1 << _SIZE_BITS) - 1), src)
    try:
        result = obj if src == ctx.rank else pickle.loads(received)
    except Exception as failure:
        error = failure
    _tell(ctx, "the object could not be made of what arrived", 0, error)
    return result
