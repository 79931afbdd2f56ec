# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Collectives of small messages on a machine that others use too, beside MPICH's.

python benchmarks/bench_busy.py
python benchmarks/bench_busy.py --ranks 2 --busy 0 2 --calls all_reduce --bytes 8 65536
python benchmarks/bench_busy.py --mpi-python elsewhere/bin/python   # where mpich and mpi4py are

On the cpu. --busy processes that only count run beside --ranks ranks. Each of all these leads a
process session: Linux may share cores among these (autogroup), and MPICH's launcher makes one for
each rank. Both libraries' ranks live through a table; those that are not measured are blocked in
a read. Their blocks of calls alternate, ours first, then theirs, then the other way round, so
that both see the same machine. A block takes about --seconds; its time is that of its slowest
rank, divided by the calls. A row has the median over the blocks, with quartiles, and the ratio of
the medians, ours to MPICH's: under 1 ours is faster. Without mpich the columns say so. A product
has no counterpart: its ratio is to the same row with nothing beside the ranks. barrier is on the
device, host_barrier that of Context.barrier, through sockets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

RANK = pathlib.Path(__file__).with_name("busy_rank.py")
CALLS = ("all_reduce", "all_gather", "broadcast", "barrier", "host_barrier", "matmul_all_reduce")
SIZELESS = ("barrier", "host_barrier")
PRODUCT_SIZES = (16, 64, 128)  # M = N = K
START_S, ANSWER_S = 120, 300
# Busy processes end by themselves should nobody end them.
BUSY = "import busy_rank, signal; busy_rank.be_nice(); signal.alarm(3600)\nwhile True: pass"


