# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Examples in documents: where they are, and how they are run."""

from __future__ import annotations

import pathlib
import re

BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
# torch's functions that make a tensor on the default device if they are not told another.
FACTORIES = (
    "arange", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint", "randn",
    "randperm", "tensor", "zeros",
)  # fmt: skip


def blocks_of(page: pathlib.Path) -> list[str]:
    """The page's Python examples."""
    return BLOCK.findall(page.read_text())


def run_as_on_a_gpu(code: str, names: dict) -> dict:
    """Runs the example and returns its names. A tensor that it makes without saying where, which
    a GPU's context would refuse, is an AssertionError on every backend."""
    import torch
    from torch.overrides import TorchFunctionMode

    made = {getattr(torch, name): name for name in FACTORIES}

    class NeedsDevice(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            name = made.get(function)
            if name and kwargs.get("device") is None and kwargs.get("out") is None:
                raise AssertionError(f"torch.{name} without device=: a GPU's context refuses it")
            return function(*args, **kwargs)

    with NeedsDevice():
        exec(compile(code, "example", "exec"), names)
    return names
