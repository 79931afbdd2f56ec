# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Colour and progress, on terminals alone: files, pipes and programs get plain text.

NO_COLOR (https://no-color.org), or TERM=dumb, turns colour off.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

RED, GREEN = "31", "32"


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in the colour, if it is to be written to a terminal; sys.stdout by default."""
    if os.environ.get("NO_COLOR") or not is_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def progress(done: int, total: int, what: str) -> None:
    """Says on sys.stderr how far something is, in one line that it writes again and again and wipes
    when all is done."""
    if not is_terminal(sys.stderr):
        return
    line = "" if done >= total else f"[{done}/{total}] {what}"
    sys.stderr.write(f"\r\x1b[K{line[:79]}")
    sys.stderr.flush()
