# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Runs test bodies on several ranks, each with an emulated GPU under the hip backend."""

from __future__ import annotations

import ctypes
import importlib
import os
import pathlib

import device_tensor

import iris_c
import iris_c.environment
from iris_c.testing import run_ranks

KERNELS = pathlib.Path(iris_c.__file__).parent / "kernels"


def _rank_main(module: str, name: str, library: str, kernels: str, init: dict, *args):
    # Its name is libamdhip64.so, so this is what the backend's dlopen of that name finds.
    double = ctypes.CDLL(library)
    iris_c.environment.KERNEL_DIRECTORY = kernels
    body = getattr(importlib.import_module(module), name)
    with iris_c.init(**init) as ctx:
        assert ctx.backend == "hip"
        memory = device_tensor.Memory(ctx, double)
        result = body(ctx, memory, *args)
        ctx.barrier()
        memory.release()
    return result


class Gpus:
    """The emulator with one folder of code objects, and how it behaves."""

    def __init__(self, library, programs, kernels, arch: str, **behaviour):
        self.library, self.kernels, self.arch = str(library), str(kernels), arch
        self.environment = {
            "IRIS_C_BACKEND": "hip",
            "EMULATOR_ARCH": arch,
            "EMULATOR_PROGRAMS": str(programs),
            **{f"EMULATOR_{key.upper()}": str(value) for key, value in behaviour.items()},
        }

    def run(self, body, world_size: int, *args, heap_size=64 << 20, timeout=60.0, deadline=120.0):
        """``body(ctx, memory, *args)`` on every rank; their results in rank order."""
        init = {"heap_size": heap_size, "timeout": timeout}
        return run_ranks(
            (_rank_main.__module__, _rank_main.__name__), world_size, body.__module__,
            body.__name__, self.library, self.kernels, init, *args,
            environment={**os.environ, **self.environment}, deadline=deadline,
        )  # fmt: skip
