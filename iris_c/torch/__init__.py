# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""iris_c in PyTorch programs: custom operations with gradients, tensor-parallel layers.

>>> import iris_c.torch
>>> ctx = iris_c.torch.init()  # of torch.distributed's ranks, or torchrun's
>>> y = iris_c.torch.matmul_all_reduce(x, w)  # doctest: +SKIP

The operations are ``torch.ops.iris_c.*``: they work under ``torch.compile``, are captured in CUDA
graphs after a first call, and have derivatives of any order. Where a result is equal on all ranks,
so is its gradient, and it is that of one loss: what matmul_all_reduce, matmul_all_gather and
all_reduce return is replicated in this sense, what the others return is each rank's own; what that
means is in docs/torch.md. Like calls of iris_c.ops, calls and their gradients are collective: all
ranks, one order.

Imports torch; ``import iris_c`` alone does not.
"""

from iris_c.torch._groups import init, register
from iris_c.torch._nodes import Nodes
from iris_c.torch.functions import (
    all_gather_matmul,
    all_reduce,
    matmul_all_gather,
    matmul_all_reduce,
    matmul_reduce_scatter,
    matmul_replicated,
)
from iris_c.torch.layers import ColumnParallelLinear, RowParallelLinear

__all__ = [
    "ColumnParallelLinear",
    "Nodes",
    "RowParallelLinear",
    "all_gather_matmul",
    "all_reduce",
    "init",
    "matmul_all_gather",
    "matmul_all_reduce",
    "matmul_reduce_scatter",
    "matmul_replicated",
    "register",
]
