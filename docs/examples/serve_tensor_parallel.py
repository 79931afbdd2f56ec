# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Generates text with a tensor-parallel transformer, token after token: a small serving loop.

    torchrun --nproc-per-node 2 docs/examples/serve_tensor_parallel.py
    torchrun --nproc-per-node 4 docs/examples/serve_tensor_parallel.py --width 4096 --layers 8

A step of decoding has few rows, so its row-parallel layers multiply and then sum a small message:
`all_reduce` of a few KiB, one hop. On GPUs the step is captured in a graph once
and replayed for every token; sums, caches and all. The weights are random, equal for any number of
ranks, and so is the text; what counts is tokens per second.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ranks share the machine's cores

import torch
from torch import nn
from torch.nn import functional as F

import iris_c.torch
from iris_c.torch import ColumnParallelLinear, RowParallelLinear


class Block(nn.Module):
    """Attention over a cache of what came before, then an MLP; x is (batch, width)."""

    def __init__(self, ctx, width: int, heads: int, batch: int, length: int):
        super().__init__()
        self.ctx, self.heads, self.size = ctx, heads // ctx.world_size, width // heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value = (
            ColumnParallelLinear(width, width, bias=False, ctx=ctx) for _ in range(3)
        )
        self.attention_out = RowParallelLinear(width, width, bias=False, ctx=ctx)
        self.mlp_in = ColumnParallelLinear(width, 4 * width, bias=False, ctx=ctx)
        self.mlp_out = RowParallelLinear(4 * width, width, bias=False, ctx=ctx)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(batch, self.heads, length, self.size))

    def summed(self, layer: RowParallelLinear, x):
        """layer(x), as a product and a small sum."""
        return iris_c.torch.all_reduce(F.linear(x, layer.weight), ctx=self.ctx)

    def attention(self, x, position, seen):
        query, key, value = (
            layer(x).view(x.shape[0], self.heads, 1, self.size)
            for layer in (self.query, self.key, self.value)
        )
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        mixed = F.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=seen)
        return self.summed(self.attention_out, mixed.reshape(x.shape[0], -1))

    def forward(self, x, position, seen):
        x = x + self.attention(self.norms[0](x), position, seen)
        return x + self.summed(self.mlp_out, F.gelu(self.mlp_in(self.norms[1](x))))


class Generator(nn.Module):
    """One step of greedy decoding; its state, the tokens and the position, is in buffers, so that
    a graph can replay it."""

    def __init__(self, ctx, options):
        super().__init__()
        batch, length = options.batch, options.tokens + 1
        self.tokens = nn.Embedding(256, options.width)
        self.positions = nn.Parameter(torch.randn(length, options.width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(ctx, options.width, options.heads, batch, length) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(options.width)
        self.output = nn.Linear(options.width, 256, bias=False)
        self.register_buffer("text", torch.zeros(batch, length, dtype=torch.long))
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))
        self.register_buffer("places", torch.arange(length))

    @torch.no_grad()
    def step(self) -> None:
        seen = (self.places <= self.position).view(1, 1, 1, -1)
        x = self.tokens(self.text.index_select(1, self.position)[:, 0])
        x = x + self.positions.index_select(0, self.position)
        for block in self.blocks:
            x = block(x, self.position, seen)
        following = self.output(self.norm(x)).argmax(-1, keepdim=True)
        self.position += 1
        self.text.index_copy_(1, self.position, following)

    def begin(self) -> None:
        self.text.zero_()
        self.text[:, 0] = torch.arange(len(self.text), device=self.text.device)
        self.position.zero_()


def captured(model: Generator):
    """A step as a function to call: a graph's replay on a GPU, the step itself on the cpu."""
    model.step()  # what it loads and allocates, it does now
    if model.text.device.type == "cpu":
        return model.step
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        model.step()
    return graph.replay


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--width", type=int, default=256)
    arguments.add_argument("--heads", type=int, default=8, help="a multiple of the ranks")
    arguments.add_argument("--layers", type=int, default=4)
    options = arguments.parse_args()

    torch.set_num_threads(1)
    with iris_c.torch.init(heap_size=1 << 26) as ctx:
        if options.heads % ctx.world_size != 0:
            raise SystemExit(f"--heads: expected a multiple of {ctx.world_size} ranks")
        torch.manual_seed(0)
        dtype = torch.float32 if ctx.backend == "cpu" else torch.bfloat16
        if ctx.backend != "cpu":
            torch.cuda.set_device(ctx.device)
        model = Generator(ctx, options).to(ctx.device, dtype)
        step = captured(model)
        model.begin()
        ctx.barrier()
        start = time.perf_counter()
        for _ in range(options.tokens):
            step()
        text = model.text.cpu()  # waits for the device
        seconds = time.perf_counter() - start
        if ctx.rank == 0:
            print(f"text {text[0, 1:17].tolist()} ...")
            print(
                f"{options.batch * options.tokens / seconds:.0f} tokens/s, "
                f"{seconds / options.tokens * 1e3:.2f} ms a step, {ctx.world_size} rank(s), "
                f"backend {ctx.backend}"
            )
        ctx.barrier()


if __name__ == "__main__":
    main()
