# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How an operation gets into torch.ops.iris_c: defined so that a call of it costs little.

torch.library.custom_op puts three functions of Python between a call and its kernel. Here the
dispatcher calls one: the kernel itself, or under the key Autograd the one of _autograd.py, which
calls the kernel at once where a plain call has nothing else to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["kernels", "library", "operation"]

library = torch.library.Library("iris_c", "FRAGMENT")
# The operations' kernels by name.
kernels: dict[str, Callable[..., Any]] = {}


class Operation:
    """An operation of torch.ops.iris_c, as `operation` defines it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """Let `fake` make empty results where the operation is traced."""
        torch.library.register_fake(f"iris_c::{self.name}", fake, lib=library)
        return fake


def operation(
    name: str, *, mutates_args: Iterable[str], schema: str | None = None
) -> Callable[[Callable[..., Any]], Operation]:
    """Define an operation whose kernel, on all devices, is the decorated function.

    Its schema follows from the annotations, where none is given. The kernel's results alias no
    argument; the versions of tensors that it writes are the core's to count. One that returns
    nothing can be traced as it is, the others need `register_fake`.

    Parameters
    ----------
    name : str
        Within torch.ops.iris_c.
    mutates_args : iterable of str
        The arguments that are written.
    schema : str or None
        From the opening parenthesis on.
    """

    def define(kernel: Callable[..., Any]) -> Operation:
        signature = schema or torch.library.infer_schema(kernel, mutates_args=mutates_args)
        library.define(name + signature, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, kernel, "CompositeExplicitAutograd")
        kernels[name] = kernel
        defined = Operation(name)
        if signature.endswith("-> ()"):
            defined.register_fake(lambda *arguments: None)
        return defined

    return define
