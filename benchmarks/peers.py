# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What iris_c is compared with: the library product, then the library collective.

All that depends on the device is here: which backend of torch.distributed the peer uses, and how
to wait for a device that works asynchronously.
"""

from __future__ import annotations

import torch
import torch.distributed as dist


def backend(device: torch.device) -> str:
    """torch.distributed's backend for tensors on ``device``; RCCL answers to the name nccl too."""
    return "gloo" if device.type == "cpu" else "nccl"


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given; on the cpu it always has."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def matmul_all_reduce(out: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> None:
    """out = sum over ranks of A @ B."""
    torch.mm(A, B, out=out)
    if dist.get_world_size() > 1:
        dist.all_reduce(out)


def matmul_all_reduce_name(device: torch.device) -> str:
    return f"mm+{backend(device)}" if dist.get_world_size() > 1 else "torch.mm"


def all_reduce(tensor: torch.Tensor) -> None:
    """tensor = sum over ranks of tensor, in place."""
    dist.all_reduce(tensor)
