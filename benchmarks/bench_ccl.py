# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""ccl.all_reduce, or with --op ccl.reduce_scatter, beside torch.distributed's, by message size.

python benchmarks/bench_ccl.py --ranks 2
python benchmarks/bench_ccl.py --bytes 8192 16777216 --off-heap
python benchmarks/bench_ccl.py --op all_reduce reduce_scatter
torchrun --nproc-per-node 4 benchmarks/bench_ccl.py --dtype bfloat16 --graph --calls 20   # GPUs

The size of a reduce_scatter is that of its input, the shares of all ranks.
On GPUs torch's symmetric-memory operations, one_shot and two_shot, stand at the end of a row of
all_reduce, and vLLM's custom all-reduce where vLLM is installed.
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
SCATTERED = ("ll", "two_shot")  # those of reduce_scatter
# What config=None chooses packets for at most (MOST_REDUCED_BY_WORDS in select_variant.c): in two
# hops messages of so many bytes, in one hop of twice that, counting those for all ranks. Beyond
# that packets are not worth measuring, and no more are one_shot and ring.
MOST_BY_WORDS = 16 << 20
# The two sizes that stand for all: a decoded token's activations, and a gradient bucket.
MARKED = {8 << 10: "<- latency", 16 << 20: "<- bandwidth"}
BOUND = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def worth_measuring(op, variant, nbytes, world_size) -> bool:
    if op == "reduce_scatter":
        return variant in SCATTERED and (variant != "ll" or nbytes <= 2 * MOST_BY_WORDS)
    if variant == "ll":
        return nbytes * world_size <= 2 * MOST_BY_WORDS
    return variant == "two_shot" or nbytes <= MOST_BY_WORDS


def measure(ranks: harness.Ranks, op, nbytes, dtype, variant, on_heap, run) -> harness.Row:
    ctx, device = ranks.ctx, ranks.device
    scatters = op == "reduce_scatter"
    share = nbytes // dtype.itemsize // ctx.world_size
    n = share * ctx.world_size if scatters else nbytes // dtype.itemsize
    given = torch.randn(n, device=device).to(dtype)
    results = share if scatters else n
    output = ctx.empty(results, dtype=dtype) if on_heap else given.new_empty(results)
    theirs = torch.zeros_like(given)  # summed in place again and again: zeros stay finite
    their_share = theirs.new_empty(share)
    config = iris_c.ccl.Config(all_reduce_variant=variant, block_size_n=run)
    workspace = iris_c.FusedWorkspace(ctx, op)
    function = getattr(ctx.ccl, op)
    if scatters:
        peer, others = (lambda: peers.reduce_scatter(their_share, theirs)), {}
    else:
        peer = lambda: peers.all_reduce(theirs)  # noqa: E731
        others = {**peers.symmetric_all_reduces(given), **peers.vllm_all_reduces(given)}
    hops = 1.0 if scatters else 2.0
    row = harness.Row(
        op,
        f"{nbytes} B",
        str(dtype).removeprefix("torch."),
        (variant or "auto") + (f" {run}" if run else ""),
        nbytes,
        float("inf"),
        BOUND[dtype],
        peers.backend(device),
        work=hops * (ctx.world_size - 1) / ctx.world_size * nbytes,
        unit="GB/s",
        mark=MARKED.get(nbytes, ""),
    )
    return ranks.time(
        row,
        given.double(),
        output,
        lambda: function(output, given, config=config, workspace=workspace),
        peer,
        repeats=max(ranks.repeats, 200 if nbytes <= 65536 and device.type == "cpu" else 0),
        others=others,
        of_sum=(lambda total: total.chunk(ctx.world_size)[ctx.rank]) if scatters else None,
    )


def body(ranks, options):
    dtype = harness.DTYPES[options.dtype]
    sizes = options.bytes or (SIZES if ranks.device.type == "cpu" else GPU_SIZES)
    variants = VARIANTS if options.variant == "all" else (options.variant,)
    cases = [
        (op, nbytes, dtype, variant, not options.off_heap, run)
        for op in options.op
        for nbytes in sizes
        for variant in variants
        for run in options.block_size_n or [None]
        if options.variant != "all" or worth_measuring(op, variant, nbytes, ranks.ctx.world_size)
    ]
    return ranks.each(cases, measure)


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    operations = ("all_reduce", "reduce_scatter")
    arguments.add_argument("--op", choices=operations, nargs="+", default=operations[:1])
    arguments.add_argument("--bytes", type=int, nargs="+")
    arguments.add_argument("--dtype", choices=harness.DTYPES, default="float32")
    arguments.add_argument("--variant", choices=(*VARIANTS, "all"))
    arguments.add_argument("--block-size-n", type=int, nargs="+", help="elements of a tile")
    arguments.add_argument("--off-heap", action="store_true", help="an ordinary output tensor")
    return harness.run(body, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
