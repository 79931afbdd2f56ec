# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""``python -m iris_c``: prints the environment, for bug reports; ``python -m iris_c selftest`` runs
every operation on several ranks and checks it; ``python -m iris_c doctor`` looks for what is wrong
with the machine; ``python -m iris_c bench`` times some operations."""

import argparse
import dataclasses
import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

import iris_c
from iris_c import _C
from iris_c._terminal import GREEN, RED, coloured
from iris_c.environment import KERNEL_DIRECTORY, default_num_threads, place
from iris_c.launchers import VARIABLES


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _code_objects() -> str:
    """The GPU code objects that this build has."""
    names = os.listdir(KERNEL_DIRECTORY) if os.path.isdir(KERNEL_DIRECTORY) else []
    return ", ".join(sorted(names)) or "none: this build has the cpu backend only"


def _devices() -> tuple[str, list[dict[str, Any]]]:
    """The GPU drivers' versions, and the devices that they see."""
    drivers, devices = [], []
    for backend in _C.backends():
        found = _C._devices(backend)
        if found is None:
            continue
        drivers.append(found[0])
        for number, (name, arch, pci, units, reaches) in enumerate(found[1]):
            devices.append({
                "backend": backend, "number": number, "name": name, "arch": arch, "pci": pci,
                "compute_units": units, "reaches": [i for i, yes in enumerate(reaches) if yes],
            })  # fmt: skip
    return ", ".join(drivers) or "none", devices


def _device_line(device: dict[str, Any]) -> str:
    reaches = " ".join(map(str, device["reaches"]))
    return (
        f"{device['backend']} {device['number']}: {device['name']}, {device['arch']}, "
        f"{device['compute_units']} compute units, {device['pci']}, reaches {reaches}"
    )


def _rank() -> str:
    """Which rank of how many init() would make of this process, and why."""
    try:
        rank, world_size, source, _ = place()
    except ValueError as error:
        return str(error)
    return f"{rank} of {world_size}, from {source}"


