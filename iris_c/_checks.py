# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Checks of arguments that Python code looks at before the extension does: errors that begin with
the argument's name and say what was expected."""

from __future__ import annotations

from iris_c import _C

__all__ = ["context"]


def context(argument: str, value, what: str = "") -> _C.Context:
    """`value`, which must be a context."""
    if isinstance(value, _C.Context):
        return value
    name = type(value).__name__
    raise TypeError(f"{argument}: expected {what}an iris_c.Context, got {name}")
