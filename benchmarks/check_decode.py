# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The form 'decode' of the fused products on GPUs: every case right or wrong, then its time.

    python benchmarks/check_decode.py                    # on all GPUs: all results, then the times
    python benchmarks/check_decode.py --ranks 2 --only check
    python benchmarks/check_decode.py --only speed

Each case is a line of its own: "OK" or "WRONG" with the largest error relative to the float64
result's root mean square; or microseconds of a call in a graph of twenty beside torch.mm alone and
torch.mm with NCCL's collective. A case that says nothing for --patience seconds is killed with its
processes, and the next ones go on in new ones.
"""

import argparse
import itertools
import os
import queue
import socket
import subprocess
import sys
import threading

SHAPES = [(8192, 2048), (4096, 1024), (5120, 1024)]  # one, two, four blocks for a tile
ROWS = [1, 8, 16, 20, 33, 48, 64, 96, 128, 136, 200, 256]


def cases(only):
    """(kind, operation, dtype, M, N, K, layout of B, bias)"""
    found = []
    if only != "speed":
        for N, K in SHAPES:
            for M in ROWS:
                for operation in ("ll", "ll_two_shot"):
                    found.append(("check", operation, "bfloat16", M, N, K, "NK", False))
        for operation, M in itertools.product(("ll", "ll_two_shot", "rows", "cols", "gather"),
                                              (4, 64, 256)):  # fmt: skip
            found.append(("check", operation, "float16", M, 4096, 1024, "KN", True))
            found.append(("check", operation, "bfloat16", M, 4104, 1000, "NK", True))
            found.append(("check", operation, "float16", M, 1036, 77, "NK", False))
            found.append(("check", operation, "bfloat16", M, 5120, 520, "KN", False))
    if only != "check":
        for (N, K), M in itertools.product([(4096, 1024), (8192, 7168), (5120, 6912)],
                                           [1, 8, 16, 32, 64, 128, 256]):  # fmt: skip
            found.append(("speed", "", "bfloat16", M, N, K, "NK", False))
    return found


# ---- the ranks ----


def operands(torch, ctx, case):
    _, operation, dtype, M, N, K, layout, with_bias = case
    dtype = getattr(torch, dtype)
    generator = torch.Generator(device=ctx.device).manual_seed(ctx.rank + 100)
    random = lambda *s: torch.randn(*s, device=ctx.device, generator=generator)  # noqa: E731
    A = random(M, K).to(dtype)
    B = random(N, K).div(K**0.5).to(dtype).t()
    B = B if layout == "NK" else B.contiguous()
    same = torch.Generator(device=ctx.device).manual_seed(7)
    cols = N // ctx.world_size if operation == "cols" else N
    bias = torch.randn(cols, device=ctx.device, generator=same).to(dtype) if with_bias else None
    return A, B, bias


def result(torch, ctx, case):
    """A tensor for the result, poisoned."""
    _, operation, dtype, M, N, *_ = case
    rows = M * ctx.world_size if operation == "gather" else M
    rows = rows // ctx.world_size if operation == "rows" else rows
    cols = N // ctx.world_size if operation == "cols" else N
    return torch.full((rows, cols), float("nan"), device=ctx.device, dtype=getattr(torch, dtype))


def call(iris_c, ctx, operation, C, A, B, bias):
    hops = operation if operation in ("ll", "ll_two_shot") else "two_shot"
    options = {"bias": bias, "config": iris_c.FusedConfig(form="decode", all_reduce_variant=hops)}
    if operation in ("rows", "cols"):
        dim = 0 if operation == "rows" else 1
        ctx.ops.matmul_reduce_scatter(C, A, B, dim=dim, **options)
    elif operation == "gather":
        ctx.ops.matmul_all_gather(C, A, B, **options)
    else:
        ctx.ops.matmul_all_reduce(C, A, B, async_op=True, **options)


def check(torch, dist, iris_c, ctx, case):
    operation = case[1]
    A, B, bias = operands(torch, ctx, case)
    expected = A.double() @ B.double()
    if operation == "gather":
        parts = [torch.empty_like(expected) for _ in range(ctx.world_size)]
        dist.all_gather(parts, expected)
        expected = torch.cat(parts)
    else:
        dist.all_reduce(expected)
    if operation in ("rows", "cols"):
        expected = expected.chunk(ctx.world_size, 0 if operation == "rows" else 1)[ctx.rank]
    if bias is not None:
        expected = expected + bias.double()
    worst = 0.0
    for _ in range(3):  # both halves of the packets, and one of them again
        C = result(torch, ctx, case)
        torch.cuda.synchronize()
        call(iris_c, ctx, operation, C, A, B, bias)
        torch.cuda.synchronize()
        error = (C.double() - expected).abs().max() / expected.square().mean().sqrt()
        error = torch.where(torch.isnan(error), torch.inf, error)
        dist.all_reduce(error, op=dist.ReduceOp.MAX)
        worst = max(worst, error.item())
    # A few roundings to 8, or 11, bits of sums that reach five times their root mean square.
    limit = 0.1 if case[2] == "bfloat16" else 0.0125
    return f"{'OK   ' if worst < limit else 'WRONG'} {worst:.2e}"


def slowest(torch, dist, ctx, body):
    """Microseconds of the rank that takes longest."""
    import graphs

    longest = torch.tensor(graphs.microseconds(ctx, graphs.captured(body)), device=ctx.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return longest.item()


def speed(torch, dist, iris_c, ctx, case):
    A, B, _ = operands(torch, ctx, case)
    C = result(torch, ctx, case)
    tiles = iris_c.FusedConfig(form="tiles")

    def with_nccl():
        torch.mm(A, B, out=C)
        dist.all_reduce(C)

    bodies = {
        "mm": lambda: torch.mm(A, B, out=C),
        "mm+nccl": with_nccl,
        "tiles": lambda: ctx.ops.matmul_all_reduce(C, A, B, config=tiles, async_op=True),
        "ll": lambda: call(iris_c, ctx, "ll", C, A, B, None),
        "ll_two_shot": lambda: call(iris_c, ctx, "ll_two_shot", C, A, B, None),
    }
    times = {name: slowest(torch, dist, ctx, body) for name, body in bodies.items()}
    best = min(times["ll"], times["ll_two_shot"])
    text = "  ".join(f"{name} {value:.1f}" for name, value in times.items())
    return f"us  {text}  | mm {best - times['mm']:+.1f}, {times['mm+nccl'] / best:.2f} x mm+nccl"


def run_rank(only, first):
    import torch
    import torch.distributed as dist

    import iris_c

    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    with iris_c.init(heap_size=1 << 29, timeout=5.0) as ctx:
        for number, case in list(enumerate(cases(only)))[first:]:
            if ctx.rank == 0:
                print(f"BEGIN {number}", flush=True)
            body = check if case[0] == "check" else speed
            text = body(torch, dist, iris_c, ctx, case)
            if ctx.rank == 0:
                _, operation, dtype, M, N, K, layout, bias = case
                what = f"{operation} {dtype} M={M} N={N} K={K} {layout}{' bias' if bias else ''}"
                print(f"DONE {number} {what.strip()}: {text}", flush=True)
        dist.barrier()
    dist.destroy_process_group()


# ---- who watches them ----


def start(ranks, only, first):
    """The ranks' processes, and a queue of all their lines; None in it when they have ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, os.path.abspath(__file__), "--rank", str(first), "--only", only]
    common = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": port}  # fmt: skip
    reader, writer = os.pipe()
    processes = []
    for rank in range(ranks):
        added = {**common, "RANK": rank, "LOCAL_RANK": rank}
        environment = os.environ | {name: str(value) for name, value in added.items()}
        processes.append(
            subprocess.Popen(command, env=environment, stdout=writer, stderr=subprocess.STDOUT)
        )
    os.close(writer)
    lines = queue.Queue()

    def read():
        with open(reader, errors="replace") as stream:
            for line in stream:
                lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return processes, lines


