# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Divides a model by torch's own plan, and lets torch.compile put fused operations into it.

    torchrun --nproc-per-node 2 docs/examples/compile_tensor_parallel.py
    torchrun --nproc-per-node 4 docs/examples/compile_tensor_parallel.py --width 4096 --steps 20

The model knows nothing of iris_c: an MLP with a norm in front of it, sequence-parallel by
`parallelize_module`. `compile_pass` makes one operation of each product and the gather before it or
the reduce-scatter behind it, in the forward and the backward pass. The program prints which, how
far the result and the gradients are from those without compilation, and what a step takes with
both.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F

import iris_c.torch

# The second dimension of what stands between the layers is divided among the ranks.
PLAN = {
    "norm": SequenceParallel(),
    "up": ColwiseParallel(input_layouts=Shard(1)),
    "down": RowwiseParallel(output_layouts=Shard(1)),
}


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(self.norm(x))))


def step(model, x):
    """The result and the gradients of the parameters, of this rank."""
    model.zero_grad()
    result = model(x)
    result.square().mean().backward()
    return [
        t.to_local() if isinstance(t, DTensor) else t
        for t in (result.detach(), *(p.grad for p in model.parameters()))
    ]


def milliseconds(model, x, steps: int) -> float:
    def wait():
        if x.is_cuda:
            torch.cuda.synchronize()
        dist.barrier()

    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step(model, x)
    wait()
    return (time.perf_counter() - start) / steps * 1e3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--width", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=2)
    arguments.add_argument("--length", type=int, default=64, help="a multiple of the ranks")
    arguments.add_argument("--steps", type=int, default=5)
    options = arguments.parse_args()

    on_gpu = torch.cuda.is_available() and os.environ.get("IRIS_C_BACKEND") != "cpu"
    device = torch.device(
        "cuda" if on_gpu else "cpu", int(os.environ["LOCAL_RANK"]) if on_gpu else 0
    )
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    world = dist.get_world_size()
    if options.length % world != 0:
        raise SystemExit(f"--length: expected a multiple of {world} ranks")
    dtype = torch.bfloat16 if on_gpu else torch.float32

    torch.manual_seed(0)  # the same model and batch on all ranks
    mesh = dist.init_device_mesh(device.type, (world,))
    model = parallelize_module(Mlp(options.width).to(device, dtype), mesh, PLAN)
    x = torch.randn(options.batch, options.length, options.width).to(device, dtype)
    x = x.chunk(world, 1)[dist.get_rank()].contiguous()

    expected, eager = step(model, x), milliseconds(model, x, options.steps)
    with iris_c.torch.compile_pass() as hits:
        compiled = torch.compile(model, fullgraph=True)
        actual = step(compiled, x)
    fused = milliseconds(compiled, x, options.steps)
    far = max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(actual, expected, strict=True)
    )
    if dist.get_rank() == 0:
        print(f"fused operations: {dict(sorted(hits.items()))}")
        print(f"largest difference {far:.1e}, relative to the largest number")
        print(f"{eager:.2f} ms a step without compilation, {fused:.2f} ms with, {world} ranks")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
