# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Trains a transformer that torch's parallelize_module divides, with the styles of iris_c.

    torchrun --nproc-per-node 2 docs/examples/train_with_a_plan.py
    torchrun --nproc-per-node 2 docs/examples/train_with_a_plan.py --styles torch
    torchrun --nproc-per-node 4 docs/examples/train_with_a_plan.py --data-parallel 2

The model and the plan know nothing of iris_c: where the styles come from is all that changes, and
the losses are the same. The other dimension of the mesh is FSDP2's.
"""

from __future__ import annotations

import argparse
import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.nn import functional as F

import iris_c.torch
from iris_c.torch import parallel

STYLES = {"iris_c": "iris_c.torch.parallel", "torch": "torch.distributed.tensor.parallel"}
TOKENS = 64


class Block(nn.Module):
    """A block of a transformer, in two parts that a plan can name."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width), Attention(width, heads)
        self.mlp_norm, self.mlp = nn.RMSNorm(width), MLP(width)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.size = width // heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, x):
        batch, length, _ = x.shape
        query, key, value = (
            layer(x).view(batch, length, -1, self.size).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Model(nn.Module):
    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.output = nn.RMSNorm(width), nn.Linear(width, TOKENS, bias=False)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


def plan(styles):
    """Between the products each rank has a part of the sequence, dimension 1."""
    gathered = styles.PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate())
    block = {
        "attention_norm": styles.SequenceParallel(),
        "attention": gathered,
        **{f"attention.{name}": styles.ColwiseParallel() for name in ("query", "key", "value")},
        "attention.out": styles.RowwiseParallel(output_layouts=Shard(1)),
        "mlp_norm": styles.SequenceParallel(),
        "mlp": gathered,
        **{f"mlp.{name}": styles.ColwiseParallel() for name in ("gate", "up")},
        "mlp.down": styles.RowwiseParallel(output_layouts=Shard(1)),
    }
    return {
        "embedding": styles.RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        **{f"layers.*.{name}": style for name, style in block.items()},
        "norm": styles.SequenceParallel(),
        "output": styles.ColwiseParallel(input_layouts=Shard(1), use_local_output=False),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--styles", choices=STYLES, default="iris_c")
    arguments.add_argument("--data-parallel", type=int, default=1, help="divides the ranks")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--width", type=int, default=64)
    arguments.add_argument("--heads", type=int, default=8, help="a multiple of the ranks of a plan")
    arguments.add_argument("--layers", type=int, default=2)
    arguments.add_argument("--length", type=int, default=32, help="a multiple of the same")
    options = arguments.parse_args()

    on_gpu = torch.cuda.is_available() and os.environ.get("IRIS_C_BACKEND") != "cpu"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    groups = options.data_parallel
    mesh = dist.init_device_mesh(
        device.type, (groups, dist.get_world_size() // groups), mesh_dim_names=("data", "tensor")
    )
    ctx = iris_c.torch.init(mesh["tensor"], heap_size=1 << 26)

    styles = importlib.import_module(STYLES[options.styles])
    torch.manual_seed(0)  # the same model on all ranks
    model = Model(options.width, options.heads, options.layers).to(device)
    styles.parallelize_module(model, mesh["tensor"], plan(styles))
    if groups > 1:
        for layer in model.layers:
            fully_shard(layer, mesh=mesh["data"])
        fully_shard(model, mesh=mesh["data"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(options.steps):
        torch.manual_seed(step)
        ids = torch.randint(TOKENS, (4 * groups, 1)) + torch.arange(options.length)
        ids = (ids % TOKENS).to(device).chunk(groups)[mesh.get_local_rank("data")]
        with styles.loss_parallel():
            loss = F.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, 1).flatten())
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().full_tensor()
        dist.all_reduce(mean)
        if dist.get_rank() == 0:
            print(f"step {step} loss {mean.item() / dist.get_world_size():.4f}")
    if dist.get_rank() == 0:
        for name, calls in parallel.calls(model).items():
            print(f"{name}: {', '.join(f'{n} {operation}' for operation, n in calls.items())}")
    ctx.barrier()
    ctx.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