def report() -> dict[str, Any]:
    """What a bug report should say, in order. The values are text, but for the list of devices."""
    drivers, devices = _devices()
    try:
        threads = str(default_num_threads(1))
    except ValueError as error:
        threads = str(error)
    return {
        "iris_c": iris_c.__version__,
        "extension": _C.__file__,
        "backends": ", ".join(_C.backends()),
        "code objects": _code_objects(),
        "GPU drivers": drivers,
        "devices": devices,
        "cpu ISA": _C.cpu_isa(),
        "cpu threads": threads,
        "rank": _rank(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "system": f"{platform.platform()}, {os.cpu_count()} cores",
        "environment": " ".join(
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(("IRIS_C_", "TORCHELASTIC_"))
            or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
            or name in VARIABLES
        )
        or "-",
    }


def _info(options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps(report()))
        return 0
    for key, value in report().items():
        lines = [_device_line(device) for device in value] if key == "devices" else [value]
        for line in lines or ["none but the cpu"]:
            print(f"{key:<12} {line}")
    return 0


def _selftest(options: argparse.Namespace) -> int:
    from iris_c import selftest  # needs numpy, which the report does without

    result = selftest.run(options.backend, options.ranks, options.timeout)
    wrong = [row for row in result["rows"] if not row["ok"]]
    if options.json:
        print(json.dumps(result))
        return 1 if wrong or result["failure"] else 0
    columns = ("operation", "variant", "dtype")
    widths = {c: max(len(text) for text in (c, *(row[c] for row in result["rows"])))
              for c in columns}  # fmt: skip

    def head(row: dict[str, Any]) -> str:
        return " ".join(row[c].ljust(widths[c]) for c in columns)

    print(f"{head({c: c for c in columns})} {'error / bound':>13}  {'':<5} seconds")
    for row in result["rows"]:
        verdict = coloured("ok   ", GREEN) if row["ok"] else coloured("WRONG", RED)
        print(f"{head(row)} {row['error']:>13.3f}  {verdict} {row['seconds']:.2f}")
    if result["failure"]:
        print(coloured(result["failure"], RED))
        return 1
    print(
        f"{len(result['rows'])} checks on {result['ranks']} ranks, backend {result['backend']}: "
        + (coloured(f"{len(wrong)} WRONG", RED) if wrong else coloured("all right", GREEN))
    )
    return 1 if wrong else 0


def _shape(text: str) -> tuple[int, ...]:
    """4096x8192x1024, or 1048576."""
    try:
        return tuple(int(size) for size in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected sizes, as 4096x8192x1024 or 1048576, got {text!r}"
        ) from None


def _nbytes(text: str) -> int:
    """8, 64K, 128M or 1G."""
    units = {"K": 10, "M": 20, "G": 30}
    unit = text[-1:].upper()
    digits = text[:-1] if unit in units else text
    if not digits.isdecimal():
        raise argparse.ArgumentTypeError(f"expected bytes, as 8, 64K or 128M, got {text!r}")
    return int(digits) << units.get(unit, 0)


def _factor(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected an int, 2 or more, got {text!r}")
    return int(text)


def _bench_one(options: argparse.Namespace) -> int:
    """One operation of the caller's own shapes: every row, whoever is faster."""
    from iris_c import comparison, testing

    shapes = list(options.shape or ())
    if options.max_bytes is not None:
        element = 4 if options.dtype == "float32" else 2
        nbytes = options.min_bytes
        while nbytes <= options.max_bytes:
            shapes.append((nbytes // element,))
            nbytes *= options.factor
    try:
        if not shapes:
            raise ValueError("shape: expected one or more, by --shape or --max-bytes, got none")
        rows = testing.benchmark(
            options.op, shapes, ranks=options.ranks, dtype=options.dtype, peer=options.peer,
            backend=options.backend, timeout=options.timeout, repeats=options.repeats,
        )  # fmt: skip
    except (ValueError, testing.RankFailure) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
    else:
        print(comparison.table(rows))
    return 1 if any(row.wrong or row.peer_wrong for row in rows) else 0


def _bench(options: argparse.Namespace) -> int:
    if options.op is not None:
        return _bench_one(options)
    from iris_c import bench

    result = bench.run(options.backend, options.ranks, options.timeout, options.dtype)
    if options.json:
        print(json.dumps(result))
        return 1 if result["failure"] else 0
    if result["failure"]:
        print(result["failure"])
        return 1
    print(f"{result['ranks']} ranks, backend {result['backend']}, {result['dtype']}")
    for row in result["rows"]:
        print(
            f"{row['operation']:<18} {row['what']:>20} {row['seconds'] * 1e6:>12.1f} us "
            f"{row['rate']:>10.2f} {row['unit']}"
        )
    return 0


def _matrix(rows: list[list[float]], decimals: int) -> list[str]:
    """A row for each rank, a column for each that it wrote to."""
    head = "".join(f"{peer:>9}" for peer in range(len(rows)))
    lines = ["".join(f"{value:>9.{decimals}f}" if value else f"{'-':>9}" for value in row)
             for row in rows]  # fmt: skip
    return [f"{'':>6}{head}", *(f"{rank:>6}{line}" for rank, line in enumerate(lines))]


def _doctor(options: argparse.Namespace) -> int:
    from iris_c import doctor

    result = doctor.run(options.backend, options.ranks, options.timeout)
    problems = [finding for finding in result["findings"] if finding["remedy"]]
    if options.json:
        print(json.dumps({"info": report(), **result}))
        return 1 if problems else 0
    _info(options)
    for finding in result["findings"]:
        if not finding["remedy"]:
            print(finding["what"])
    if "rates" in result:
        print("GB/s, from the rank of the row to that of the column:")
        print("\n".join(_matrix(result["rates"], 1)))
        print("us, of a signal there and back:")
        print("\n".join(_matrix(result["round_trips"], 1)))
    for finding in problems:
        print(coloured(f"PROBLEM: {finding['what']}", RED))
        print(f"  {finding['remedy']}")
    if not problems:
        print(coloured("no problem found", GREEN))
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m iris_c", description=__doc__)
    commands = parser.add_subparsers(dest="command", title="commands")
    commands.add_parser("info", help="the environment; the default")
    test = commands.add_parser("selftest", help="every operation, checked")
    doctor = commands.add_parser("doctor", help="drivers, limits and links, for bug reports")
    timed = commands.add_parser("bench", help="some operations, timed")
    timed.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    timed.add_argument("--op", help="this operation alone, of the shapes that follow; needs torch")
    shape = "of the product; of a collective the elements of its larger tensor"
    timed.add_argument("--shape", type=_shape, nargs="+", metavar="MxNxK", help=shape)
    timed.add_argument("--min-bytes", type=_nbytes, default=8, help="of a collective: %(default)s")
    timed.add_argument("--max-bytes", type=_nbytes, help="sizes from the least to this one")
    timed.add_argument("--factor", type=_factor, default=2, help="between them: %(default)s")
    timed.add_argument("--peer", choices=("torch",), help="time torch, with its collectives, too")
    timed.add_argument("--repeats", type=int, default=5, help="runs of calls: %(default)s")
    for command in (test, doctor, timed):
        command.add_argument(
            "--backend", choices=("hip", "cuda", "cpu"), help="default: what is there"
        )
        command.add_argument("--ranks", type=int, default=2, help="processes: %(default)s")
        command.add_argument(
            "--timeout", type=float, default=30.0, help="of a wait, s: %(default)s"
        )
    for command in (parser, *commands.choices.values()):
        command.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args()
    runs = {"selftest": _selftest, "bench": _bench, "doctor": _doctor}
    return runs.get(options.command, _info)(options)


if __name__ == "__main__":
    sys.exit(main())
