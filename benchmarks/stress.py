# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Random calls of matmul_all_reduce for a while, every element checked.

python benchmarks/stress.py --seconds 60 --ranks 2
torchrun --nproc-per-node 4 benchmarks/stress.py --seconds 600

Shapes, layouts, dtypes, variants, biases, workspaces and, on GPUs, streams and graph replays are
drawn alike on all ranks, inputs and small delays differently. The reference is a float64 product
and torch.distributed's all_reduce. The first wrong element ends it, with the seed and the call.
"""

import random
import sys
import time

import harness
import peers
import torch
import torch.distributed as dist

import iris_c

VARIANTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def laid_out(draw, rows, cols, dtype, device):
    """A matrix with strides that a caller might have."""
    kind = draw.choice(("row", "row", "transposed", "padded", "strided"))
    if kind == "transposed":
        return torch.empty(cols, rows, dtype=dtype, device=device).t()
    if kind == "padded":
        return torch.empty(rows, cols + 3, dtype=dtype, device=device)[:, 1 : cols + 1]
    if kind == "strided":
        return torch.empty(2 * rows, 2 * cols, dtype=dtype, device=device)[::2, ::2]
    return torch.empty(rows, cols, dtype=dtype, device=device)


class Call:
    """One call's tensors and how to check them."""

    def __init__(self, ranks, draw, workspaces, largest):
        ctx, device = ranks.ctx, ranks.device
        self.M, self.N = (draw.choice((1, 7, 64, 128, largest)) for _ in range(2))
        self.M, self.N = (draw.randint(1, size) for size in (self.M, self.N))
        self.K = draw.randint(1, draw.choice((1, 16, 64, 200, largest)))
        self.dtype = draw.choice(tuple(UNIT))
        self.variant = draw.choice(VARIANTS)
        self.A = laid_out(draw, self.M, self.K, self.dtype, device)
        self.B = laid_out(draw, self.K, self.N, self.dtype, device)
        # Named before anything is drawn by rank: allocation is collective.
        on_heap = draw.random() < 0.7
        self.C = (
            ctx.empty(self.M, self.N, dtype=self.dtype)
            if on_heap
            else laid_out(draw, self.M, self.N, self.dtype, device)
        )
        has_bias = draw.random() < 0.3
        self.bias = torch.randn(self.N, device=device).to(self.dtype) if has_bias else None
        if has_bias:
            dist.broadcast(self.bias, 0)
        self.workspace = draw.choice(workspaces)
        self.ctx = ctx

    def __str__(self):
        return (
            f"{self.M}x{self.N}x{self.K} {self.dtype} {self.variant} bias={self.bias is not None}"
        )

    def refill(self):
        self.A.copy_(torch.randn(self.M, self.K, device=self.A.device))
        self.B.copy_(torch.randn(self.K, self.N, device=self.B.device))
        self.C.fill_(float("nan"))

    def run(self):
        config = iris_c.FusedConfig(all_reduce_variant=self.variant)
        self.ctx.ops.matmul_all_reduce(
            self.C, self.A, self.B, bias=self.bias, config=config, workspace=self.workspace
        )

    def wrong(self) -> int:
        """How many elements are outside the bound of tests/cases.py."""
        a, b = self.A.double(), self.B.double()
        partial = a @ b
        sums = torch.stack((partial, partial.abs(), a.abs() @ b.abs()))
        dist.all_reduce(sums)
        expected, partials, products = sums
        if self.bias is not None:
            expected = expected + self.bias.double()
            products = products + self.bias.double().abs()
        u, e = UNIT[self.dtype], UNIT[torch.float32]
        world = self.ctx.world_size
        bound = 1.01 * u * (partials + expected.abs()) + e * (self.K + world + 2) * products
        bound += 2.0**-24 * (world + 1) if self.dtype == torch.float16 else 0
        return int((~((self.C.double() - expected).abs() <= bound)).sum())


def soak(ranks, options):
    """Rounds of calls; a round's calls are made, then checked in several turns."""
    ctx, gpu = ranks.ctx, ranks.device.type != "cpu"
    draw = random.Random(options.seed)
    mine = random.Random(f"{options.seed}/{ctx.rank}")
    workspaces = [None, *(iris_c.FusedWorkspace(ctx, "matmul_all_reduce") for _ in range(3))]
    until = torch.tensor([time.time() + options.seconds], dtype=torch.float64, device=ranks.device)
    dist.broadcast(until, 0)
    until = until.item()
    calls = replays = 0
    while True:
        go_on = torch.tensor([float(time.time() < until)], device=ranks.device)
        dist.broadcast(go_on, 0)
        if not go_on.item():
            break
        for _ in range(20):
            call = Call(ranks, draw, workspaces, options.largest)
            graph = None
            if gpu and draw.random() < 0.5:
                call.ctx.ops.matmul_all_reduce_preamble(
                    call.C, call.A, call.B, bias=call.bias, workspace=call.workspace,
                    config=iris_c.FusedConfig(all_reduce_variant=call.variant),
                )  # fmt: skip
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    call.run()
            for turn in range(draw.randint(1, 4)):
                call.refill()
                peers.synchronize(ranks.device)
                if mine.random() < 0.2:
                    time.sleep(mine.random() * 2e-3)
                if graph is not None and draw.random() < 0.7:
                    graph.replay()
                    replays += 1
                else:
                    call.run()
                calls += 1
                wrong = call.wrong()
                if wrong:
                    raise AssertionError(
                        f"rank {ctx.rank}, seed {options.seed}, call {calls}, turn {turn}: {call}: "
                        f"{wrong} of {call.M * call.N} elements are wrong"
                    )
    counts = torch.tensor([calls, replays], device=ranks.device)
    if ctx.rank == 0:
        print(f"{int(counts[0])} calls on each rank, {int(counts[1])} of them replays: no wrong "
              f"element", flush=True)  # fmt: skip
    return []


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--largest", type=int, default=700, help="of M, N and K")
    return harness.run(soak, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
