# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Reductions by name, as operations of torch.ops.iris_c take them: their schemas know no others."""

from __future__ import annotations

import torch.distributed as dist

from iris_c.typing import Reduction

__all__ = ["reduction_name"]


def reduction_name(op: Reduction) -> str:
    """As iris_c.ccl spells a reduction, also where it is one of torch.distributed.ReduceOp."""
    if isinstance(op, str):
        name = op.lower()
    elif isinstance(op, dist.ReduceOp):  # an enumerator, or an object made of one
        name = str(getattr(op, "op", op)).rpartition(".")[2].lower()
    else:
        raise TypeError(
            f"op: expected a str or a torch.distributed.ReduceOp, got {type(op).__name__}"
        )
    return "prod" if name == "product" else name
