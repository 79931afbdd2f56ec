# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package's log: logging.getLogger("iris_c"), whose records carry `rank` and `world_size`.

The program that uses the package says where records go, and which; without that there is none.
"""

from __future__ import annotations

import logging
from typing import Any

from iris_c import _C

__all__ = ["log"]

_logger = logging.getLogger("iris_c")
_logger.addHandler(logging.NullHandler())


def log(ctx: _C.Context, level: int, message: str, *args: Any) -> None:
    """Write a record about a context, of this rank in it."""
    if _logger.isEnabledFor(level):
        place = {"rank": ctx.rank, "world_size": ctx.world_size}
        text = f"rank %d of %d: {message}"
        _logger.log(level, text, *place.values(), *args, extra=place, stacklevel=2)
