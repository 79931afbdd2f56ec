# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Between DTensors and their local tensors, alike in all versions of torch.

torch 2.11 takes no layout of the gradient where a DTensor is made, and what its to_local does to
a gradient has no derivative: a penalty on gradients would leave out the parameters, silently.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Placement

__all__ = ["local_of", "with_local"]

_COMPLETE = "grad_placements" in inspect.signature(DTensor.from_local).parameters


def local_of(value: DTensor, grad_placements: tuple[Placement, ...]) -> Tensor:
    """The local tensor; its gradient becomes the DTensor's, of which it is the local tensor in
    these layouts."""
    if _COMPLETE or torch.compiler.is_compiling() or not value.requires_grad:
        local: Tensor = value.to_local(grad_placements=grad_placements)
    else:
        local = _LocalOf.apply(value, grad_placements)  # type: ignore[no-untyped-call]
    return local


def with_local(
    local: Tensor,
    mesh: DeviceMesh,
    placements: tuple[Placement, ...],
    grad_placements: tuple[Placement, ...],
) -> DTensor:
    """The DTensor of local tensors of one shape, each of which gets the local tensor of its
    gradient in these layouts."""
    if _COMPLETE:
        return DTensor.from_local(
            local, mesh, placements, run_check=False, grad_placements=grad_placements
        )
    value: DTensor = _WithLocal.apply(  # type: ignore[no-untyped-call]
        local, mesh, placements, grad_placements
    )
    return value


class _LocalOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: DTensor, grad_placements: tuple[Placement, ...]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.of = value.device_mesh, value.shape, value.stride(), grad_placements
        local: Tensor = value.to_local()
        return local.view_as(local)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return None, None
        mesh, shape, stride, placements = ctx.of
        grad = grad.contiguous()  # as parameters are, which optimizers count on
        return (
            DTensor.from_local(grad, mesh, placements, run_check=False, shape=shape, stride=stride),
            None,
        )


class _WithLocal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        local: Tensor,
        mesh: DeviceMesh,
        placements: tuple[Placement, ...],
        grad_placements: tuple[Placement, ...],
    ) -> DTensor:
        ctx.set_materialize_grads(False)
        ctx.grad_placements = grad_placements
        return DTensor.from_local(local.view_as(local), mesh, placements, run_check=False)

    @staticmethod
    def backward(ctx: Any, grad: DTensor | None) -> Any:
        if grad is None:
            return None, None, None, None
        if grad.placements != ctx.grad_placements:
            grad = grad.redistribute(placements=ctx.grad_placements)
        return grad.to_local(), None, None, None