def watch(ranks, only, first, patience):
    """Runs the cases from the `first` on; returns the number of the next one to be run."""
    processes, lines = start(ranks, only, first)
    running, limit, tail = first, 90.0, []
    try:
        while True:
            line = lines.get(timeout=limit)
            if line is None:
                if any(process.wait(limit) for process in processes):
                    print("\n".join(tail[-40:]))
                    print(f"FAILED in case {running} {cases(only)[running]}", flush=True)
                    return running + 1
                return len(cases(only))
            if line.startswith("BEGIN "):
                running, limit = int(line.split()[1]), patience
            elif line.startswith("DONE "):
                print(line[5:], flush=True)
            else:
                tail.append(line)
    except queue.Empty:
        print("\n".join(tail[-10:]))
        print(f"HUNG in case {running} {cases(only)[running]}", flush=True)
        return running + 1
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=0, help="0: as many as there are GPUs")
    parser.add_argument("--only", choices=("all", "check", "speed"), default="all")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds for a case")
    parser.add_argument("--failures", type=int, default=6, help="after so many it stops")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--rank", type=int, default=-1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank >= 0:
        run_rank(args.only, args.rank)
        return
    import torch

    ranks = args.ranks or torch.cuda.device_count()
    number, failures = args.first, -1
    while number < len(cases(args.only)) and failures < args.failures:
        number = watch(ranks, args.only, number, args.patience)
        failures += 1
    print(f"{number} of {len(cases(args.only))} cases, {failures} failures")


if __name__ == "__main__":
    main()
