# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The demonstration that `make demo` runs: a transformer's MLP down-projection, row-parallel.

Each rank holds a slice of the hidden dimension; C = sum over ranks of A_r @ B_r. Every variant is
checked against float64 before it is timed beside torch.mm + torch.distributed. Exits with 1 if
anything is wrong.

    python benchmarks/demo.py --ranks 4
"""

import bench_matmul_all_reduce as bench
import harness
import torch

import iris_c

# (tokens, model width, hidden width of the MLP): the hidden width is split among the ranks.
LAYERS = [(512, 1024, 4096), (128, 2048, 8192)]


def body(ctx, options):
    cases = [
        ((tokens, width, hidden // ctx.world_size), dtype, variant)
        for tokens, width, hidden in LAYERS
        for dtype in (torch.float32, torch.bfloat16)
        for variant in bench.VARIANTS
    ]
    bar = harness.progress_bar(len(cases), ctx.rank)
    with bar:
        ranks = harness.Ranks(ctx, options.repeats, bar)
        return [bench.measure(ranks, ctx, *case) for case in cases]


def main() -> None:
    options = harness.parser(__doc__.splitlines()[0], repeats=7).parse_args()
    print(f"iris_c {iris_c.__version__}: C = sum over {options.ranks} ranks of A_r @ B_r")
    print("error: largest deviation from float64 over the largest element; all rows are checked\n")
    rows = harness.run(body, options)
    harness.report(rows, options)
    print(f"\n{len(rows)} rows, all correct")


if __name__ == "__main__":
    main()
