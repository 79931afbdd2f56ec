# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""torch.ops.iris_c: the operations, their shapes for tracing, their gradients.

An operation names its context by a string (`group`). It checks nothing: the core does. Results are
ordinary tensors, complete on this rank; nobody else reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op, register_autograd

from iris_c.torch._groups import context, name_of

# ---- C = sum over ranks of A_r @ B_r ----


@custom_op("iris_c::matmul_all_reduce_out", mutates_args={"C"})
def _matmul_all_reduce_out(
    C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, group: str
) -> None:
    context(group).ops.matmul_all_reduce(C, A, B, bias, True)


@custom_op("iris_c::matmul_all_reduce", mutates_args=())
def _matmul_all_reduce(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    C = A.new_empty(A.shape[0], B.shape[1])
    context(group).ops.matmul_all_reduce(C, A, B, bias, True)
    return C


@_matmul_all_reduce.register_fake
def _(A, B, bias, group):
    return A.new_empty(A.shape[0], B.shape[1])


# ---- a rank's share of it ----


@custom_op("iris_c::matmul_reduce_scatter_out", mutates_args={"C"})
def _matmul_reduce_scatter_out(
    C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, dim: int, group: str
) -> None:
    context(group).ops.matmul_reduce_scatter(C, A, B, bias, dim)


def _share(A, B, dim, group):
    """An empty share of A @ B."""
    shape, world = [A.shape[0], B.shape[1]], context(group).world_size
    torch._check(
        shape[dim] % world == 0,
        lambda: (
            f"{'AB'[dim]}: expected {('rows', 'columns')[dim]} in a multiple of world_size "
            f"{world} for dim={dim}, got {shape[dim]}"
        ),
    )
    shape[dim] = shape[dim] // world
    return A.new_empty(shape)


@custom_op("iris_c::matmul_reduce_scatter", mutates_args=())
def _matmul_reduce_scatter(
    A: Tensor, B: Tensor, bias: Tensor | None, dim: int, group: str
) -> Tensor:
    C = _share(A, B, dim, group)
    context(group).ops.matmul_reduce_scatter(C, A, B, bias, dim)
    return C


@_matmul_reduce_scatter.register_fake
def _(A, B, bias, dim, group):
    return _share(A, B, dim, group)


# ---- C = (all ranks' A_shard, joined) @ B ----


@custom_op("iris_c::all_gather_matmul_out", mutates_args={"C", "A_gathered"})
def _all_gather_matmul_out(
    C: Tensor,
    A_gathered: Tensor | None,
    A_shard: Tensor,
    B: Tensor,
    bias: Tensor | None,
    gather_dim: int,
    group: str,
) -> None:
    context(group).ops.all_gather_matmul_hbm_buffer(
        C, A_shard, B, bias, gather_dim, A_gathered=A_gathered
    )


def _joined(A_shard, B, dim, group):
    """Empty results: the product and the joined operand."""
    shape = list(A_shard.shape)
    shape[dim] = shape[dim] * context(group).world_size
    return A_shard.new_empty(shape[0], B.shape[1]), A_shard.new_empty(shape)


@custom_op("iris_c::all_gather_matmul", mutates_args=())
def _all_gather_matmul(
    A_shard: Tensor, B: Tensor, bias: Tensor | None, gather_dim: int, group: str
) -> tuple[Tensor, Tensor]:
    C, joined = _joined(A_shard, B, gather_dim, group)
    context(group).ops.all_gather_matmul_hbm_buffer(
        C, A_shard, B, bias, gather_dim, A_gathered=joined
    )
    return C, joined


@_all_gather_matmul.register_fake
def _(A_shard, B, bias, gather_dim, group):
    return _joined(A_shard, B, gather_dim, group)


# ---- all ranks' A_r @ B_r, one below the other ----


@custom_op("iris_c::matmul_all_gather_out", mutates_args={"C"})
def _matmul_all_gather_out(
    C: Tensor, A: Tensor, B: Tensor, bias: Tensor | None, group: str
) -> None:
    context(group).ops.matmul_all_gather(C, A, B, bias, True)


@custom_op("iris_c::matmul_all_gather", mutates_args=())
def _matmul_all_gather(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    C = A.new_empty(A.shape[0] * context(group).world_size, B.shape[1])
    context(group).ops.matmul_all_gather(C, A, B, bias, True)
    return C


@_matmul_all_gather.register_fake
def _(A, B, bias, group):
    return A.new_empty(A.shape[0] * context(group).world_size, B.shape[1])


# ---- C = A @ B of an A that is equal on all ranks: only the gradient is shared ----


@custom_op("iris_c::matmul_replicated", mutates_args=())
def _matmul_replicated(A: Tensor, B: Tensor, bias: Tensor | None, group: str) -> Tensor:
    return A @ B if bias is None else torch.addmm(bias, A, B)


@_matmul_replicated.register_fake
def _(A, B, bias, group):
    return A.new_empty(A.shape[0], B.shape[1])


# ---- sum over ranks ----


@custom_op("iris_c::all_reduce_out", mutates_args={"output"})
def _all_reduce_out(output: Tensor, input: Tensor, op: str, group: str) -> None:
    context(group).ccl.all_reduce(output, input, op)


@custom_op("iris_c::all_reduce", mutates_args=())
def _all_reduce(input: Tensor, op: str, group: str) -> Tensor:
    input = input.contiguous()
    output = torch.empty_like(input)
    context(group).ccl.all_reduce(output, input, op)
    return output


@_all_reduce.register_fake
def _(input, op, group):
    return torch.empty_like(input, memory_format=torch.contiguous_format)


# ---- gradients: each operation's through another one ----


def _save(ctx, A, B, bias, group) -> None:
    ctx.save_for_backward(A, B)
    ctx.bias_shape = None if bias is None else bias.shape
    ctx.group = group


def _local_gradients(ctx, A, B, grad):
    """Of A, B and the bias in C = A @ B + bias, those that are wanted."""
    wanted = ctx.needs_input_grad
    return (
        grad @ B.t() if wanted[0] else None,
        A.t() @ grad if wanted[1] else None,
        grad.sum_to_size(ctx.bias_shape) if wanted[2] else None,
    )


def _setup_all_reduce_product(ctx, inputs, output):
    _save(ctx, *inputs)


def _backward_all_reduce_product(ctx, grad):
    return (*_local_gradients(ctx, *ctx.saved_tensors, grad), None)


register_autograd(
    "iris_c::matmul_all_reduce",
    _backward_all_reduce_product,
    setup_context=_setup_all_reduce_product,
)


def _setup_shared_product(ctx, inputs, output):
    A, B, bias, dim, group = inputs
    _save(ctx, A, B, bias, group)
    ctx.dim = dim


def _backward_scattered_product(ctx, grad):
    A, B = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    grad_A = grad_B = grad_bias = None
    if wanted[0] or wanted[1]:
        grad_A, joined = _all_gather_matmul(grad, B.t(), None, ctx.dim, ctx.group)
        grad_B = A.t() @ joined if wanted[1] else None
    if wanted[2]:
        grad_bias = grad.sum_to_size(ctx.bias_shape)
        # A bias that each rank adds to its rows is one and the same on all of them.
        if ctx.dim == 0 and (len(ctx.bias_shape) == 1 or ctx.bias_shape[0] == 1):
            grad_bias = _all_reduce(grad_bias, "sum", ctx.group)
    return grad_A, grad_B, grad_bias, None, None


register_autograd(
    "iris_c::matmul_reduce_scatter",
    _backward_scattered_product,
    setup_context=_setup_shared_product,
)


def _setup_gathered_operand(ctx, inputs, output):
    _, B, bias, dim, group = inputs
    _save(ctx, output[1], B, bias, group)
    ctx.dim = dim
    ctx.mark_non_differentiable(output[1])


def _backward_gathered_operand(ctx, grad, _):
    joined, B = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    grad_A = None
    if wanted[0]:
        grad_A = _matmul_reduce_scatter(grad, B.t(), None, ctx.dim, ctx.group)
    return (
        grad_A,
        joined.t() @ grad if wanted[1] else None,
        grad.sum_to_size(ctx.bias_shape) if wanted[2] else None,
        None,
        None,
    )


register_autograd(
    "iris_c::all_gather_matmul",
    _backward_gathered_operand,
    setup_context=_setup_gathered_operand,
)


def _backward_gathered_product(ctx, grad):
    A, B = ctx.saved_tensors
    own = grad.chunk(context(ctx.group).world_size)[context(ctx.group).rank]
    return (*_local_gradients(ctx, A, B, own), None)


register_autograd(
    "iris_c::matmul_all_gather",
    _backward_gathered_product,
    setup_context=_setup_all_reduce_product,
)


def _backward_replicated(ctx, grad):
    A, B = ctx.saved_tensors
    _, grad_B, grad_bias = _local_gradients(ctx, A, B, grad)
    grad_A = None
    if ctx.needs_input_grad[0]:
        grad_A = _matmul_all_reduce(grad, B.t(), None, ctx.group)
    return grad_A, grad_B, grad_bias, None


register_autograd(
    "iris_c::matmul_replicated",
    _backward_replicated,
    setup_context=_setup_all_reduce_product,
)


def _setup_all_reduce(ctx, inputs, output):
    _, ctx.op, group = inputs
    ctx.world_size = context(group).world_size


def _backward_all_reduce(ctx, grad):
    if ctx.op not in ("sum", "avg"):
        raise NotImplementedError(f"op: a gradient exists for 'sum' and 'avg', not for {ctx.op!r}")
    return (grad if ctx.op == "sum" else grad / ctx.world_size), None, None


register_autograd("iris_c::all_reduce", _backward_all_reduce, setup_context=_setup_all_reduce)


# ---- for people ----


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
        Where the result goes; has no gradient.
    """
    if out is not None:
        torch.ops.iris_c.matmul_all_reduce_out(out, A, B, bias, name_of(ctx))
        return out
    return torch.ops.iris_c.matmul_all_reduce(*_autocast(A, B, bias), name_of(ctx))


def matmul_reduce_scatter(A, B, bias=None, dim=0, *, ctx=None, out=None) -> Tensor:
    """This rank's share of that sum: its rows for `dim` 0, its columns for 1.

    `bias` broadcasts to the share. The gradient is an all_gather_matmul. Other parameters as in
    matmul_all_reduce.
    """
    if out is not None:
        torch.ops.iris_c.matmul_reduce_scatter_out(out, A, B, bias, dim, name_of(ctx))
        return out
    return torch.ops.iris_c.matmul_reduce_scatter(*_autocast(A, B, bias), dim, name_of(ctx))


def all_gather_matmul(A_shard, B, bias=None, gather_dim=0, *, ctx=None) -> tuple[Tensor, Tensor]:
    """(all ranks' A_shard, joined along `gather_dim`) @ B, + bias; and the joined operand.

    The product is this rank's own. Its gradient is a matmul_reduce_scatter; the joined operand has
    none. Other parameters as in matmul_all_reduce.
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
    """The ranks' tensors reduced; equal on all ranks. Parameters as in iris_c.ccl.all_reduce."""
    if out is not None:
        torch.ops.iris_c.all_reduce_out(out, input, op, name_of(ctx))
        return out
    return torch.ops.iris_c.all_reduce(input, op, name_of(ctx))
