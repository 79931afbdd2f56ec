# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Trains a small network with torch's DDP or FSDP; iris_c carries out their collectives.

    torchrun --nproc-per-node 2 docs/examples/train_data_parallel.py
    torchrun --nproc-per-node 4 docs/examples/train_data_parallel.py --shard
    torchrun --nproc-per-node 2 docs/examples/train_data_parallel.py --backend gloo   # to compare

The first import is all that a program of torch.distributed needs, beside the backend's name. The
ranks learn the sine of their own rows of each batch; the losses do not depend on the backend, up to
rounding.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import iris_c.torch.backend  # noqa: F401 - it is the backend's registration


def network(device: torch.device) -> nn.Sequential:
    torch.manual_seed(0)  # the same network on all ranks
    layers = nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    return nn.Sequential(*layers).to(device)


def train(model: nn.Module, steps: int, device: torch.device) -> list[float]:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.rand(256, 1, generator=generator) * 6 - 3  # of all ranks
        x = x.chunk(world_size)[rank].to(device)
        loss = nn.functional.mse_loss(model(x), x.sin())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(mean.item())
    return losses


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--backend", default="iris", help="of torch.distributed")
    arguments.add_argument("--shard", action="store_true", help="FSDP in place of DDP")
    arguments.add_argument("--steps", type=int, default=200)
    options = arguments.parse_args()

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    dist.init_process_group(options.backend)
    model = network(device)
    if options.shard:
        mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
        losses = train(fully_shard(model, mesh=mesh), options.steps, device)
    else:
        losses = train(DistributedDataParallel(model), options.steps, device)
    if dist.get_rank() == 0:
        print(f"loss {losses[0]:.6f} -> {losses[-1]:.6f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
