# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Float8 products on GPUs: every case right or wrong, their error over K, and their time.

    torchrun --nproc-per-node 2 benchmarks/check_float8.py check
    torchrun --nproc-per-node 1 benchmarks/check_float8.py error   # beside torch._scaled_mm's
    torchrun --nproc-per-node 1 benchmarks/check_float8.py speed   # the same

Each case is a line of its own: "OK" or "WRONG" with the largest error relative to the float64
result's root mean square; or the error of sums of positive products, where every addition's error
has the same sign; or microseconds of a call in a graph of twenty.
"""

import argparse
import itertools
import os

import torch
import torch.distributed as dist
from graphs import captured, microseconds

import iris_c

BLOCK = 128
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
KINDS = [("tensor", "tensor"), ("row", "row"), ("line", "square"), ("line", "line"),
         ("square", "square"), ("row", "line"), ("tensor", "row")]  # fmt: skip
OPERATIONS = ["matmul_all_reduce", "matmul_reduce_scatter 0", "matmul_reduce_scatter 1",
              "matmul_all_gather", "all_gather_matmul 0", "all_gather_matmul_hbm_buffer 0",
              "all_gather_matmul_hbm_buffer 1"]  # fmt: skip
SHAPES = [(128, 256, 128), (1024, 2048, 1024), (384, 512, 1280), (130, 300, 129), (256, 520, 400)]


def blocks(size):
    return -(-size // BLOCK)


def draw_scale(ctx, kind, mn, k):
    shape = {"tensor": (1, 1), "row": (mn, 1), "line": (mn, blocks(k)),
             "square": (blocks(mn), blocks(k))}[kind]  # fmt: skip
    return torch.rand(shape, device=ctx.device, dtype=torch.float32) + 0.5


def spread(scale, mn, k):
    """A scale for each element of an operand (mn, k)."""
    scale = scale.double()
    rows = scale if scale.shape[0] in (1, mn) else scale.repeat_interleave(BLOCK, 0)[:mn]
    cols = rows if rows.shape[1] == 1 else rows.repeat_interleave(BLOCK, 1)[:, :k]
    return cols.expand(mn, k)


def joined(tensor, dim=0):
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts, dim)


def check(ctx, case):
    name, (M, N, K), kinds, formats, layout, dtype, with_bias = case
    operation, _, dim = name.partition(" ")
    gathers = operation.startswith("all_gather")
    dim, world = int(dim or 0), ctx.world_size
    inner = K * world if gathers and dim == 1 else K
    torch.manual_seed(ctx.rank)
    A = torch.randn(M, K, device=ctx.device).to(formats[0])
    B = torch.randn(N, inner, device=ctx.device).to(formats[1])
    scale_a, scale_b = draw_scale(ctx, kinds[0], M, K), draw_scale(ctx, kinds[1], N, inner)
    a, b = A.double() * spread(scale_a, M, K), B.double() * spread(scale_b, N, inner)
    if layout == "KN":
        B = B.t().contiguous().t()
    if gathers:
        expected = joined(a, dim) @ b.t()
    else:
        expected = a @ b.t()
        if operation == "matmul_all_gather":
            expected = joined(expected)
        else:
            dist.all_reduce(expected)
        if operation == "matmul_reduce_scatter":
            expected = expected.chunk(world, dim)[ctx.rank]
    options = {"scale_a": scale_a, "scale_b": scale_b.t()}
    if with_bias and not operation.endswith("reduce_scatter"):
        bias = torch.randn(expected.shape[1], device="cpu", generator=torch.Generator())
        options["bias"] = bias.to(ctx.device, dtype)
        expected = expected + options["bias"].double()
    if operation == "matmul_reduce_scatter":
        options["dim"] = dim
    if gathers:
        options["gather_dim"] = dim
    worst = 0.0
    for _ in range(3):
        C = torch.full(expected.shape, float("nan"), device=ctx.device, dtype=dtype)
        getattr(ctx.ops, operation)(C, A, B.t(), **options)
        torch.cuda.synchronize()
        error = (C.double() - expected).abs().max() / expected.square().mean().sqrt()
        error = torch.where(torch.isnan(error), torch.inf, error)
        dist.all_reduce(error, op=dist.ReduceOp.MAX)
        worst = max(worst, error.item())
    limit = 0.06 if dtype == torch.bfloat16 else 0.008
    return f"{'OK   ' if worst < limit else 'WRONG'} {worst:.2e}"


def check_cases(world):
    bf16, f16 = torch.bfloat16, torch.float16
    for name, shape in itertools.product(OPERATIONS, SHAPES):
        if "reduce_scatter" in name and shape[int(name[-1])] % world:
            continue
        if name.endswith("buffer 1") and shape[2] % BLOCK:
            kinds = KINDS[:2]
        else:
            kinds = KINDS
        for n, kind in enumerate(kinds):
            layout = "KN" if n % 3 == 2 else "NK"
            yield name, shape, kind, (E4M3, E4M3), layout, (bf16, f16)[n % 2], n % 2 == 0
    for formats in ((E4M3, E5M2), (E5M2, E4M3), (E5M2, E5M2)):
        for name in OPERATIONS:
            yield name, SHAPES[2], ("row", "row"), formats, "NK", bf16, True


def reference(A, B, scale_a, scale_b, dtype, fast):
    """torch._scaled_mm, or None where this torch has none for the scales."""
    try:
        return torch._scaled_mm(A, B, scale_a=scale_a, scale_b=scale_b, out_dtype=dtype,
                                use_fast_accum=fast)  # fmt: skip
    except (RuntimeError, ValueError):
        return None


def error(ctx, K):
    torch.manual_seed(3)
    M, N = 512, 512
    A = torch.rand(M, K, device=ctx.device).to(E4M3)
    B = torch.rand(N, K, device=ctx.device).to(E4M3).t()
    one = torch.ones(1, 1, device=ctx.device)
    scale = one / K
    expected = (A.double() @ B.double()) / K
    C = torch.empty(M, N, device=ctx.device, dtype=torch.float16)
    ctx.ops.matmul_all_reduce(C, A, B, scale_a=scale, scale_b=one)
    of = lambda x: ((x.double() - expected) / expected).abs().max().item()  # noqa: E731
    text = [f"ours {of(C):.2e}"]
    for fast in (False, True):
        theirs = reference(A, B, scale, one, torch.float16, fast)
        if theirs is not None:
            text.append(f"_scaled_mm{' fast' if fast else ''} {of(theirs):.2e}")
    return f"K {K}: " + "  ".join(text)


def speed(ctx, case):
    (M, N, K), kinds = case
    torch.manual_seed(3)
    A = torch.randn(M, K, device=ctx.device).to(E4M3)
    B = torch.randn(N, K, device=ctx.device).to(E4M3).t()
    scale_a, scale_b = draw_scale(ctx, kinds[0], M, K), draw_scale(ctx, kinds[1], N, K).t()
    C = torch.empty(M, N, device=ctx.device, dtype=torch.bfloat16)
    half = [A.to(torch.bfloat16), B.to(torch.bfloat16)]
    bodies = {
        "ours": lambda: ctx.ops.matmul_all_reduce(
            C, A, B, scale_a=scale_a, scale_b=scale_b, async_op=True
        ),
        "bf16 mm": lambda: torch.mm(*half, out=C),
    }
    for width in (128, 256):
        config = iris_c.FusedConfig(form="tiles", block_size_n=width)
        if not (width == 256 and "line" in kinds):
            bodies[f"ours {width}"] = lambda config=config: ctx.ops.matmul_all_reduce(
                C, A, B, scale_a=scale_a, scale_b=scale_b, async_op=True, config=config
            )
    for fast in (False, True):
        if reference(A, B, scale_a, scale_b, torch.bfloat16, fast) is not None:
            bodies[f"_scaled_mm{' fast' if fast else ''}"] = lambda fast=fast: reference(
                A, B, scale_a, scale_b, torch.bfloat16, fast
            )
    times = {name: microseconds(ctx, captured(body)) for name, body in bodies.items()}
    text = "  ".join(
        f"{name} {value:.1f} ({2e-6 * M * N * K / value:.0f} TF)" for name, value in times.items()
    )
    return f"{M} x {N} x {K} {kinds[0]}/{kinds[1]} us: {text}"


def speed_cases():
    for shape in ((1024, 4096, 4096), (2048, 8192, 8192), (4096, 4096, 4096), (8192, 8192, 8192),
                  (4096, 7168, 16384), (8192, 8192, 1024)):  # fmt: skip
        for kinds in KINDS[:3]:
            yield shape, kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("check", "error", "speed"))
    what = parser.parse_args().what
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    with iris_c.init(heap_size=1 << 29, timeout=5.0) as ctx:
        if what == "check":
            for case in check_cases(ctx.world_size):
                text = check(ctx, case)
                if ctx.rank == 0:
                    print(text, *case, flush=True)
        elif what == "error":
            for K in (128, 512, 1024, 4096, 16384, 65536):
                print(error(ctx, K), flush=True)
        else:
            for case in speed_cases():
                print(speed(ctx, case), flush=True)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
