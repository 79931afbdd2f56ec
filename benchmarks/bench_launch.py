# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What a call costs before the kernel has anything to do: a 1 x 1 x 1 product, one rank.

From the function of the extension module to the layer that a model calls.

Arguments are checked, the workspace is found, the counter is read and advanced, the kernel runs.
Where the time goes shows in the differences: from one line of the table to another only what the
line names is left out or added. The lines take turns, so that all see the same machine.

    python benchmarks/bench_launch.py
    IRIS_C_BACKEND=cuda torchrun --nproc-per-node 4 benchmarks/bench_launch.py

On a GPU a call ends when its kernel is queued: the time is the host's alone, of runs of calls short
enough for the queue, of a 128 x 256 x 64 product in bf16.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("IRIS_C_NUM_THREADS", "1")

import numpy
import torch

import iris_c
import iris_c.torch

CALLS = 5000
ROUNDS = 31


def nanoseconds_per_call(cases: dict) -> dict:
    """The median over ROUNDS rounds, in each of which every case is called CALLS times."""
    rounds = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, call in cases.items():
            start = time.perf_counter_ns()
            for _ in range(CALLS):
                call()
            rounds[name].append((time.perf_counter_ns() - start) / CALLS)
    return {name: statistics.median(samples) for name, samples in rounds.items()}


def buffer(ctx, value: float):
    """One element in the heap that is no torch.Tensor: read without asking torch anything."""
    one = ctx.allocate((1, 1), dtype="float32")
    numpy.asarray(one)[:] = value
    return one


def in_torch(ctx, A, B) -> dict:
    """The same product as a custom operation and as a layer, beside torch.nn.Linear's."""
    iris_c.torch.register(ctx)
    K, N = B.shape
    operation = torch.ops.iris_c.matmul_all_reduce
    made = {"device": A.device, "dtype": A.dtype}
    layer = iris_c.torch.RowParallelLinear(K * ctx.world_size, N, False, ctx=ctx, **made)
    linear = torch.nn.Linear(K, N, False, **made)
    return {
        "torch.ops.iris_c.matmul_all_reduce": lambda: operation(A, B, None, "default"),
        "RowParallelLinear": lambda: layer(A),
        "torch.nn.Linear, for comparison": lambda: linear(A),
    }


@torch.no_grad()
def on_gpu() -> int:
    """Host time of one queued call, beside torch.mm's: the slowest rank's median."""
    calls, rounds = 100, 31
    with iris_c.init(heap_size=1 << 26) as ctx:
        torch.cuda.set_device(ctx.device)
        A = torch.randn(128, 64, device=ctx.device).bfloat16()
        B = torch.randn(64, 256, device=ctx.device).bfloat16()
        C, out = ctx.empty(128, 256, dtype=A.dtype), torch.empty_like(A @ B)
        workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
        call, ops = iris_c.ops.matmul_all_reduce, ctx.ops
        cases = {
            "matmul_all_reduce": lambda: call(ctx, C, A, B, None, False, None, workspace),
            "  as ops.matmul_all_reduce": lambda: ops.matmul_all_reduce(C, A, B),
            "  as ctx.ops.matmul_all_reduce": lambda: ctx.ops.matmul_all_reduce(C, A, B),
            "torch.mm(out=), for comparison": lambda: torch.mm(A, B, out=out),
            **in_torch(ctx, A, B),
        }
        for run in cases.values():
            run()  # allocates
        samples = {name: [] for name in cases}
        for _ in range(rounds):
            for name, run in cases.items():
                torch.cuda.synchronize()
                ctx.barrier()
                start = time.perf_counter_ns()
                for _ in range(calls):
                    run()
                samples[name].append((time.perf_counter_ns() - start) / calls / 1000)
        for name in cases:
            mine = torch.tensor([statistics.median(samples[name])], device=ctx.device)
            slowest = torch.empty(ctx.world_size, device=ctx.device)
            ctx.ccl.all_gather(slowest, mine)
            if ctx.rank == 0:
                print(f"{name:35} {slowest.max().item():8.2f} us on the host", flush=True)
        ctx.barrier()
    return 0


@torch.no_grad()
def main() -> int:
    torch.set_num_threads(1)
    if os.environ.get("IRIS_C_BACKEND", "cpu") != "cpu":
        return on_gpu()
    with iris_c.init(heap_size=1 << 24, rank=0, world_size=1) as ctx:
        A, B, C = torch.full((1, 1), 2.0), torch.full((1, 1), 3.0), ctx.zeros(1, 1)
        a, b, c = buffer(ctx, 2.0), buffer(ctx, 3.0), buffer(ctx, 0.0)
        out = torch.empty(1, 1)
        config = iris_c.FusedConfig(block_size_m=1, block_size_n=1)
        workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
        call, ops, reduce = iris_c.ops.matmul_all_reduce, ctx.ops, iris_c.ccl.all_reduce
        cases = {
            "an empty Python function": lambda: None,
            "matmul_all_reduce": lambda: call(ctx, C, A, B, None, False, config, workspace),
            "  with Buffers, not torch.Tensors": lambda: call(
                ctx, c, a, b, None, False, config, workspace
            ),
            "  without config": lambda: call(ctx, C, A, B, None, False, None, workspace),
            "  without config and workspace": lambda: call(ctx, C, A, B),
            "  arguments by keyword": lambda: call(
                ctx, C, A, B, config=config, workspace=workspace
            ),
            "  as bound by ops = ctx.ops": lambda: ops.matmul_all_reduce(
                C, A, B, None, False, config, workspace
            ),
            "  as ctx.ops.matmul_all_reduce": lambda: ctx.ops.matmul_all_reduce(
                C, A, B, None, False, config, workspace
            ),
            "ccl.all_reduce of one element": lambda: reduce(ctx, C, A),
            "torch.mm(out=), for comparison": lambda: torch.mm(A, B, out=out),
            **in_torch(ctx, A, B),
        }
        cases["matmul_all_reduce"]()
        cases["  with Buffers, not torch.Tensors"]()
        if float(C) != 6.0 or float(numpy.asarray(c)[0, 0]) != 6.0:
            print(f"2 * 3: expected 6, got {float(C)} and {float(numpy.asarray(c)[0, 0])}")
            return 1
        for name, ns in nanoseconds_per_call(cases).items():
            print(f"{ns:8.0f} ns  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
