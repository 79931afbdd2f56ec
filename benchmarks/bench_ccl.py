# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""ccl.all_reduce beside torch.distributed's, by message size.

python benchmarks/bench_ccl.py --ranks 2
python benchmarks/bench_ccl.py --bytes 8192 16777216 --off-heap
"""

import harness
import torch
import torch.distributed as dist

import iris_c

SIZES = [1 << 10, 8 << 10, 64 << 10, 512 << 10, 4 << 20, 16 << 20, 64 << 20]


def measure(ranks, ctx, nbytes, dtype, variant, on_heap) -> harness.Row:
    n = nbytes // torch.empty((), dtype=dtype).element_size()
    given = torch.randn(n).to(dtype)
    output = ctx.empty(n, dtype=dtype) if on_heap else torch.empty(n, dtype=dtype)
    theirs = given.clone()
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    workspace = iris_c.FusedWorkspace(ctx, "all_reduce")
    ccl = ctx.ccl

    def ours():
        ccl.all_reduce(output, given, config=config, workspace=workspace)

    def peer():
        dist.all_reduce(theirs)

    output.fill_(float("nan"))
    ours()
    total = given.double()
    dist.all_reduce(total)
    error = harness.relative_error(output, total)
    harness.require(error < 2e-2, f"all_reduce {nbytes} bytes {dtype}: error {error:.3g}")
    repeats = max(ranks.repeats, 200 if nbytes <= 65536 else 0)
    timing, peer_timing = ranks.alternate(ours, peer, repeats)
    return harness.Row(
        "all_reduce",
        f"{nbytes} B",
        str(dtype).removeprefix("torch."),
        variant or "auto",
        error,
        timing,
        "gloo",
        peer_timing,
        work=2.0 * (ctx.world_size - 1) / ctx.world_size * nbytes,
        unit="GB/s",
    )


def body(ctx, options):
    bar = harness.progress_bar(len(options.bytes), ctx.rank)
    with bar:
        ranks = harness.Ranks(ctx, options.repeats, bar)
        dtype = harness.DTYPES[options.dtype]
        return [
            measure(ranks, ctx, nbytes, dtype, options.variant, not options.off_heap)
            for nbytes in options.bytes
        ]


def main() -> None:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--bytes", type=int, nargs="+", default=SIZES)
    arguments.add_argument("--dtype", choices=harness.DTYPES, default="float32")
    arguments.add_argument("--variant", choices=("one_shot", "two_shot"))
    arguments.add_argument("--off-heap", action="store_true", help="an ordinary output tensor")
    options = arguments.parse_args()
    harness.report(harness.run(body, options), options)


if __name__ == "__main__":
    main()
