# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The operations as functions: contexts by name or as such, autocast, given results."""

from __future__ import annotations

import torch
from torch import Tensor

import iris_c.torch._gradients  # noqa: F401  (the operations, and their gradients)
from iris_c.torch._groups import name_of


def _autocast(A, B, bias):
    """The operands of a product; in autocast's dtype where that is on, as torch.addmm has them."""
    if not torch.is_autocast_enabled(A.device.type):
        return A, B, bias
    dtype = torch.get_autocast_dtype(A.device.type)
    return A.to(dtype), B.to(dtype), None if bias is None else bias.to(dtype)


def matmul_all_reduce(A, B, bias=None, *, ctx=None, out=None) -> Tensor:
    """The sum over ranks of A_r (M, K) @ B_r (K, N), + bias; equal on all ranks.

    Parameters
    ----------
    A, B : Tensor
        2-D, float32, float16 or bfloat16, any strides.
    bias : Tensor or None
        Broadcasts to (M, N); equal on all ranks, added once.
    ctx : Context, str or None
        Which ranks, or the name of a registered context; None: the default.
    out : Tensor or None
        Where the result goes. Has no gradient.

    Raises
    ------
    RuntimeError
        `out` is given and an argument requires grad, under grad mode.
    """
    if out is not None:
        torch.ops.iris_c.matmul_all_reduce_out(out, A, B, bias, name_of(ctx))
        return out
    return torch.ops.iris_c.matmul_all_reduce(*_autocast(A, B, bias), name_of(ctx))


def matmul_reduce_scatter(A, B, bias=None, dim=0, *, ctx=None, out=None) -> Tensor:
    """This rank's share of that sum: its rows for `dim` 0, its columns for 1.

    `bias` broadcasts to the share; it is equal on all ranks if it does so along `dim`. The gradient
    is an all_gather_matmul. Other parameters as in matmul_all_reduce.
    """
    if out is not None:
        torch.ops.iris_c.matmul_reduce_scatter_out(out, A, B, bias, dim, name_of(ctx))
        return out
    return torch.ops.iris_c.matmul_reduce_scatter(*_autocast(A, B, bias), dim, name_of(ctx))


def all_gather_matmul(A_shard, B, bias=None, gather_dim=0, *, ctx=None) -> tuple[Tensor, Tensor]:
    """(all ranks' A_shard, joined along `gather_dim`) @ B, + bias; and the joined operand.

    Both are this rank's own: gradients of all ranks' are added up, by a matmul_reduce_scatter.
    Other parameters as in matmul_all_reduce.
    """
    return torch.ops.iris_c.all_gather_matmul(
        *_autocast(A_shard, B, bias), gather_dim, name_of(ctx)
    )


def matmul_all_gather(A, B, bias=None, *, ctx=None, out=None) -> Tensor:
    """All ranks' A_r @ B_r + bias_r, one below the other; equal on all ranks.

    Parameters as in matmul_all_reduce, but the bias is this rank's.
    """
    if out is not None:
        torch.ops.iris_c.matmul_all_gather_out(out, A, B, bias, name_of(ctx))
        return out
    return torch.ops.iris_c.matmul_all_gather(*_autocast(A, B, bias), name_of(ctx))


def matmul_replicated(A, B, bias=None, *, ctx=None) -> Tensor:
    """A @ B, + bias, of an A that is equal on all ranks and a B that is this rank's.

    No communication forward; the gradient of A is a matmul_all_reduce.
    """
    return torch.ops.iris_c.matmul_replicated(*_autocast(A, B, bias), name_of(ctx))


def all_reduce(input, op="sum", *, ctx=None, out=None) -> Tensor:
    """The ranks' tensors reduced; equal on all ranks. Parameters as in iris_c.ccl.all_reduce.

    The reductions 'sum' and 'avg' have a gradient.
    """
    if out is not None:
        torch.ops.iris_c.all_reduce_out(out, input, op, name_of(ctx))
        return out
    return torch.ops.iris_c.all_reduce(input, op, name_of(ctx))
