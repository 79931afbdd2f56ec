# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The alternatives to a tensor-parallel layer, each as the same four functions.

A kit has, for operands x (M, K) and B (K, N) of this rank,

    all_reduce(x, B)      the sum over ranks of x @ B
    reduce_scatter(x, B)  this rank's rows of it
    gather(x, B)          (joined x) @ B, and the joined x; x is this rank's rows
    all_gather(x, B)      all ranks' x @ B, one below the other

so that a layer's forward and backward pass are made of any of them alike. A function that a kit
lacks is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.distributed as dist

# A one-shot all-reduce reads every peer's whole tensor: above this nobody takes it.
ONE_SHOT_BYTES = 8 << 20


@dataclasses.dataclass
class Kit:
    all_reduce: Callable | None = None
    reduce_scatter: Callable | None = None
    gather: Callable | None = None
    all_gather: Callable | None = None
    none: Callable = torch.mm  # the product of a layer that exchanges nothing


class Scratch:
    """Memory of one kind, allocated once, of which each case takes the beginning."""

    def __init__(self, memory: torch.Tensor):
        self.memory = memory

    def matrix(self, rows: int, columns: int) -> torch.Tensor:
        return self.memory[: rows * columns].view(rows, columns)


def library() -> Kit:
    """torch.mm (which F.linear is) and torch.distributed: NCCL, RCCL, gloo."""
    world = dist.get_world_size()

    def all_reduce(x, B):
        y = torch.mm(x, B)
        dist.all_reduce(y)
        return y

    def reduce_scatter(x, B):
        y = torch.mm(x, B)
        share = y.new_empty(y.shape[0] // world, y.shape[1])
        dist.reduce_scatter_tensor(share, y)
        return share

    def joined(x):
        whole = x.new_empty(x.shape[0] * world, x.shape[1])
        dist.all_gather_into_tensor(whole, x)
        return whole

    def gather(x, B):
        whole = joined(x)
        return torch.mm(whole, B), whole

    def all_gather(x, B):
        return joined(torch.mm(x, B))

    return Kit(all_reduce, reduce_scatter, gather, all_gather)


def plain(ctx, scratch: Scratch) -> Kit:
    """torch.mm and our collective, whose result lies in the heap where it is every rank's."""
    world = ctx.world_size

    def all_reduce(x, B):
        y = torch.mm(x, B)
        total = scratch.matrix(*y.shape)
        ctx.ccl.all_reduce(total, y)
        return total

    def reduce_scatter(x, B):
        y = torch.mm(x, B)
        share = y.new_empty(y.shape[0] // world, y.shape[1])
        ctx.ccl.reduce_scatter(share, y, "sum")
        return share

    def joined(x):
        whole = scratch.matrix(x.shape[0] * world, x.shape[1])
        ctx.ccl.all_gather(whole, x)
        return whole

    def gather(x, B):
        whole = joined(x)
        return torch.mm(whole, B), whole

    def all_gather(x, B):
        return joined(torch.mm(x, B))

    return Kit(all_reduce, reduce_scatter, gather, all_gather)


def symmetric(kits: dict[str, Kit], numel: int, dtype: torch.dtype, device: torch.device) -> None:
    """Adds torch's all-reduces on symmetric memory, and its fused operations. torch has no fused
    operation for the sum: the product goes to symmetric memory."""
    import torch.distributed._symmetric_memory as symm_mem

    group = dist.group.WORLD.group_name
    ops = torch.ops.symm_mem
    symm_mem.enable_symm_mem_for_group(group)
    memory = symm_mem.empty(numel, dtype=dtype, device=device)
    symm_mem.rendezvous(memory, group)
    scratch = Scratch(memory)

    def product(x, B):
        y = scratch.matrix(x.shape[0], B.shape[1])
        return torch.mm(x, B, out=y)

    def one_shot(x, B):
        y = product(x, B)
        return ops.one_shot_all_reduce(y.view(-1), "sum", group).view(y.shape)

    def two_shot(x, B):
        y = product(x, B)
        ops.two_shot_all_reduce_(y.view(-1), "sum", group)
        return y

    def reduce_scatter(x, B):
        return ops.fused_matmul_reduce_scatter(x, B, "sum", 0, group)

    def gather(x, B):
        whole, (y,) = ops.fused_all_gather_matmul(x, [B], 0, group)
        return y, whole

    kits["one_shot"] = Kit(all_reduce=one_shot)
    kits["two_shot"] = Kit(all_reduce=two_shot)
    kits["fused"] = Kit(reduce_scatter=reduce_scatter, gather=gather)


def make_kits(ctx, numel: int, dtype: torch.dtype) -> tuple[dict[str, Kit], list[str]]:
    """The libraries' alternatives that there are here, by name, and remarks about those that there
    are not; `numel` is the most elements that a result or a joined operand has."""
    device = torch.device(ctx.device)
    kits, remarks = {"nccl" if device.type == "cuda" else "gloo": library()}, []
    if device.type == "cuda" and ctx.world_size > 1:
        try:
            symmetric(kits, numel, dtype, device)
        except Exception as error:  # of whatever torch this is: the others can be measured
            remarks.append(f"torch's symmetric memory: n/a, {short(error)}")
    return kits, remarks


def short(error: Exception) -> str:
    """An error in a line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
