# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""ccl.all_reduce beside torch.distributed's, by message size.

python benchmarks/bench_ccl.py --ranks 2
python benchmarks/bench_ccl.py --bytes 8192 16777216 --off-heap
torchrun --nproc-per-node 4 benchmarks/bench_ccl.py --dtype bfloat16 --graph --calls 20   # GPUs

On GPUs torch's symmetric-memory operations, one_shot and two_shot, stand at the end of a row, and
vLLM's custom all-reduce where vLLM is installed.
--variant all measures every variant: what the choice of config=None is made from.
"""

import sys

import harness
import peers
import torch

import iris_c

SIZES = [1 << 10, 8 << 10, 64 << 10, 512 << 10, 4 << 20, 16 << 20, 64 << 20]
GPU_SIZES = [1 << n for n in range(10, 29)]
VARIANTS = ("ll", "ll_two_shot", "one_shot", "two_shot", "ring")
# Above this a variant that sends everything to everybody, or doubles it, is not worth measuring.
SMALL = {"ll": 1 << 20, "ll_two_shot": 4 << 20, "one_shot": 16 << 20, "ring": 16 << 20}
# The two sizes that stand for all: a decoded token's activations, and a gradient bucket.
MARKED = {8 << 10: "<- latency", 16 << 20: "<- bandwidth"}
BOUND = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def measure(ranks: harness.Ranks, nbytes, dtype, variant, on_heap, run) -> harness.Row:
    ctx, device = ranks.ctx, ranks.device
    n = nbytes // dtype.itemsize
    given = torch.randn(n, device=device).to(dtype)
    output = ctx.empty(n, dtype=dtype) if on_heap else torch.empty_like(given)
    theirs = torch.zeros_like(given)  # summed in place again and again: zeros stay finite
    config = iris_c.ccl.Config(all_reduce_variant=variant, block_size_n=run)
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    ccl = ctx.ccl
    row = harness.Row(
        "all_reduce",
        f"{nbytes} B",
        str(dtype).removeprefix("torch."),
        (variant or "auto") + (f" {run}" if run else ""),
        nbytes,
        float("inf"),
        BOUND[dtype],
        peers.backend(device),
        work=2.0 * (ctx.world_size - 1) / ctx.world_size * nbytes,
        unit="GB/s",
        mark=MARKED.get(nbytes, ""),
    )
    return ranks.time(
        row,
        given.double(),
        output,
        lambda: ccl.all_reduce(output, given, config=config, workspace=workspace),
        lambda: peers.all_reduce(theirs),
        repeats=max(ranks.repeats, 200 if nbytes <= 65536 and device.type == "cpu" else 0),
        others={**peers.symmetric_all_reduces(given), **peers.vllm_all_reduces(given)},
    )


def body(ranks, options):
    dtype = harness.DTYPES[options.dtype]
    sizes = options.bytes or (SIZES if ranks.device.type == "cpu" else GPU_SIZES)
    variants = VARIANTS if options.variant == "all" else (options.variant,)
    cases = [
        (nbytes, dtype, variant, not options.off_heap, run)
        for nbytes in sizes
        for variant in variants
        for run in options.block_size_n or [None]
        if options.variant != "all" or nbytes <= SMALL.get(variant, nbytes)
    ]
    return ranks.each(cases, measure)


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--bytes", type=int, nargs="+")
    arguments.add_argument("--dtype", choices=harness.DTYPES, default="float32")
    arguments.add_argument("--variant", choices=(*VARIANTS, "all"))
    arguments.add_argument("--block-size-n", type=int, nargs="+", help="elements of a tile")
    arguments.add_argument("--off-heap", action="store_true", help="an ordinary output tensor")
    return harness.run(body, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
