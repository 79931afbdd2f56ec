# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What a call costs before the kernel has anything to do: a 1 x 1 x 1 product, one rank.

Arguments are checked, the workspace is found, the counter is read and advanced, the kernel runs.

    python benchmarks/bench_launch.py
"""

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("IRIS_C_NUM_THREADS", "1")

import torch

import iris_c

CALLS = 20000


def nanoseconds_per_call(call) -> float:
    """The median over 11 runs of CALLS calls."""
    runs = []
    for _ in range(11):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        runs.append((time.perf_counter_ns() - start) / CALLS)
    return statistics.median(runs)


def main() -> None:
    torch.set_num_threads(1)
    with iris_c.init(heap_size=1 << 24, rank=0, world_size=1) as ctx:
        one = torch.ones(1, 1)
        B, C, out = torch.ones(1, 1), ctx.zeros(1, 1), torch.empty(1, 1)
        config = iris_c.FusedConfig(block_size_m=1, block_size_n=1)
        workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
        ops = ctx.ops
        cases = {
            "iris_c.ops.matmul_all_reduce, config and workspace given": lambda: (
                iris_c.ops.matmul_all_reduce(ctx, C, one, B, None, False, config, workspace)
            ),
            "ctx.ops.matmul_all_reduce, nothing given": lambda: ops.matmul_all_reduce(C, one, B),
            "ctx.ccl.all_reduce of one element": lambda: ctx.ccl.all_reduce(C, one),
            "torch.mm(out=)": lambda: torch.mm(one, B, out=out),
        }
        for name, call in cases.items():
            print(f"{nanoseconds_per_call(call):8.0f} ns  {name}")


if __name__ == "__main__":
    main()
