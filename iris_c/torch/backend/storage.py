# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Tensors as collectives take them: contiguous, one-dimensional, of a dtype that iris_c moves."""

from __future__ import annotations

import torch

__all__ = ["Target", "overlap", "reals", "source", "words"]

MOVED = frozenset(
    {
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.bool,
        torch.complex64,
        torch.complex128,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz,
        torch.float8_e8m0fnu,
    }
)


def source(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in order of index, (numel,): the tensor's own memory where they lie so."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.contiguous().view(-1)


def words(flat: torch.Tensor) -> torch.Tensor:
    """The same memory in a dtype that iris_c moves: bytes, where it does not know the own one."""
    if flat.dtype in MOVED:
        return flat
    return reals(flat) if flat.is_complex() else flat.view(torch.uint8)


def reals(flat: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs of real ones, in the same memory."""
    return torch.view_as_real(flat).view(-1) if flat.is_complex() else flat


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors may share memory: those that are contiguous do."""
    begin, end = other.data_ptr(), other.data_ptr() + other.nbytes
    return one.data_ptr() < end and begin < one.data_ptr() + one.nbytes


class Target:
    """A tensor that a collective writes: `flat`, (numel,), is its memory or stands for it.

    Parameters
    ----------
    tensor : torch.Tensor
    apart_from : torch.Tensor or None
        Contiguous memory that the collective still reads when it writes.
    """

    def __init__(self, tensor: torch.Tensor, apart_from: torch.Tensor | None = None) -> None:
        self._tensor = tensor.detach()
        own = self._tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())
        if own and apart_from is not None:
            own = not overlap(self._tensor, apart_from)
        self._stands_for = not own
        self.flat = source(self._tensor)
        if not own and overlap(self.flat, self._tensor):
            self.flat = self.flat.clone()

    def finish(self) -> None:
        """`flat` has been written."""
        if self._stands_for:
            self._tensor.copy_(self.flat.view(self._tensor.shape))
