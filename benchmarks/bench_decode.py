# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What an all_reduce adds to a small product before it, as in a decoded token's layer.

torchrun --nproc-per-node 4 benchmarks/bench_decode.py      # GPUs

A graph of twenty products, each followed by an all_reduce of its result, less a graph of the
products alone: medians of fifteen replays that all ranks begin together. Beside NCCL and torch's
symmetric-memory one_shot, after a check of each result.
"""

import os

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symm_mem
from graphs import captured, microseconds

import iris_c

WIDTH, DTYPE = 4096, torch.bfloat16


def measure(ctx, rows: int) -> None:
    group = dist.group.WORLD.group_name
    A = torch.randn(rows, WIDTH, device=ctx.device, dtype=DTYPE)
    B = torch.randn(WIDTH, WIDTH, device=ctx.device, dtype=DTYPE) / WIDTH**0.5
    partial = torch.empty(rows, WIDTH, device=ctx.device, dtype=DTYPE)
    total = ctx.empty(rows, WIDTH, dtype=DTYPE)
    shared = symm_mem.empty(rows * WIDTH, dtype=DTYPE, device=ctx.device)
    symm_mem.rendezvous(shared, group)
    shared = shared.view(rows, WIDTH)
    theirs = None

    def ours():
        torch.mm(A, B, out=partial)
        ctx.ccl.all_reduce(total, partial)

    def nccl():
        torch.mm(A, B, out=partial)
        dist.all_reduce(partial)

    def one_shot():
        nonlocal theirs
        torch.mm(A, B, out=shared)
        theirs = torch.ops.symm_mem.one_shot_all_reduce(shared.view(-1), "sum", group)

    expected = torch.mm(A, B).float()
    dist.all_reduce(expected)
    graphs = {body.__name__: captured(body) for body in (ours, nccl, one_shot)}
    results = {"ours": lambda: total, "nccl": lambda: partial, "one_shot": lambda: theirs}
    alone = microseconds(ctx, captured(lambda: torch.mm(A, B, out=partial)))
    added = {}
    for name, graph in graphs.items():
        added[name] = microseconds(ctx, graph) - alone
        got = results[name]().view(rows, WIDTH).float()
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=6e-2)
    if ctx.rank == 0:
        text = "  ".join(f"{name} {value:.1f}" for name, value in added.items())
        print(f"{rows * WIDTH * 2} bytes after a product of {alone:.1f} us, us: {text}")


def main() -> None:
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    with iris_c.init(heap_size=1 << 26) as ctx:
        for rows in (1, 8, 32):
            measure(ctx, rows)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
