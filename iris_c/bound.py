# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``ctx.ops`` and ``ctx.ccl``: the functions of a module with the context filled in.

Types are in bound.pyi, which build_stubs.py writes of the table that the functions are made of.
"""

from __future__ import annotations

from types import MethodType

from iris_c import ccl, ops


class _Bound:
    """Makes a method of a function whose first parameter is the context.

    The method is the function itself, bound: a call costs no Python frame, and help() shows all.
    It is made when it is first asked for and kept beside the context; from then on it is found
    there, before this is asked.
    """

    __slots__ = ("_function", "_name")

    def __init__(self, function):
        self._function = function

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, bound, owner=None):
        if bound is None:
            return self._function
        method = bound.__dict__[self._name] = MethodType(self._function, bound._ctx)
        return method


def _bind(name: str, doc: str, module, left_out: frozenset = frozenset()):
    functions = {
        name: _Bound(getattr(module, name))
        for name in module.__all__
        if name[0].islower() and name not in left_out
    }

    def __init__(self, ctx):
        self._ctx = ctx

    return type(
        name,
        (),
        {
            "__doc__": doc,
            "__module__": __name__,
            "__slots__": ("__dict__", "_ctx"),
            "__init__": __init__,
            **functions,
        },
    )


# These ask nothing of a context.
_UNBOUND = frozenset({"auto_config", "explain"})
BoundOps = _bind("BoundOps", "The functions of ``iris_c.ops``, of one context.", ops, _UNBOUND)
BoundCcl = _bind("BoundCcl", "The functions of ``iris_c.ccl``, of one context.", ccl)
