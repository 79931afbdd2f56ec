# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""matmul_all_reduce beside torch.mm followed by torch.distributed's all_reduce.

python benchmarks/bench_matmul_all_reduce.py                      # the standard shapes
python benchmarks/bench_matmul_all_reduce.py --shape 512 4096 2048 --variant all --ranks 4
python benchmarks/bench_matmul_all_reduce.py --gemm               # our product alone, one rank
"""

import harness
import torch
import torch.distributed as dist

import iris_c

# Communication-bound, then arithmetic-bound; K is a rank's share.
SHAPES = [
    (2048, 2048, 64),
    (2048, 2048, 128),
    (2048, 2048, 1024),
    (512, 4096, 2048),
]
VARIANTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
# Relative to the largest element of the result: fp32 accumulation, one rounding per partial.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def expected_sum(A, B):
    """float64 reference on every rank."""
    total = A.double() @ B.double()
    dist.all_reduce(total)
    return total


def measure(ranks, ctx, shape, dtype, variant) -> harness.Row:
    M, N, K = shape
    A, B = torch.randn(M, K).to(dtype), torch.randn(K, N).to(dtype)
    C, out = ctx.empty(M, N, dtype=dtype), torch.empty(M, N, dtype=dtype)
    config = iris_c.FusedConfig(all_reduce_variant=variant)
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    ops = ctx.ops

    def ours():
        ops.matmul_all_reduce(C, A, B, config=config, workspace=workspace)

    def peer():
        torch.mm(A, B, out=out)
        if ctx.world_size > 1:
            dist.all_reduce(out)

    C.fill_(float("nan"))
    ours()
    error = harness.relative_error(C, expected_sum(A, B))
    harness.require(error < TOLERANCE[dtype], f"{variant} {shape} {dtype}: error {error:.3g}")
    timing, peer_timing = ranks.alternate(ours, peer)
    return harness.Row(
        "matmul_all_reduce" if ctx.world_size > 1 else "product alone",
        f"{M}x{N}x{K}",
        str(dtype).removeprefix("torch."),
        variant,
        error,
        timing,
        "mm+gloo" if ctx.world_size > 1 else "torch.mm",
        peer_timing,
        work=2.0 * M * N * K,
    )


def body(ctx, options):
    bar = harness.progress_bar(len(options.cases), ctx.rank)
    with bar:
        ranks = harness.Ranks(ctx, options.repeats, bar)
        return [measure(ranks, ctx, *case) for case in options.cases]


def main() -> None:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--shape", type=int, nargs=3, metavar=("M", "N", "K"), action="append")
    arguments.add_argument("--dtype", choices=harness.DTYPES, default="float32")
    arguments.add_argument("--variant", choices=(*VARIANTS, "all"), default="two_shot")
    arguments.add_argument("--gemm", action="store_true", help="one rank against torch.mm")
    options = arguments.parse_args()
    variants = VARIANTS if options.variant == "all" else (options.variant,)
    dtype = harness.DTYPES[options.dtype]
    options.ranks = 1 if options.gemm else options.ranks
    options.cases = [
        (tuple(shape), dtype, variant) for shape in options.shape or SHAPES for variant in variants
    ]
    harness.report(harness.run(body, options), options)


if __name__ == "__main__":
    main()
