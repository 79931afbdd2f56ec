# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How a reduction of torch.distributed is done with those of iris_c.ccl.

iris_c reduces float16, bfloat16, float32, float64, int8, uint8, int32, int64 and bool by sum, max,
min, prod and avg. The rest is done by what gives the same result:

=======================  ====================================================================
float8                   in float32, rounded once
int16, uint16, uint32    in the next wider signed integer, cut off as the sum would wrap
uint64                   as int64; for max and min with the highest bit turned over
complex sum, avg         as pairs of real numbers
premul_sum               a product of this rank's own, then a sum
band, bor, bxor          all ranks' elements are gathered and combined on the rank that wants them
=======================  ====================================================================
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch

from iris_c.torch._reductions import reduction_name

__all__ = ["Reduction", "reduction_of"]

Unary = Callable[[torch.Tensor], torch.Tensor]

NATIVE = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
)
WIDER = {torch.int16: torch.int32, torch.uint16: torch.int32, torch.uint32: torch.int64}
BITWISE = {
    "band": torch.bitwise_and,
    "bor": torch.bitwise_or,
    "bxor": torch.bitwise_xor,
}
SIGN = -(2**63)
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


@dataclasses.dataclass(frozen=True)
class Reduction:
    """What is done with this rank's elements, and how the ranks' are combined.

    Attributes
    ----------
    name : str
        Of iris_c.ccl, if `fold` is None.
    before : function or None
        Makes of the elements what is reduced: a new tensor of a dtype of iris_c.
    after : function or None
        Makes elements of the result again.
    fold : function or None
        Combines two ranks' elements.
    """

    name: str
    before: Unary | None = None
    after: Unary | None = None
    fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def folded(self, rows: torch.Tensor) -> torch.Tensor:
        """One row of the ranks' rows, in their order."""
        assert self.fold is not None
        words = rows.view(SIGNED.get(rows.dtype, rows.dtype))
        result: torch.Tensor = functools.reduce(self.fold, words)
        return result.view(rows.dtype)


def _turned_over(words: torch.Tensor) -> torch.Tensor:
    """The order of uint64 as that of int64, and back."""
    return words.bitwise_xor(SIGN)


def reduction_of(op: Any, dtype: torch.dtype) -> Reduction:
    """The reduction `op`, a torch.distributed.ReduceOp, of real elements of a dtype.

    Raises
    ------
    ValueError
        The reduction means nothing for the dtype.
    """
    name = reduction_name(op)
    if name in BITWISE:
        if dtype.is_floating_point:
            raise ValueError(
                f"op: Cannot use ReduceOp.{name.upper()} with non-integral dtype {dtype}"
            )
        return Reduction(name, fold=BITWISE[name])
    if name == "premul_sum":
        _, factor = op.__getstate__()  # torch 2.11 has no other name for it
        return _premultiplied(factor, dtype)
    if name not in ("sum", "avg", "max", "min", "prod"):
        raise ValueError(f"op: expected a reduction of torch.distributed, got {op}")
    if dtype in NATIVE:
        return Reduction(name)
    if dtype.is_floating_point:
        return Reduction(name, before=torch.Tensor.float, after=lambda t: t.to(dtype))
    if dtype in WIDER:
        wide = WIDER[dtype]
        return Reduction(name, before=lambda t: t.to(wide), after=lambda t: t.to(dtype))
    if dtype != torch.uint64 or name == "avg":
        raise ValueError(f"op: expected a dtype that has {name}, got {dtype}")
    if name in ("sum", "prod"):
        return Reduction(name, lambda t: t.view(torch.int64).clone(), lambda t: t.view(dtype))
    return Reduction(
        name,
        before=lambda t: _turned_over(t.view(torch.int64)),
        after=lambda t: _turned_over(t).view(dtype),
    )


def _premultiplied(factor: Any, dtype: torch.dtype) -> Reduction:
    """NCCL's premul_sum: each rank's elements times its own factor, a number or a tensor of one."""
    if not dtype.is_floating_point:
        raise ValueError(f"op: expected a floating-point dtype for premul_sum, got {dtype}")

    def times(t: torch.Tensor) -> torch.Tensor:
        own = factor.to(t.device) if isinstance(factor, torch.Tensor) else factor
        return t * own.to(t.dtype) if isinstance(own, torch.Tensor) else t * own

    if dtype in NATIVE:
        return Reduction("sum", before=times)
    return Reduction("sum", before=lambda t: times(t.float()), after=lambda t: t.to(dtype))
