# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""iris_c in PyTorch programs: custom operations with gradients, tensor-parallel layers.

>>> import iris_c.torch
>>> ctx = iris_c.torch.init()  # of torch.distributed's ranks, or torchrun's
>>> y = iris_c.torch.matmul_all_reduce(x, w)  # doctest: +SKIP

The operations are ``torch.ops.iris_c.*``. They work under ``torch.compile``, can be captured in
CUDA graphs after a first call, and have derivatives of any order. Calls and their gradients are
collective: all ranks make them, in the same order. The results of matmul_all_reduce,
matmul_all_gather and all_reduce are equal on all ranks and count as one tensor of one loss: their
gradient is equal on all ranks and is not summed. The results of the others are each rank's own.
docs/torch.md says what follows from that.

Imports torch; ``import iris_c`` alone does not.
"""

from iris_c.torch import random
from iris_c.torch._clipping import clip_grad_norm_
from iris_c.torch._compile import compile_pass
from iris_c.torch._groups import init, register
from iris_c.torch._nodes import Nodes
from iris_c.torch._token_gradients import TokenGradients, sequence_parallel
from iris_c.torch.cross_entropy import vocab_parallel_cross_entropy
from iris_c.torch.float8_layers import (
    Float8ColumnParallelLinear,
    Float8RowParallelLinear,
    quantize_float8,
)
from iris_c.torch.functions import (
    all_gather_matmul,
    all_reduce,
    gathered_matmul,
    matmul_all_gather,
    matmul_all_reduce,
    matmul_reduce_scatter,
    matmul_replicated,
)
from iris_c.torch.kv_heads import KVParallelLinear
from iris_c.torch.layers import ColumnParallelLinear, RowParallelLinear
from iris_c.torch.scaled import (
    scaled_all_gather_matmul,
    scaled_gathered_matmul,
    scaled_matmul_all_gather,
    scaled_matmul_all_reduce,
    scaled_matmul_reduce_scatter,
)
from iris_c.torch.sequence import all_gather, copy_to_ranks, reduce_scatter, scatter
from iris_c.torch.shared_inputs import SharedInput, fuse_inputs
from iris_c.torch.vocabulary import VocabParallelEmbedding

__all__ = [
    "ColumnParallelLinear",
    "Float8ColumnParallelLinear",
    "Float8RowParallelLinear",
    "KVParallelLinear",
    "Nodes",
    "RowParallelLinear",
    "SharedInput",
    "TokenGradients",
    "VocabParallelEmbedding",
    "all_gather",
    "all_gather_matmul",
    "all_reduce",
    "clip_grad_norm_",
    "compile_pass",
    "copy_to_ranks",
    "fuse_inputs",
    "gathered_matmul",
    "init",
    "matmul_all_gather",
    "matmul_all_reduce",
    "matmul_reduce_scatter",
    "matmul_replicated",
    "quantize_float8",
    "random",
    "reduce_scatter",
    "register",
    "scaled_all_gather_matmul",
    "scaled_gathered_matmul",
    "scaled_matmul_all_gather",
    "scaled_matmul_all_reduce",
    "scaled_matmul_reduce_scatter",
    "scatter",
    "sequence_parallel",
    "vocab_parallel_cross_entropy",
]
