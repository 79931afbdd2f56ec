# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Types of what callers pass, for annotations."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class SupportsDLPack(Protocol):
    """A tensor that describes itself by DLPack: of torch, NumPy, CuPy, JAX, or iris_c.Buffer."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


class SupportsBuffer(Protocol):
    """Host memory that describes itself by the buffer protocol: a memoryview, a ctypes array."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


Tensor: TypeAlias = SupportsDLPack | SupportsBuffer
# What the functions of a context that make tensors return: torch.Tensor; iris_c.Buffer where torch
# is not installed.
HeapTensor: TypeAlias = Any
# torch.dtype, numpy.dtype, or a name.
DType: TypeAlias = Any
# 'sum', 'max', 'min', 'prod', 'avg', or torch.distributed.ReduceOp.
Reduction: TypeAlias = Any
