# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Products of float8 operands with scales, fused with their collectives, as functions.

They have no gradients: a tensor that requires one is a RuntimeError, but under torch.no_grad().
"""

from __future__ import annotations

import torch
from torch import Tensor

import iris_c.torch._scaled  # noqa: F401  (the operations)
from iris_c.torch._groups import Named, name_of
from iris_c.torch.functions import _dimension


def scaled_matmul_all_reduce(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    ctx: Named = None,
) -> Tensor:
    """Return the sum over ranks of (A_r * scale_a_r) @ (B_r * scale_b_r), plus bias. Collective.

    Parameters
    ----------
    A, B : Tensor
        This rank's factors, (M, K) and (K, N), of float8 dtypes, any strides.
    scale_a, scale_b : Tensor
        float32. Of A one element, (M, 1), (M, ceil(K / 128)) or (ceil(M / 128), ceil(K / 128)); of
        B one element, (1, N), (ceil(K / 128), N) or (ceil(K / 128), ceil(N / 128)).
    bias : Tensor or None
        Of out_dtype; broadcasts to (M, N), is equal on all ranks and is added once.
    out_dtype : torch.dtype
        float32, float16 or bfloat16.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks, of one node. None: the context named 'default'.
    """
    result: Tensor = torch.ops.iris_c.scaled_matmul_all_reduce(
        A, B, scale_a, scale_b, bias, out_dtype, name_of(ctx)
    )
    return result


def scaled_matmul_reduce_scatter(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    dim: int = 0,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    ctx: Named = None,
) -> Tensor:
    """Return this rank's share of what scaled_matmul_all_reduce returns. Collective.

    The share is the rank-th of world_size equal parts: of the rows for `dim` 0, of the columns for
    1. `bias` broadcasts to the share.
    """
    result: Tensor = torch.ops.iris_c.scaled_matmul_reduce_scatter(
        A, B, scale_a, scale_b, bias, _dimension("dim", dim), out_dtype, name_of(ctx)
    )
    return result


def scaled_all_gather_matmul(
    A_shard: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    gather_dim: int = 0,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    ctx: Named = None,
) -> tuple[Tensor, Tensor]:
    """Return (all ranks' A_shard * scale_a, joined along gather_dim) @ (B * scale_b) + bias, and
    the joined A_shard. Collective.

    `scale_a` is that of the shard and is gathered with it, so that each rank may have its own. The
    other parameters are those of scaled_matmul_all_reduce; B and bias are this rank's own.
    """
    result: tuple[Tensor, Tensor] = torch.ops.iris_c.scaled_all_gather_matmul(
        A_shard, B, scale_a, scale_b, bias, _dimension("gather_dim", gather_dim), out_dtype,
        name_of(ctx),
    )  # fmt: skip
    return result


def scaled_gathered_matmul(
    A_shard: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    gather_dim: int = 0,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    ctx: Named = None,
) -> Tensor:
    """Return the first result of scaled_all_gather_matmul alone, which takes less time.
    Collective."""
    result: Tensor = torch.ops.iris_c.scaled_gathered_matmul(
        A_shard, B, scale_a, scale_b, bias, _dimension("gather_dim", gather_dim), out_dtype,
        name_of(ctx),
    )  # fmt: skip
    return result


def scaled_matmul_all_gather(
    A: Tensor,
    B: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    ctx: Named = None,
) -> Tensor:
    """Return all ranks' (A_r * scale_a_r) @ (B_r * scale_b_r) + bias_r, one below the other.
    Collective. The parameters are those of scaled_matmul_all_reduce; bias is this rank's own."""
    result: Tensor = torch.ops.iris_c.scaled_matmul_all_gather(
        A, B, scale_a, scale_b, bias, out_dtype, name_of(ctx)
    )
    return result
