# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""ccl.all_reduce_rmsnorm beside all_reduce, add and rms_norm of torch, by shape.

python benchmarks/bench_rmsnorm.py --ranks 2
torchrun --nproc-per-node 4 benchmarks/bench_rmsnorm.py --dtype bfloat16 --graph --calls 20   # GPUs

At the end of a row: our all_reduce followed by torch's add and rms_norm.
"""

import sys

import harness
import peers
import torch

import iris_c

SHAPES = [(rows, hidden) for hidden in (4096, 8192) for rows in (1, 8, 32, 128, 512)]
BOUND = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
EPS = 1e-6


def measure(ranks: harness.Ranks, rows, hidden, dtype, variant) -> harness.Row:
    ctx, device = ranks.ctx, ranks.device
    generator = torch.Generator().manual_seed(rows)  # equal on all ranks
    residual = torch.randn(rows, hidden, generator=generator).to(device, dtype)
    weight = torch.randn(hidden, generator=generator).to(device, dtype)
    given = torch.randn(rows, hidden, device=device).to(dtype)
    output, residual_out, summed = (torch.empty_like(given) for _ in range(3))
    theirs = torch.zeros_like(given)
    config = iris_c.ccl.Config(all_reduce_variant=variant)
    nbytes = given.numel() * dtype.itemsize
    row = harness.Row(
        "all_reduce_rmsnorm", f"{rows}x{hidden}", str(dtype).removeprefix("torch."),
        variant or "auto", nbytes, float("inf"), BOUND[dtype],
        f"{peers.backend(device)}+add+norm",
        work=2.0 * (ctx.world_size - 1) / ctx.world_size * nbytes, unit="GB/s",
    )  # fmt: skip

    def normalized(total):
        total = (total + residual.double()).to(dtype).double()
        return total * weight.double() / (total.square().mean(-1, keepdim=True) + EPS).sqrt()

    def in_steps():
        ctx.ccl.all_reduce(summed, given)
        summed.add_(residual)
        torch.nn.functional.rms_norm(summed, weight.shape, weight, EPS)

    return ranks.time(
        row,
        given.double(),
        output,
        lambda: ctx.ccl.all_reduce_rmsnorm(
            output, residual_out, given, residual, weight, EPS, config=config
        ),
        lambda: peers.all_reduce_rmsnorm(theirs, residual, weight, EPS),
        others={"ours in steps": in_steps},
        of_sum=normalized,
    )


def body(ranks, options):
    dtype = harness.DTYPES[options.dtype]
    cases = [(*shape, dtype, options.variant) for shape in SHAPES]
    return ranks.each(cases, measure)


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0])
    arguments.add_argument("--dtype", choices=harness.DTYPES, default="float32")
    arguments.add_argument("--variant", choices=("ll", "ll_two_shot"))
    return harness.run(body, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
