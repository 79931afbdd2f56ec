# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What iris_c is compared with: the library product, then the library collective.

All that depends on the device is here: which backend of torch.distributed the peer uses, and how
to wait for a device that works asynchronously.
"""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist


def backend(device: torch.device) -> str:
    """torch.distributed's backend for tensors on ``device``; RCCL answers to the name nccl too."""
    return "gloo" if device.type == "cpu" else "nccl"


def init(device: torch.device) -> None:
    """Joins torch.distributed, on the device."""
    if device.type == "cpu":
        dist.init_process_group("gloo")
        return
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given; on the cpu it always has."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def matmul_all_reduce(out: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> None:
    """out = sum over ranks of A @ B."""
    torch.mm(A, B, out=out)
    if dist.get_world_size() > 1:
        dist.all_reduce(out)


def matmul_reduce_scatter(share, out: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> None:
    """share = this rank's rows of the sum over ranks of A @ B; `out` is overwritten."""
    torch.mm(A, B, out=out)
    if dist.get_world_size() > 1:
        dist.reduce_scatter_tensor(share, out)


def matmul_all_gather(out, share: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> None:
    """out = all ranks' A @ B one below the other; `share` is overwritten."""
    torch.mm(A, B, out=share)
    if dist.get_world_size() > 1:
        dist.all_gather_into_tensor(out, share)


def all_gather_matmul(out, joined, A: torch.Tensor, B: torch.Tensor, dim: int) -> None:
    """out = all ranks' A, joined along dim, @ B; `joined` is overwritten."""
    world = dist.get_world_size()
    if world == 1:
        torch.mm(A, B, out=out)
        return
    if dim == 0:
        dist.all_gather_into_tensor(joined, A)
        torch.mm(joined, B, out=out)
        return
    parts = joined.view(world * A.shape[0], A.shape[1])
    dist.all_gather_into_tensor(parts, A)
    torch.mm(torch.cat(parts.chunk(world), 1), B, out=out)


def symmetric_all_gather_matmul(A: torch.Tensor, B: torch.Tensor, dim: int):
    """The same by torch's fused operation, as a function to call; None where there is none."""
    if A.device.type == "cpu" or dist.get_world_size() == 1:
        return None
    import torch.distributed._symmetric_memory as symm_mem

    group = dist.group.WORLD.group_name
    symm_mem.enable_symm_mem_for_group(group)
    return lambda: torch.ops.symm_mem.fused_all_gather_matmul(A, [B], dim, group)


def symmetric_matmul_reduce_scatter(A: torch.Tensor, B: torch.Tensor):
    """The same by torch's fused operation, as a function to call; None where there is none."""
    if A.device.type == "cpu" or dist.get_world_size() == 1:
        return None
    import torch.distributed._symmetric_memory as symm_mem

    group = dist.group.WORLD.group_name
    symm_mem.enable_symm_mem_for_group(group)
    return lambda: torch.ops.symm_mem.fused_matmul_reduce_scatter(A, B, "sum", 0, group)


def product_name(device: torch.device) -> str:
    return f"mm+{backend(device)}" if dist.get_world_size() > 1 else "torch.mm"


def symmetric_matmul_all_reduce(A: torch.Tensor, B: torch.Tensor):
    """The same with torch's symmetric memory, as a function to call; None where there is none.

    torch has no fused operation for this sum: the product goes to a symmetric buffer, which its
    two-shot all-reduce sums in place.
    """
    if A.device.type == "cpu" or dist.get_world_size() == 1 or A.dtype == torch.float16:
        return None
    import torch.distributed._symmetric_memory as symm_mem

    group = dist.group.WORLD.group_name
    out = symm_mem.empty(A.shape[0], B.shape[1], dtype=A.dtype, device=A.device)
    symm_mem.rendezvous(out, group)

    def run():
        torch.mm(A, B, out=out)
        torch.ops.symm_mem.two_shot_all_reduce_(out, "sum", group)

    return run


def all_reduce(tensor: torch.Tensor) -> None:
    """tensor = sum over ranks of tensor, in place."""
    dist.all_reduce(tensor)


def reduce_scatter(share: torch.Tensor, tensor: torch.Tensor) -> None:
    """share = this rank's part of the sum over ranks of tensor."""
    dist.reduce_scatter_tensor(share, tensor)


@functools.cache
def _vllm_communicator(device: torch.device):
    """None without vLLM."""
    try:
        from vllm.distributed.device_communicators.custom_all_reduce import CustomAllreduce
    except ImportError:
        return None
    communicator = CustomAllreduce(dist.new_group(backend="gloo"), device)
    if hasattr(communicator, "finalize_p2p"):  # of versions that leave it disabled until then
        communicator.finalize_p2p()
    return communicator


class _VllmAllReduce:
    """vLLM's, as vLLM calls it: with a copy of the input into its buffer, but in a graph, whose
    inputs the ranks register when it is captured."""

    def __init__(self, communicator, tensor: torch.Tensor):
        self.capture = communicator.capture
        self.communicator, self.tensor = communicator, tensor

    def __call__(self) -> None:
        self.communicator.custom_all_reduce(self.tensor)


def vllm_all_reduces(tensor: torch.Tensor) -> dict:
    """vLLM's custom all-reduce, where vLLM is installed and offers it for such a tensor."""
    if tensor.device.type == "cpu" or dist.get_world_size() == 1:
        return {}
    communicator = _vllm_communicator(tensor.device)
    if communicator is None or not communicator.should_custom_ar(tensor):
        return {}
    return {"vllm": _VllmAllReduce(communicator, tensor)}


def symmetric_all_reduces(tensor: torch.Tensor) -> dict:
    """torch's symmetric-memory all_reduces of a tensor like this one, by name; none on the cpu."""
    if tensor.device.type == "cpu" or dist.get_world_size() == 1 or tensor.numel() % 64 != 0:
        return {}
    import torch.distributed._symmetric_memory as symm_mem

    group = dist.group.WORLD.group_name
    given = symm_mem.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).zero_()
    symm_mem.rendezvous(given, group)
    out = torch.empty_like(tensor)
    ops = torch.ops.symm_mem
    return {
        "one_shot": lambda: ops.one_shot_all_reduce_out(given, "sum", group, out),
        "two_shot": lambda: ops.two_shot_all_reduce_(given, "sum", group),
    }


def all_reduce_rmsnorm(tensor, residual, weight, eps: float) -> torch.Tensor:
    """tensor = sum over ranks of tensor + residual, in place; its RMSNorm."""
    dist.all_reduce(tensor)
    tensor.add_(residual)
    return torch.nn.functional.rms_norm(tensor, weight.shape, weight, eps)
