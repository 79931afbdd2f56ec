# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Checks of arguments that Python code looks at before the extension does: errors that begin with
the argument's name and say what was expected. A bool is no number."""

from __future__ import annotations

import math
import operator
from typing import Any

from iris_c import _C

__all__ = ["context", "flag", "integer", "integers", "number", "sizes"]


def _wrong_type(argument: str, expected: str, value: object) -> TypeError:
    return TypeError(f"{argument}: expected {expected}, got {type(value).__name__}")


def context(argument: str, value: Any, what: str = "") -> _C.Context:
    """`value`, which must be a context."""
    if isinstance(value, _C.Context):
        return value
    raise _wrong_type(argument, f"{what}an iris_c.Context", value)


def flag(argument: str, value: object) -> bool:
    """`value`, which must be a bool, or numpy's."""
    kind = type(value)
    if kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_")):
        return bool(value)
    raise _wrong_type(argument, "a bool", value)


def integer(argument: str, value: Any, expected: str = "an int") -> int:
    """`value` as an int; from numpy, say, but not from a float or a bool."""
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise _wrong_type(argument, expected, value)


def number(argument: str, value: Any) -> Any:
    """`value`, which must be a finite number: an int, a float, a scalar of a library of arrays."""
    if isinstance(value, bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise _wrong_type(argument, "a number", value)
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        finite = True
    except (TypeError, ValueError):
        raise _wrong_type(argument, "a number", value) from None
    if not finite:
        raise ValueError(f"{argument}: expected a finite number, got {value}")
    return value


def _is_sequence(value: Any) -> bool:
    return (
        hasattr(value, "__len__")
        and hasattr(value, "__getitem__")
        and not isinstance(value, str | bytes | bytearray | dict)
        and getattr(value, "ndim", 1) > 0
    )


def integers(argument: str, value: Any) -> tuple[int, ...]:
    """A sequence of ints as a tuple."""
    if not _is_sequence(value):
        raise _wrong_type(argument, "a sequence of ints", value)
    return tuple(integer(argument, item, "a sequence of ints") for item in value)


def sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as numbers, or as one sequence (which may be nested once)."""
    for _ in range(2):
        if len(size) == 1 and _is_sequence(size[0]):
            size = tuple(size[0])
    return tuple(integer("shape", item, "ints or one sequence of ints") for item in size)
