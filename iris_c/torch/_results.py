# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Where the results of operations lie that peers write: in the local arena, where they can.

A result that peers cannot reach is staged and copied when all of it is there; one that they can is
written as it is computed. So it is allocated in the arena, if there is room, as any other tensor if
not. Results that only this rank writes gain nothing there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

import iris_c
from iris_c.torch._nodes import Nodes


def empty(ctx: iris_c.Context | Nodes, like: Tensor, *shape: int) -> Tensor:
    """An uninitialised result of like's dtype, on its device."""
    if like.layout is not torch.strided:  # the core says what it is
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    if isinstance(ctx, Nodes):
        ctx = ctx.ctx
    if ctx.local_size > 0 and ctx.world_size > 1:
        if ctx.backend == "cpu":
            if like.is_cpu:
                return _on_cpu(ctx, like, shape)
        elif like.is_cuda and like.device.index == ctx.device_id:
            return _on_gpu(ctx, like, shape)
    # In half of torch.empty's time, without a tuple in two thirds of that.
    return like.new_empty(*shape) if shape else like.new_empty(shape)


def _on_cpu(ctx: iris_c.Context, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        capsule = ctx.allocate_local(shape, like.dtype).__dlpack__()
    # No room; or what the operation itself will refuse: it names the argument.
    except (iris_c.HeapExhausted, TypeError, ValueError):
        return like.new_empty(shape)
    result: Tensor = from_dlpack(capsule)
    return result


def _on_gpu(ctx: iris_c.Context, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        pools = ctx._pools or ctx._arena_pools()
        result: Tensor = pools.empty(ctx, shape, like)
    # Another version of torch, a driver that cannot tell of captures, a closed context: the
    # operation says what is wrong, if anything is.
    except (RuntimeError, iris_c.BackendError):
        return like.new_empty(shape)
    return result
