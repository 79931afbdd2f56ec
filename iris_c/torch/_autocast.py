# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.autocast, which the functions obey and what lies below them ignores."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "dtype_of_product",
    "in_autocast_dtype",
    "list_in_autocast_dtype",
    "without_autocast",
]


def _is_on(device_type: str) -> bool:
    """Of the devices that operations take; torch raises for those without autocast, as meta, and
    its compiler cannot ask in every version whether a device has it."""
    return device_type in ("cpu", "cuda") and torch.is_autocast_enabled(device_type)


def dtype_of_product(tensor: Tensor) -> torch.dtype:
    """The dtype of an operand as a product has it: autocast's where that is on."""
    if _is_on(tensor.device.type):
        return torch.get_autocast_dtype(tensor.device.type)
    return tensor.dtype


def in_autocast_dtype(
    A: Tensor, B: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands of a product; in autocast's dtype where that is on, as torch.addmm has them."""
    if not isinstance(A, Tensor) or not _is_on(A.device.type):
        return A, B, bias
    dtype = torch.get_autocast_dtype(A.device.type)
    return A.to(dtype), B.to(dtype), None if bias is None else bias.to(dtype)


def list_in_autocast_dtype(
    A: Tensor, B: Sequence[Tensor], bias: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
    """The same of several products of A."""
    if not isinstance(A, Tensor) or not _is_on(A.device.type):
        return A, list(B), list(bias)
    dtype = torch.get_autocast_dtype(A.device.type)
    addends = [None if addend is None else addend.to(dtype) for addend in bias]
    return A.to(dtype), [factor.to(dtype) for factor in B], addends


def without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Let torch's operations on tensors of this one's device keep the dtypes they are given."""
    device_type = tensor.device.type
    if not _is_on(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)
