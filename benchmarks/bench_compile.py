# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What compile_pass brings to models that are divided by torch's own plans.

    torchrun --nproc-per-node 4 benchmarks/bench_compile.py                  # GPUs
    torchrun --nproc-per-node 8 benchmarks/bench_compile.py --only step --length 8192
    python benchmarks/bench_compile.py --batch 1 --length 32 --width 64 --hidden 128 --heads 4

A transformer's block under `parallelize_module`, tensor-parallel and sequence-parallel: a forward
pass without gradients, and a step of training. Four runs of each in turns, in the same processes:
eager; Inductor (the speed-up is over it); Inductor with torch's own fused products
(`_micro_pipeline_tp`, which needs GPUs); Inductor with compile_pass. Results, and in a step the
gradients, are compared with the eager ones before they are timed. The last column says which
operations were put into the graphs.
"""

from __future__ import annotations

import itertools
import sys

import harness
import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symm_mem
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F

import iris_c.torch

PROJECTIONS = ("query", "key", "value", "gate", "up")
BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class Block(nn.Module):
    """Attention, then a gated MLP, each after a norm."""

    def __init__(self, width: int, hidden: int, heads: int):
        super().__init__()
        self.size = width // heads
        self.norm, self.second_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        for name in PROJECTIONS:
            rows = hidden if name in ("gate", "up") else width
            setattr(self, name, nn.Linear(width, rows, bias=False))
        self.out = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        h = self.norm(x)
        query, key, value = (
            layer(h).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        h = self.second_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def plan(divided: bool) -> dict:
    """torch's styles; with what stands between the layers divided along the sequence, or whole."""
    between = Shard(1) if divided else Replicate()
    styles = {name: ColwiseParallel(input_layouts=between) for name in PROJECTIONS}
    styles |= {name: RowwiseParallel(output_layouts=between) for name in ("out", "down")}
    if divided:
        styles |= {name: SequenceParallel() for name in ("norm", "second_norm")}
        styles[""] = PrepareModuleInput(
            input_layouts=(between,), desired_input_layouts=(between,), use_local_output=True
        )
    return styles


def runs_of(model, x, training: bool):
    """name: (function, hits); compiled and warm. A function returns local tensors to compare."""

    def forward(run):
        with torch.no_grad():
            return [run(x)]

    def step(run):
        model.zero_grad()
        result = run(x)
        result.backward(torch.ones_like(result))
        return [result.detach(), *(p.grad for p in model.parameters())]

    body = step if training else forward
    # Options that differ, if only in what they say of a default, keep the compiled functions apart.
    compiled = {"inductor": {}, "ours": {"_micro_pipeline_tp": False}}
    if x.is_cuda:
        symm_mem.enable_symm_mem_for_group(dist.group.WORLD.group_name)
        compiled["micro-pipelined"] = {"_micro_pipeline_tp": True}
    runs = {"eager": (lambda: body(model), {})}
    for name, options in compiled.items():
        run, hits = torch.compile(model, options=options), {}
        if name == "ours":
            with iris_c.torch.compile_pass() as hits:
                body(run)
        else:
            body(run)
        runs[name] = (lambda run=run: body(run), dict(hits))
    return runs


def local(tensors):
    return [(t.to_local() if isinstance(t, DTensor) else t).double() for t in tensors]


def measure(ranks, options, divided: bool, training: bool) -> harness.Row:
    world, dtype = ranks.ctx.world_size, harness.DTYPES[options.dtype]
    torch._dynamo.reset()
    torch.manual_seed(0)
    mesh = dist.init_device_mesh(ranks.device.type, (world,))
    model = Block(options.width, options.hidden, options.heads).to(ranks.device, dtype)
    parallelize_module(model, mesh, plan(divided))
    x = torch.randn(options.batch, options.length, options.width).to(ranks.device, dtype)
    if divided:
        x = x.chunk(world, 1)[ranks.ctx.rank].contiguous()
    runs = runs_of(model, x, training)
    expected, actual = (local(runs[name][0]()) for name in ("eager", "ours"))
    error = max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(actual, expected, strict=True)
    )
    (error,) = ranks._over_ranks([error], dist.ReduceOp.MAX)
    tokens = options.batch * options.length
    weights = sum(p.numel() for p in model.parameters()) // (1 if world == 1 else world)
    row = harness.Row(
        name="step" if training else "forward",
        shape=f"{options.batch}x{options.length} {options.width} {options.hidden}",
        dtype=options.dtype,
        variant="sequence" if divided else "tensor",
        size=2 * tokens * weights,
        error=error,
        bound=BOUNDS[dtype],
        peer_name="inductor",
        work=2.0 * tokens * weights * (3 if training else 1),
        mark=" ".join(f"{name} {n}" for name, n in sorted(runs["ours"][1].items())),
    )
    if row.correct:
        others = [name for name in runs if name not in ("ours", "inductor")]
        timings = ranks.alternate(
            [runs[name][0] for name in ("ours", "inductor", *others)], ranks.repeats
        )
        row.ours, row.peer = timings[:2]
        row.others = dict(zip(others, timings[2:], strict=True))
    return row


def body(ranks, options):
    iris_c.torch.register(ranks.ctx, process_group=dist.group.WORLD)
    modes = [options.only == "step"] if options.only else [False, True]
    cases = [(options, *case) for case in itertools.product((False, True), modes)]
    return ranks.each(cases, measure)


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--length", type=int, default=4096)
    arguments.add_argument("--width", type=int, default=4096)
    arguments.add_argument("--hidden", type=int, default=14336)
    arguments.add_argument("--heads", type=int, default=32)
    arguments.add_argument(
        "--dtype", choices=harness.DTYPES, help="default: bfloat16, float32 on cpu"
    )
    arguments.add_argument("--only", choices=["forward", "step"])
    options = arguments.parse_args()
    if options.dtype is None:
        options.dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    return harness.run(body, options)


if __name__ == "__main__":
    sys.exit(main())
