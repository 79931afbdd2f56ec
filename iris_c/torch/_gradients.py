# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The derivatives of the operations, of any order.

NOTE [own and replicated]
Each argument and each result is either *own*, a tensor of this rank, or *replicated*, one tensor
of which every rank holds an equal copy. What is differentiated is one number for all ranks: the
sum of what the ranks compute from own tensors, plus, once, what they compute alike from replicated
ones. The gradient of an own tensor is that number's derivative by this rank's tensor, and is own;
the gradient of a replicated tensor is the derivative by the one tensor, and is replicated.

A gradient is a function of such tensors again. A formula here is made of operations that
follow this rule, and of torch's on tensors of one kind: so its derivative follows it too. Where
both kinds meet in one of torch's operations, the replicated tensor is made own first, by an
operation whose gradient adds up the ranks':

    operation                                   from         to           its gradient
    own_copy        the same                    replicated   own          all_reduce
    all_reduce      the sum                     own          replicated   own_copy
    own_part        this rank's part            replicated   own          all_gather
    all_gather      all parts                   own          replicated   own_part
    own_gathered    all parts                   own          own          reduce_scatter
    reduce_scatter  this rank's part of a sum   own          own          own_gathered
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

import iris_c.torch._operations  # noqa: F401  (defines them)
from iris_c.torch._autograd import (
    differentiate,
    differentiate_lists,
    refuse_to_differentiate,
)
from iris_c.torch._groups import context

_ops = torch.ops.iris_c

# Of each argument: whether its gradient is wanted, the gradient, a tangent.
Wanted: TypeAlias = Sequence[bool]
Gradients: TypeAlias = tuple[Tensor | None, ...]
Tangent: TypeAlias = Tensor | None


# ---- between the two kinds ----


def _own(grad: Tensor, group: str) -> Tensor:
    """A replicated gradient as an operand of this rank's own; a copy only where the gradient is
    to be differentiated in its turn."""
    if not torch.is_grad_enabled():
        return grad
    copy: Tensor = _ops.own_copy(grad, group)
    return copy


def _part(grad: Tensor, dim: int, group: str) -> Tensor:
    """This rank's part of a replicated gradient; as _own."""
    if torch.is_grad_enabled():
        part: Tensor = _ops.own_part(grad, dim, group)
        return part
    ctx = context(group)
    size = grad.shape[dim] // ctx.world_size
    return grad.narrow(dim, ctx.rank * size, size)


