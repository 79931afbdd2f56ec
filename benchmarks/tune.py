# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Finds the fastest config of all_gather_matmul_hbm_buffer for the layers, and writes the table.

torchrun --nproc-per-node 4 benchmarks/tune.py --dtype bfloat16 --heap-size 6442450944
torchrun --nproc-per-node 4 benchmarks/tune.py ... --write csrc/runtime/select/tuned_configs.def

Each config is checked before it is timed, in graphs, beside the model's own choice. A row is
written only where another config beats that by more than runs differ.
"""

import pathlib
import re
import sys

import bench_matmul
import harness
import torch

import iris_c

OPERATION = "all_gather_matmul_hbm_buffer"
ARCH = "sm_90a"
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
MARGIN = 1.02
WIDTHS = (128, 256)
FETCHERS = (44, 66, 88, 132)
FLAGS = (1, 2)


def candidates():
    """The model's choice first."""
    yield {}
    for width in WIDTHS:
        for fetchers in FETCHERS:
            for flag in FLAGS:
                yield {"block_size_n": width, "num_fetch_sms": fetchers, "k_per_flag": flag}


def seconds(ranks, case, fields) -> float:
    """The median of one config's calls, after a check of one."""
    # The model, not the table that is to be written: a field that changes nothing.
    case.config = iris_c.FusedConfig(**(fields or {"group_size_m": 8}))
    case.C.fill_(float("nan"))
    case.run()
    error = float((case.C - case.checked).abs().max() / case.checked.abs().max())
    if not error < bench_matmul.BOUND[case.C.dtype]:
        raise AssertionError(f"{fields}: error {error:.2e}")
    (timing,) = ranks.alternate([case.run], ranks.repeats)
    return timing.median


def body(ranks, options):
    rows = []
    world, dtype = ranks.ctx.world_size, harness.DTYPES[options.dtype]
    for M, N, K in ((M, N // world, K) for M, N, K in bench_matmul.LAYERS):
        A, B = (torch.randn(s, device=ranks.device).to(dtype) for s in ((M, K), (K, N)))
        case = bench_matmul.OPERATIONS[OPERATION](ranks, A, B, dtype, None)
        case.peer()
        case.checked = case.out
        times = [(seconds(ranks, case, fields), fields) for fields in candidates()]
        best, fields = min(times, key=lambda pair: pair[0])
        model = times[0][0]
        rows.append((M, N, K, model, best, fields if model > MARGIN * best else {}))
        del A, B, case
    return rows


def line(row, world, dtype) -> str:
    M, N, K, _, _, fields = row
    numbers = (world, M, N, K, *(fields[name] for name in
                                 ("block_size_n", "num_fetch_sms", "k_per_flag")))  # fmt: skip
    return (
        f'IRIS_TUNED_CONFIG({OPERATION.upper()}, "{ARCH}", {NAMES[dtype]}, '
        f"{', '.join(map(str, numbers))})\n"
    )


def write(path: pathlib.Path, rows, world: int, dtype) -> None:
    """Puts the rows in the place of those of the same operation, world and dtype."""
    pattern = re.compile(
        rf'^IRIS_TUNED_CONFIG\({OPERATION.upper()}, "{ARCH}", {NAMES[dtype]}, {world},.*\n', re.M
    )
    kept = pattern.sub("", path.read_text())
    path.write_text(kept + "".join(line(row, world, dtype) for row in rows if row[-1]))


def main() -> int:
    arguments = harness.parser(__doc__.splitlines()[0], ranks=4, repeats=7)
    arguments.add_argument("--dtype", choices=harness.DTYPES, default="bfloat16")
    arguments.add_argument("--write", type=pathlib.Path, help="the table to bring up to date")
    options = arguments.parse_args()
    options.graph = True
    machine, rows, printing = harness.run_ranks(body, options)
    if not printing:
        return 0
    print(machine)
    for M, N, K, model, best, fields in rows:
        print(f"{M}x{N}x{K}: model {model * 1e6:.1f} us, best {best * 1e6:.1f} us {fields}")
    if options.write is not None:
        write(options.write, rows, options.ranks, harness.DTYPES[options.dtype])
    return 0


if __name__ == "__main__":
    sys.exit(main())
