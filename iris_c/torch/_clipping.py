# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The norm of all gradients of a model some of whose parameters are divided, and their scaling.

torch.nn.utils.clip_grad_norm_ does it where all parameters are DTensors of one mesh. Here they may
be mixed: DTensors of several meshes, as FSDP2 makes them, ordinary tensors that are equal on all
ranks, and ordinary tensors that are parts of one, whose attribute `part` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import iris_c.torch._gradients  # noqa: F401  (the operations)
from iris_c.torch._parameters import is_distributed

__all__ = ["clip_grad_norm_"]


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale the gradients of all parameters so that their norm is `max_norm` at most. Collective.

    The norm is the whole model's, equal on all ranks, also of parameters of which ranks have parts
    without torch.distributed knowing, and of DTensors beside ordinary tensors. Ordinary tensors
    without a mark count as equal on all ranks. All ranks pass the same parameters in one order.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    max_norm : float
    norm_type : float
        The order of the norm, more than 0; inf for the largest element.
    error_if_nonfinite : bool
        Whether a norm that is no finite number is an error.

    Returns
    -------
    Tensor
        The norm before scaling.

    Raises
    ------
    RuntimeError
        The norm is not finite and error_if_nonfinite is set; nothing has been scaled.
    """
    order = float(norm_type)
    norm: Tensor
    if not order > 0:
        raise ValueError(f"norm_type: expected more than 0, got {norm_type}")
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads: list[Tensor] = []
    # Of gradients that are divided alike: their sum of powers, and what adds up the ranks'.
    totals: dict[Any, tuple[Tensor, Callable[[Tensor], Tensor]]] = {}
    for parameter in given:
        if parameter.grad is None:
            continue
        grad, key, reduce = _divided(parameter, order)
        grads.append(grad)
        power = _power(grad, order)
        if key in totals:
            before = totals[key][0].to(power.device)
            power = torch.maximum(before, power) if math.isinf(order) else before + power
        totals[key] = power, reduce
    if not grads:
        return torch.tensor(0.0)
    powers = [reduce(power).to(grads[0].device) for power, reduce in totals.values()]
    together = torch.stack(powers)
    norm = together.max() if math.isinf(order) else together.sum() ** (1 / order)
    if error_if_nonfinite and not torch.isfinite(norm):
        raise RuntimeError(f"parameters: expected a finite norm of gradients, got {norm.item()}")
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.to(grad.device))
    return norm


def _power(grad: Tensor, order: float) -> Tensor:
    """The sum of the elements' powers, or the largest element."""
    dtype = torch.promote_types(grad.dtype, torch.float32)
    if grad.numel() == 0:
        return torch.zeros((), dtype=torch.float32, device=grad.device)
    with torch._C.DisableTorchFunctionSubclass():  # of this rank's part
        norm: Tensor = torch.linalg.vector_norm(grad, order, dtype=dtype)
    # Sums go over the ranks in one dtype, also where a rank's part is empty.
    return (norm if math.isinf(order) else norm**order).float()


def _divided(parameter: Any, order: float) -> tuple[Tensor, Any, Callable[[Tensor], Tensor]]:
    """This rank's part of a gradient, a name of those that are divided alike, and what makes of a
    rank's sum of powers that of all parts."""
    grad = parameter.grad
    largest = math.isinf(order)
    if is_distributed(grad):
        if any(placement.is_partial() for placement in grad.placements):
            grad = parameter.grad = _without_partial(grad)
        mesh = grad.device_mesh
        dims = tuple(i for i, placement in enumerate(grad.placements) if hasattr(placement, "dim"))
        groups = [mesh.get_group(i) for i in dims]
        op = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM

        def over_mesh(power: Tensor) -> Tensor:
            for group in groups:
                dist.all_reduce(power, op, group)
            return power

        return grad.to_local(), tuple(group.group_name for group in groups), over_mesh
    part = getattr(parameter, "part", None)
    if part is None or part.dim is None:
        return grad, (), lambda power: power

    def over_ranks(power: Tensor) -> Tensor:
        summed: Tensor = torch.ops.iris_c.all_reduce(
            power.reshape(1), "max" if largest else "sum", part.group
        )[0]
        return summed if largest else summed / part.copies

    return grad, (part.group, part.copies), over_ranks


def _without_partial(grad: Any) -> Any:
    from torch.distributed.tensor import Replicate

    placements = [Replicate() if p.is_partial() else p for p in grad.placements]
    return grad.redistribute(placements=placements)