def _linear(
    name: str,
    gradient: Callable[..., Tensor],
    check: Callable[..., None] = lambda *options: None,
) -> None:
    """Registers an operation (tensor, *options) that is linear in its tensor. `gradient` is called
    as the operation is; `check` raises where it is not linear after all."""
    operation = getattr(_ops, name)

    def setup(ctx: Any, wanted: Wanted, result: Any, input: Tensor, *options: Any) -> None:
        ctx.options = options

    def backward(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
        check(*ctx.options)
        return gradient(grad, *ctx.options), *(None for _ in ctx.options)

    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Any:
        check(*ctx.options)
        return operation(tangent, *ctx.options)

    differentiate(name, setup, backward, jvp)


def _check_reduction(op: str, group: str) -> None:
    if op not in ("sum", "avg"):
        raise NotImplementedError(f"op: a gradient exists for 'sum' and 'avg', not for {op!r}")


def _all_reduce_gradient(grad: Tensor, op: str, group: str) -> Tensor:
    grad = _own(grad, group)
    return grad if op == "sum" else grad / context(group).world_size


_linear("all_reduce", _all_reduce_gradient, _check_reduction)
_linear("own_copy", lambda grad, group: _ops.all_reduce(grad, "sum", group))
_linear("own_part", _ops.all_gather)
_linear("all_gather", _part)
_linear("own_gathered", _ops.reduce_scatter)
_linear("reduce_scatter", _ops.own_gathered)


# ---- products ----


def _save(
    ctx: Any, wanted: Wanted, A: Tensor, B: Tensor, bias: Tensor | None, *options: Any
) -> None:
    """For gradients of A and B, what is needed for those that are wanted."""
    ctx.save_for_backward(A if wanted[1] else None, B if wanted[0] else None)
    ctx.save_for_forward(A, B)
    ctx.bias_shape = None if bias is None else bias.shape
    ctx.options = options


def _setup_product(ctx: Any, wanted: Wanted, result: Tensor, *arguments: Any) -> None:
    _save(ctx, wanted, *arguments)


def _product(name: str, backward: Callable[..., Gradients]) -> None:
    """Registers an operation (A, B, bias, *options) that is linear in A @ B and the bias."""
    operation = getattr(_ops, name)

    def jvp(
        ctx: Any, tangent_A: Tangent, tangent_B: Tangent, tangent_bias: Tangent, *_: None
    ) -> Any:
        """The sum of both products' tangents is one product, so one exchange."""
        A, B = ctx.saved_tensors
        if tangent_A is None:
            B = torch.zeros_like(B) if tangent_B is None else tangent_B
        elif tangent_B is None:
            A = tangent_A
        else:
            A, B = torch.cat([tangent_A, A], 1), torch.cat([B, tangent_B], 0)
        return operation(A, B, tangent_bias, *ctx.options)

    differentiate(name, _setup_product, backward, jvp)


def _local_gradients(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
    """Of own A, B and bias in own C = A @ B + bias, those that are wanted."""
    A, B = ctx.saved_tensors
    return (
        grad @ B.t() if wanted[0] else None,
        A.t() @ grad if wanted[1] else None,
        grad.sum_to_size(ctx.bias_shape) if wanted[2] else None,
    )


def _backward_all_reduce_product(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
    own = _own(grad, *ctx.options) if wanted[0] or wanted[1] else grad
    grad_A, grad_B, _ = _local_gradients(ctx, (wanted[0], wanted[1], False), own)
    grad_bias = grad.sum_to_size(ctx.bias_shape) if wanted[2] else None  # both are replicated
    return grad_A, grad_B, grad_bias, None


_product("matmul_all_reduce", _backward_all_reduce_product)


def _is_one_bias(bias_shape: Sequence[int], share_shape: Sequence[int], dim: int) -> bool:
    """Whether a bias is broadcast along the dimension that the ranks divide: then it is
    replicated."""
    if dim == 0:
        return len(bias_shape) == 1 or bias_shape[0] == 1
    return bias_shape[-1] == 1 and share_shape[1] != 1


def _backward_scattered_product(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
    A, B = ctx.saved_tensors
    dim, group = ctx.options
    grad_A = grad_B = grad_bias = joined = None
    if wanted[0] and wanted[1]:
        grad_A, joined = _ops.all_gather_matmul(grad, B.t(), None, dim, group)
    elif wanted[0]:
        grad_A = _ops.gathered_matmul(grad, B.t(), None, dim, group)
    elif wanted[1]:
        joined = _ops.own_gathered(grad, dim, group)
    if wanted[1]:
        grad_B = A.t() @ joined
    if wanted[2]:
        grad_bias = grad.sum_to_size(ctx.bias_shape)
        if _is_one_bias(ctx.bias_shape, grad.shape, dim):
            grad_bias = _ops.all_reduce(grad_bias, "sum", group)
    return grad_A, grad_B, grad_bias, None, None


_product("matmul_reduce_scatter", _backward_scattered_product)


def _backward_gathered_product(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
    return *_local_gradients(ctx, wanted, _part(grad, 0, *ctx.options)), None


_product("matmul_all_gather", _backward_gathered_product)


def _backward_replicated(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
    A, B = ctx.saved_tensors
    return (
        _ops.matmul_all_reduce(grad, B.t(), None, *ctx.options) if wanted[0] else None,
        _own(A, *ctx.options).t() @ grad if wanted[1] else None,
        grad.sum_to_size(ctx.bias_shape) if wanted[2] else None,
        None,
    )


_product("matmul_replicated", _backward_replicated)


# ---- the product of a joined operand, and the operand ----


def _setup_gathered_operand(
    ctx: Any,
    wanted: Wanted,
    result: tuple[Tensor, Tensor],
    A_shard: Tensor,
    B: Tensor,
    bias: Tensor | None,
    dim: int,
    group: str,
) -> None:
    _save(ctx, wanted, result[1], B, bias, dim, group)


def _backward_gathered_operand(
    ctx: Any, wanted: Wanted, grad: Tensor | None, grad_joined: Tensor | None
) -> Gradients:
    joined, B = ctx.saved_tensors
    dim, group = ctx.options
    grad_A = grad_B = grad_bias = None
    if wanted[0]:
        if grad_joined is None:
            grad_A = _ops.matmul_reduce_scatter(grad, B.t(), None, dim, group)
        else:
            whole = grad_joined if grad is None else grad @ B.t() + grad_joined
            grad_A = _ops.reduce_scatter(whole, dim, group)
    if wanted[1] and grad is not None:
        grad_B = joined.t() @ grad
    if wanted[2] and grad is not None:
        grad_bias = grad.sum_to_size(ctx.bias_shape)
    return grad_A, grad_B, grad_bias, None, None


def _jvp_gathered_operand(
    ctx: Any, tangent_A: Tangent, tangent_B: Tangent, tangent_bias: Tangent, *_: None
) -> tuple[Tensor, Tensor]:
    joined, B = ctx.saved_tensors
    if tangent_A is not None:
        tangent, tangent_joined = _ops.all_gather_matmul(tangent_A, B, tangent_bias, *ctx.options)
    else:
        tangent_joined = torch.zeros_like(joined)
        tangent = joined.new_zeros(joined.shape[0], B.shape[1])
        if tangent_bias is not None:
            tangent = tangent + tangent_bias
    if tangent_B is not None:
        tangent = tangent + joined @ tangent_B
    return tangent, tangent_joined


differentiate(
    "all_gather_matmul", _setup_gathered_operand, _backward_gathered_operand, _jvp_gathered_operand
)


# ---- the product of a joined operand alone: its gradients join the operand where they need it ----


def _backward_gathered_matmul(ctx: Any, wanted: Wanted, grad: Tensor) -> Gradients:
    A_shard, B = ctx.saved_tensors
    dim, group = ctx.options
    return (
        _ops.matmul_reduce_scatter(grad, B.t(), None, dim, group) if wanted[0] else None,
        _ops.own_gathered(A_shard, dim, group).t() @ grad if wanted[1] else None,
        grad.sum_to_size(ctx.bias_shape) if wanted[2] else None,
        None,
        None,
    )


def _jvp_gathered_matmul(
    ctx: Any, tangent_A: Tangent, tangent_B: Tangent, tangent_bias: Tangent, *_: None
) -> Tensor:
    """Each tangent's product is an exchange: joined along K, both would be no one shard."""
    A_shard, B = ctx.saved_tensors
    if tangent_A is None:
        tangent_B = torch.zeros_like(B) if tangent_B is None else tangent_B
        tangent_A, B, tangent_B = A_shard, tangent_B, None
    tangent: Tensor = _ops.gathered_matmul(tangent_A, B, tangent_bias, *ctx.options)
    if tangent_B is not None:
        tangent = tangent + _ops.gathered_matmul(A_shard, tangent_B, None, *ctx.options)
    return tangent


differentiate("gathered_matmul", _setup_product, _backward_gathered_matmul, _jvp_gathered_matmul)


# ---- several products of one operand: what its gradient exchanges is exchanged once ----

# Of lists, one for each B.
Lists: TypeAlias = tuple[Any, ...]


def _save_list(
    ctx: Any, wanted: Lists, A: Tensor, B: Sequence[Tensor], bias: Sequence[Tensor | None]
) -> None:
    """As _save; which of them there are follows from what is wanted."""
    ctx.save_for_backward(A if any(wanted[1]) else None, *(B if wanted[0] else [None] * len(B)))
    ctx.save_for_forward(A, *B)
    ctx.bias_shapes = [None if addend is None else addend.shape for addend in bias]


def _as_one_product(
    grads: Sequence[Tensor | None], B: Sequence[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """Two matrices whose product is the sum of grad @ B.t(): side by side, so that it is added up
    as a product is, and one exchange follows the product as it is computed. To join them moves
    their elements, which are fewer than what an exchange apart from any product would move."""
    used = [(grad, factor) for grad, factor in zip(grads, B, strict=True) if grad is not None]
    if not used:
        return None
    if len(used) == 1:
        return used[0][0], used[0][1].t()
    return torch.cat([grad for grad, _ in used], 1), torch.cat([b for _, b in used], 1).t()


def _factor_gradients(
    ctx: Any, wanted: Lists, A: Tensor | None, grads: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Of the own factors and of their biases."""
    factors = [
        A.t() @ grad if A is not None and want and grad is not None else None
        for want, grad in zip(wanted[1], grads, strict=True)
    ]
    biases = [
        grad.sum_to_size(shape) if want and grad is not None else None
        for want, grad, shape in zip(wanted[2], grads, ctx.bias_shapes, strict=True)
    ]
    return factors, biases


def _setup_replicated_list(
    ctx: Any, wanted: Lists, result: Any, A: Tensor, B: Any, bias: Any, group: str
) -> None:
    _save_list(ctx, wanted, A, B, bias)
    ctx.options = (group,)


def _backward_replicated_list(ctx: Any, wanted: Lists, *grads: Tensor | None) -> Lists:
    A, *B = ctx.saved_tensors
    grad_A = None
    if wanted[0]:
        pair = _as_one_product(grads, B)
        grad_A = None if pair is None else _ops.matmul_all_reduce(*pair, None, *ctx.options)
    own = None if A is None else _own(A, *ctx.options)
    return grad_A, *_factor_gradients(ctx, wanted, own, grads), None


def _jvp_replicated_list(
    ctx: Any, tangent_A: Tangent, tangents_B: list[Tangent], tangents_bias: list[Tangent], *_: None
) -> list[Tensor]:
    A, *B = ctx.saved_tensors
    tangent_A = torch.zeros_like(A) if tangent_A is None else tangent_A
    tangents: list[Tensor] = _ops.matmul_replicated_list(tangent_A, B, tangents_bias, *ctx.options)
    return [
        tangent
        if of_factor is None
        else tangent + _ops.matmul_replicated(A, of_factor, None, *ctx.options)
        for tangent, of_factor in zip(tangents, tangents_B, strict=True)
    ]


differentiate_lists(
    "matmul_replicated_list",
    _setup_replicated_list,
    _backward_replicated_list,
    _jvp_replicated_list,
)


def _setup_gathered_list(
    ctx: Any, wanted: Lists, results: Any, A_shard: Tensor, B: Any, bias: Any, dim: int, group: str
) -> None:
    _save_list(ctx, wanted, results[-1], B, bias)
    ctx.options = dim, group


def _backward_gathered_list(ctx: Any, wanted: Lists, *of_results: Tensor | None) -> Lists:
    joined, *B = ctx.saved_tensors
    *grads, grad_joined = of_results
    grad_A = None
    if wanted[0]:
        pair = _as_one_product(grads, B)
        if grad_joined is None:
            assert pair is not None  # there is a gradient of something
            grad_A = _ops.matmul_reduce_scatter(*pair, None, *ctx.options)
        else:
            whole = grad_joined if pair is None else pair[0] @ pair[1] + grad_joined
            grad_A = _ops.reduce_scatter(whole, *ctx.options)
    return grad_A, *_factor_gradients(ctx, wanted, joined, grads), None, None


def _jvp_gathered_list(
    ctx: Any, tangent_A: Tangent, tangents_B: list[Tangent], tangents_bias: list[Tangent], *_: None
) -> list[Tensor]:
    joined, *B = ctx.saved_tensors
    if tangent_A is None:
        moved = [joined.new_zeros(joined.shape[0], b.shape[1]) for b in B]
        tangents = [t if b is None else t + b for t, b in zip(moved, tangents_bias, strict=True)]
        tangent_joined = torch.zeros_like(joined)
    else:
        *tangents, tangent_joined = _ops.all_gather_matmul_list(
            tangent_A, B, tangents_bias, *ctx.options
        )
    return [
        *(
            tangent if of_factor is None else tangent + joined @ of_factor
            for tangent, of_factor in zip(tangents, tangents_B, strict=True)
        ),
        tangent_joined,
    ]


differentiate_lists(
    "all_gather_matmul_list", _setup_gathered_list, _backward_gathered_list, _jvp_gathered_list
)


# ---- those that write into given tensors ----

for _name in (
    "matmul_all_reduce_out",
    "matmul_reduce_scatter_out",
    "all_gather_matmul_out",
    "matmul_all_gather_out",
    "all_reduce_out",
):
    refuse_to_differentiate(_name)
