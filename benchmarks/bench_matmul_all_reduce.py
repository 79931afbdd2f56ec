# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""matmul_all_reduce beside torch.mm followed by torch.distributed's all_reduce.

python benchmarks/bench_matmul_all_reduce.py                      # the standard shapes
python benchmarks/bench_matmul_all_reduce.py --shape 512 4096 2048 --variant all --ranks 4
python benchmarks/bench_matmul_all_reduce.py --gemm               # our product alone, one rank
torchrun --nproc-per-node 2 benchmarks/bench_matmul_all_reduce.py

With --gemm the operation runs in a world of one: the time is of the whole call, the store of C
included, beside torch.mm.
"""

import sys

import harness
import peers
import torch

import iris_c

# Communication-bound, then arithmetic-bound; K is a rank's share.
SHAPES = [
    (2048, 2048, 64),
    (2048, 2048, 128),
    (2048, 2048, 1024),
    (512, 4096, 2048),
]
VARIANTS = ("two_shot", "one_shot", "ring", "atomic", "spinlock")
# Relative to the largest element of the result: fp32 accumulation, one rounding per partial sum
# and one of the result, whose unit roundoff is 2**-24, 2**-11, 2**-8; four times as much at most.
BOUND = {torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def measure(ranks: harness.Ranks, shape, dtype, variant) -> harness.Row:
    M, N, K = shape
    ctx, device = ranks.ctx, ranks.device
    A = torch.randn(M, K, device=device).to(dtype)
    B = torch.randn(K, N, device=device).to(dtype)
    C, out = ctx.empty(M, N, dtype=dtype), torch.empty(M, N, dtype=dtype, device=device)
    config = iris_c.FusedConfig(all_reduce_variant=variant)
    workspace = iris_c.FusedWorkspace(ctx, "matmul_all_reduce")
    ops = ctx.ops
    flop = 2 * M * N * K
    row = harness.Row(
        "matmul_all_reduce" if ctx.world_size > 1 else "product alone",
        f"{M}x{N}x{K}",
        str(dtype).removeprefix("torch."),
        variant,
        flop,
        float("inf"),
        BOUND[dtype],
        peers.matmul_all_reduce_name(device),
        work=flop,
    )
    return ranks.time(
        row,
        A.double() @ B.double(),
        C,
        lambda: ops.matmul_all_reduce(C, A, B, config=config, workspace=workspace),
        lambda: peers.matmul_all_reduce(out, A, B),
    )


def body(ranks, options):
    return ranks.each(options.cases, measure)


def main() -> int:
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
    return harness.run(body, options)


if __name__ == "__main__":
    sys.exit(main())