class Ranks:
    """The ranks of one library: processes that take commands."""

    def __init__(self, library: str, commands: list[list[str]], environments: list[dict], count):
        self.library = library
        self.directory = tempfile.TemporaryDirectory()
        address = os.path.join(self.directory.name, "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(count)
            listener.settimeout(START_S)
            self.processes = [
                subprocess.Popen(
                    [*command, str(RANK), library, address],
                    env=environment,
                    start_new_session=True,
                )
                for command, environment in zip(commands, environments, strict=True)
            ]
            self.streams = []
            for _ in range(count):
                connection, _peer = listener.accept()
                connection.settimeout(ANSWER_S)
                self.streams.append(connection.makefile("rw"))
                connection.close()
        for stream in self.streams:
            stream.readline()

    def seconds(self, name: str, size: int, calls: int) -> float:
        """Of a call, on the slowest rank."""
        answers = []
        with contextlib.suppress(OSError):
            for stream in self.streams:
                print(json.dumps([name, size, calls]), file=stream, flush=True)
            answers = [stream.readline() for stream in self.streams]
        if not answers or not all(answers):
            codes = [process.poll() for process in self.processes]
            raise SystemExit(f"{self.library}: a rank has ended by {name} of {size}: {codes}")
        return max(map(float, answers)) / calls

    def calls_for(self, name: str, size: int, seconds: float) -> int:
        """How many calls take about so long."""
        calls = 3
        while True:
            took = self.seconds(name, size, calls) * calls
            if took > seconds / 4:
                return max(3, int(calls * seconds / took))
            calls = int(calls * min(8, 1 + seconds / 2 / max(took, 1e-6)))

    def close(self) -> None:
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.close()
        for process in self.processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.directory.cleanup()


def iris_ranks(count: int) -> Ranks:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environments = [
        {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "IRIS_C_NUM_THREADS": "1",
        }
        for rank in range(count)
    ]
    return Ranks("iris_c", [[sys.executable]] * count, environments, count)


def mpich_ranks(count: int, python: str) -> Ranks | None:
    """None where mpich or mpi4py is not installed."""
    beside = pathlib.Path(python).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    has_mpi4py = subprocess.run([python, "-c", "import mpi4py, numpy"], capture_output=True)
    if mpiexec is None or has_mpi4py.returncode != 0:
        return None
    return Ranks("mpich", [[mpiexec, "-n", str(count), python]], [dict(os.environ)], count)


@contextlib.contextmanager
def busy_processes(count: int):
    processes = [
        subprocess.Popen([sys.executable, "-c", BUSY], cwd=RANK.parent, start_new_session=True)
        for _ in range(count)
    ]
    try:
        time.sleep(0.2 if count else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(name: str, size: int, libraries: list[Ranks], options) -> list[list[float]]:
    """Seconds of a call, by library and block."""
    calls = [ranks.calls_for(name, size, options.seconds) for ranks in libraries]
    samples = [[] for _ in libraries]
    for block in range(options.blocks):
        order = list(range(len(libraries)))
        for i in order if block % 2 == 0 else reversed(order):
            samples[i].append(libraries[i].seconds(name, size, calls[i]))
    return samples


def cases(options):
    for name in options.calls:
        if name in SIZELESS:
            yield name, 0
        else:
            sizes = PRODUCT_SIZES if name == "matmul_all_reduce" else options.bytes
            for size in sizes:
                yield name, size


def spread(samples: list[float]) -> tuple[str, str]:
    low, _, high = statistics.quantiles([s * 1e6 for s in samples], n=4)
    return f"{statistics.median(samples) * 1e6:.1f}", f"{low:.1f}-{high:.1f}"


LINE = "{:>5}  {:>4}  {:<17}  {:>7}  {:>9}  {:>17}  {:>9}  {:>17}  {:>6}"


def table(ranks_count: int, busy: int, options, idle: dict) -> list[dict]:
    """Measures and prints the rows of so many ranks with so many busy processes beside them."""
    rows = []
    with contextlib.ExitStack() as stack:
        libraries = [iris_ranks(ranks_count), mpich_ranks(ranks_count, options.mpi_python)]
        for library in filter(None, libraries):
            stack.callback(library.close)
        stack.enter_context(busy_processes(busy))
        for name, size in cases(options):
            comparable = name != "matmul_all_reduce"
            measured = [r for r in libraries if r and (comparable or r.library == "iris_c")]
            samples = measure(name, size, measured, options)
            ours = statistics.median(samples[0])
            if busy == 0:
                idle[ranks_count, name, size] = ours
            reference, cells = None, ("not installed", "") if comparable else ("-", "")
            if len(samples) > 1:
                reference, cells = statistics.median(samples[1]), spread(samples[1])
            elif not comparable:
                reference = idle.get((ranks_count, name, size))
                cells = ("idle", f"{reference * 1e6:.1f}") if reference else cells
            ratio = ours / reference if reference else None
            shown = f"{ratio:.2f}" if ratio else "-"
            print(LINE.format(ranks_count, busy, name, size, *spread(samples[0]), *cells, shown))
            sys.stdout.flush()
            rows.append(
                {"ranks": ranks_count, "busy": busy, "call": name, "size": size, "ours": samples[0]}
                | ({"mpich": samples[1]} if len(samples) > 1 else {})
                | {"ratio": ratio}
            )
    return rows


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    arguments.add_argument("--busy", type=int, nargs="+", default=[0, 2, 4])
    arguments.add_argument("--calls", nargs="+", choices=CALLS, default=list(CALLS))
    arguments.add_argument("--bytes", type=int, nargs="+", default=[8, 1024, 8192, 65536])
    arguments.add_argument("--blocks", type=int, default=7, help="of each library and row")
    arguments.add_argument("--seconds", type=float, default=0.3, help="of a block, about")
    arguments.add_argument("--mpi-python", default=sys.executable, help="has mpi4py, mpich beside")
    arguments.add_argument(
        "--nice", type=int, default=0, help="of all processes alike, where others load the machine"
    )
    arguments.add_argument("--json", type=pathlib.Path, help="a file for one line of JSON a row")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left running
    os.environ["BENCH_BUSY_NICE"] = str(options.nice)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the beginning; us of a call")
    head = ["ranks", "busy", "call", "bytes", "ours", "quartiles", "mpich", "quartiles", "ratio"]
    print(LINE.format(*head))
    rows, idle = [], {}
    for ranks_count in options.ranks:
        for busy in options.busy:
            rows += table(ranks_count, busy, options, idle)
    if options.json is not None:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
