# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The demonstration that `make demo` runs: a transformer's MLP down-projection, row-parallel.

Each rank holds a slice of the hidden dimension; C = sum over ranks of A_r @ B_r. Every variant is
checked against float64 and timed beside torch.mm + torch.distributed, on whatever device there is.
Exits with 1 if a row is wrong or a rank fails.

    python benchmarks/demo.py --ranks 4
"""

import sys

import bench_matmul as bench
import harness
import torch

# (tokens, model width, hidden width of the MLP): the hidden width is split among the ranks.
LAYERS = [(512, 1024, 4096), (128, 2048, 8192)]
# Of the first layer: where the cpu has no bfloat16, torch takes a quarter of a minute for a call of
# the other.
ALSO = [(LAYERS[0], torch.bfloat16, "two_shot")]


def body(ranks, options):
    rows = [(layer, torch.float32, variant) for layer in LAYERS for variant in bench.VARIANTS]
    cases = []
    for (tokens, width, hidden), dtype, variant in rows + ALSO:
        shape = (tokens, width, hidden // ranks.ctx.world_size)
        cases.append((bench.AllReduce.name, shape, dtype, None, variant))
    return ranks.each(cases, bench.measure)


def main() -> int:
    options = harness.parser(__doc__.splitlines()[0], repeats=7).parse_args()
    print("C = sum over ranks of A_r @ B_r, shape: M x N x K of a rank.")
    print("error: largest deviation from float64, on any rank, over the largest element of C.\n")
    return harness.run(body, options)


if __name__ == "__main__":
    sys.exit(main())
