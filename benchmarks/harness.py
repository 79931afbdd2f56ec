# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What all benchmarks share: starting ranks, checking, timing two things side by side, tables.

A benchmark is a function ``body(ranks, options) -> list of rows`` that runs on every rank, with
torch.distributed initialised beside the iris_c context. The ranks are processes of this harness,
or, under torchrun, the processes that torchrun has started.

Checking: ours is compared with float64 before it is timed and after, and the verdict is the worst
rank's. A row that is wrong is not timed, is printed as FAIL, and makes the benchmark exit with 1.
The bound on the error is rejected if it would let a rank's missing contribution pass.

Timing: ours and the peers alternate in one process, in changing order, so that all see the same
machine. A host barrier precedes every repeat, which takes the ranks' skew out; a repeat lasts as
long as its slowest rank; minimum, median and quartiles over the repeats are reported.

On the cpu every rank has one thread of its own, for iris_c, torch and gloo alike, and a repeat is
one call. On a GPU a repeat is a run of calls between two events, eager or, with --graph, one replay
of a graph that captured them. All ranks begin it together, after a barrier on the device which by
then all hosts have queued, and what follows too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import socket
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import peers
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import iris_c

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
HEAD_START = 400_000  # GPU cycles, some 200 us
WARM_UP = 3  # allocations, packing buffers, page faults
# On the cpu: a call of so many seconds, like a library's bfloat16 where the processor has none,
# is not repeated as often as others, nor warmed up for.
SLOW = 0.5
FEWEST = 3  # repeats


@dataclasses.dataclass
class Timing:
    """Seconds, over the repeats of the slowest rank's time."""

    median: float
    low: float
    high: float
    minimum: float

    @staticmethod
    def of(samples: list[float]) -> Timing:
        low, median, high = statistics.quantiles(samples, n=4)
        return Timing(median, low, high, min(samples))


@dataclasses.dataclass
class Row:
    """One line of a table. ``work`` is in flop or in bytes, as the unit says; the timings of a row
    that is wrong are None."""

    name: str
    shape: str
    dtype: str
    variant: str
    size: int  # bytes of a message, flop of a product: what a plot has on its axis
    error: float
    bound: float
    peer_name: str
    ours: Timing | None = None
    peer: Timing | None = None
    others: dict[str, Timing] = dataclasses.field(default_factory=dict)  # further peers
    limit: float | None = None  # seconds: what the links or the arithmetic allow at best
    work: float = 0.0
    unit: str = "GFLOP/s"
    mark: str = ""  # a word about the row, at its end

    @property
    def correct(self) -> bool:
        return self.error < self.bound

    @property
    def ratio(self) -> float | None:
        return self.peer.median / self.ours.median if self.ours else None

    def cells(self) -> list[str]:
        head = [self.name, self.shape, self.dtype, self.variant, f"{self.error:.1e}"]
        if not self.correct:
            return [*head, *[""] * 5, "FAIL", f"error must be < {self.bound:.1e}"]
        us = 1e6
        return [
            *head,
            f"{self.ours.median * us:.1f}",
            f"{self.ours.minimum * us:.0f} {self.ours.low * us:.0f}-{self.ours.high * us:.0f}",
            f"{self.work / self.ours.median / 1e9:.2f} {self.unit}",
            f"{self.peer.median * us:.1f}",
            f"{self.ratio:.2f}x",
            "ok",
            " ".join((self.mark, *self._remarks())).strip(),
        ]

    def _remarks(self):
        for name, timing in self.others.items():
            yield f"{name} {timing.median * 1e6:.1f}us {timing.median / self.ours.median:.2f}x"
        if self.limit is not None:
            yield f"score {self.limit / self.ours.median:.2f}"

    def record(self) -> dict:
        return {**dataclasses.asdict(self), "correct": self.correct, "ratio": self.ratio}


def print_table(rows: list[Row]) -> None:
    peer = rows[0].peer_name if rows else "peer"
    head = ["", "shape", "dtype", "variant", "error", "ours us", "min quartiles", "rate"]
    table = [[*head, f"{peer} us", "speed-up", "", ""], *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = (cell.rjust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True))
        print("  ".join([*cells, line[-1]]).rstrip())


def progress_bar(total: int, rank: int):
    """A bar on rank 0 of a terminal, nothing elsewhere."""
    with contextlib.suppress(ImportError):
        from tqdm import tqdm

        return tqdm(total=total, disable=rank != 0 or not sys.stderr.isatty(), leave=False)
    return contextlib.nullcontext()


class Ranks:
    """The ranks of a benchmark, as its body sees them."""

    def __init__(self, ctx, options):
        self.ctx = ctx
        self.device = torch.device(ctx.device)
        self.repeats = options.repeats
        self.graph = options.graph
        self.config = dict(getattr(options, "config", ()))  # fields of FusedConfig
        self.calls = 1 if self.device.type == "cpu" else options.calls
        self._heap_size = options.heap_size

    def renew(self) -> None:
        """Puts a context with an empty heap in the place of the one that there is, whose heap's
        memory is given back with its last tensor. Collective."""
        peers.synchronize(self.device)
        self.ctx.barrier()
        self.ctx.close()
        self.ctx = iris_c.init(heap_size=self._heap_size)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *exception) -> bool | None:
        return self.ctx.__exit__(*exception)

    def each(self, cases, measure) -> list[Row]:
        """``measure(self, *case)`` for every case, with a progress bar."""
        rows = []
        with progress_bar(len(cases), self.ctx.rank) as bar:
            for case in cases:
                rows.append(measure(self, *case))
                if bar is not None:
                    bar.update(1)
        return rows

    def _over_ranks(self, values, op) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=op)
        return tensor.tolist()

    def time(
        self,
        row: Row,
        partial: torch.Tensor,
        output: torch.Tensor,
        ours,
        peer,
        repeats: int = 0,
        others=None,
        of_sum=None,
    ) -> Row:
        """Checks that ``ours()`` leaves the sum over ranks of ``partial`` (float64) in ``output``,
        or ``of_sum`` of it, times it beside ``peer()`` and the further peers in ``others``, by
        name, checks again, and fills in the row. The same on all ranks."""
        expected = partial.clone()
        dist.all_reduce(expected)
        self._require_a_bound_that_tells(row, partial, expected)
        expected = of_sum(expected) if of_sum else expected
        row.error = self._error(output, expected, ours)
        if row.correct:
            others = others or {}
            row.ours, row.peer, *rest = self.alternate(
                [ours, peer, *others.values()], repeats or self.repeats
            )
            row.others = dict(zip(others, rest, strict=True))
            row.error = max(row.error, self._error(output, expected, ours))
        return row

    def _require_a_bound_that_tells(self, row, partial, expected) -> None:
        """Without rank r's partial sum the error is max |partial_r|: well above the bound."""
        if self.ctx.world_size == 1:
            return
        missing = float(partial.abs().max() / expected.abs().max())
        (missing,) = self._over_ranks([missing], dist.ReduceOp.MIN)
        if row.bound * 4 > missing:
            raise AssertionError(
                f"{row.shape} {row.dtype}: a bound of {row.bound:.1e} might pass a missing rank, "
                f"whose error is {missing:.1e}"
            )

    def _error(self, output, expected, ours) -> float:
        """max |output - expected| over max |expected| on the worst rank; NaN counts as infinite."""
        output.fill_(float("nan"))
        ours()
        peers.synchronize(self.device)
        error = float((output.double() - expected).abs().max() / expected.abs().max())
        error = error if error == error else float("inf")
        return self._over_ranks([error], dist.ReduceOp.MAX)[0]

    def alternate(self, runs, repeats: int) -> list[Timing]:
        """Times the functions in turns."""
        slowest = max(self._warm_up(run) for run in runs)
        if slowest > SLOW:
            repeats = min(repeats, max(FEWEST, int(repeats * SLOW / slowest)))
        peers.synchronize(self.device)
        if self.graph:
            runs = [self._captured(run) for run in runs]
        samples = [[] for _ in runs]
        for i in range(repeats):
            order = range(len(runs)) if i % 2 == 0 else reversed(range(len(runs)))
            for which in order:
                peers.synchronize(self.device)
                self.ctx.barrier()
                samples[which].append(self._seconds(runs[which]))
        return [Timing.of(slowest) for slowest in self._over_ranks(samples, dist.ReduceOp.MAX)]

    def _warm_up(self, run) -> float:
        """What a call takes on the cpu, the same on all ranks; 0 on a GPU, whose first call brings
        so much else along."""
        start = time.perf_counter()
        run()
        took = time.perf_counter() - start if self.device.type == "cpu" else 0.0
        (took,) = self._over_ranks([took], dist.ReduceOp.MAX)
        for _ in range(WARM_UP - 1 if took <= SLOW else 0):
            run()
        return took

    def _captured(self, run):
        """A graph of ``self.calls`` calls. ``run.capture()``, if there is such a thing, is entered
        around it."""
        self.ctx.barrier()
        graph = torch.cuda.CUDAGraph()
        around = getattr(run, "capture", contextlib.nullcontext)
        with around(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(self.calls):
                run()
        return graph.replay

    def _seconds(self, run) -> float:
        """Of one call."""
        if self.device.type == "cpu":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # Until all hosts have queued what follows: their skew is not the calls'.
        torch.cuda._sleep(HEAD_START)
        self.ctx.device_barrier()
        begin.record()
        for _ in range(1 if self.graph else self.calls):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / self.calls


# ---- starting the ranks ----


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine(ranks: Ranks) -> str:
    """Where this ran, in a line."""
    device = ranks.device
    name = _processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    mode = "replayed graph, " if ranks.graph else ""
    return (
        f"{ranks.ctx.world_size} rank(s), backend {ranks.ctx.backend}, {name}, "
        f"{os.cpu_count()} cores, {mode}torch {torch.__version__}, iris_c {iris_c.__version__}"
    )


def _run_rank(body, options) -> tuple[str, list[Row]]:
    torch.set_num_threads(1)
    torch.manual_seed(int(os.environ["RANK"]))
    with Ranks(iris_c.init(heap_size=options.heap_size), options) as ranks:
        peers.init(ranks.device)
        try:
            rows = body(ranks, options)
            ranks.ctx.barrier()
            return machine(ranks), rows
        finally:
            dist.destroy_process_group()


def _spawned_rank(rank: int, world_size: int, port: int, body, options, results) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        IRIS_C_NUM_THREADS="1",
    )
    result = _run_rank(body, options)
    if rank == 0:
        results.put(result)
        results.join()


def _under_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _run_spawned(body, options) -> tuple[str, list[Row]]:
    results = multiprocessing.get_context("spawn").JoinableQueue()
    ranks = multiprocessing.start_processes(
        _spawned_rank,
        args=(options.ranks, _free_port(), body, options, results),
        nprocs=options.ranks,
        join=False,
        start_method="spawn",
    )
    result = None
    while not ranks.join(timeout=0.1):  # raises, and ends the others, when a rank fails
        if result is None and not results.empty():
            result = results.get()
            results.task_done()
    return result


def run_ranks(body, options):
    """``body`` on all ranks. Returns where it ran, in a line, what it returned on rank 0, and
    whether this is the process to print it."""
    if not _under_torchrun():
        return *_run_spawned(body, options), True
    os.environ.setdefault("IRIS_C_NUM_THREADS", "1")
    options.ranks = int(os.environ["WORLD_SIZE"])
    return *_run_rank(body, options), os.environ["RANK"] == "0"


def run(body, options) -> int:
    """Runs ``body`` on all ranks, prints the table, writes the JSON lines if asked to.

    Returns what the process should exit with: 1 if a row is wrong. Raises if a rank fails.
    """
    machine, rows, printing = run_ranks(body, options)
    wrong = sum(not row.correct for row in rows)
    if printing:
        print(machine)
        print_table(rows)
        _write_json(rows, machine, options)
        _print_geometric_mean(rows)
        print(f"{len(rows)} rows, " + (f"{wrong} WRONG" if wrong else "all correct"))
    return 1 if wrong else 0


def _print_geometric_mean(rows: list[Row]) -> None:
    ratios = [row.ratio for row in rows if row.ratio]
    if len(ratios) > 1:
        print(f"geometric mean of the speed-ups: {statistics.geometric_mean(ratios):.3f}x")


def _write_json(rows: list[Row], machine: str, options) -> None:
    if options.json is None:
        return
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with options.json.open("a") as file:
        for row in rows:
            record = {"ranks": options.ranks, "machine": machine, **row.record()}
            file.write(json.dumps(record) + "\n")


def parser(description: str, ranks: int = 2, repeats: int = 15) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--ranks", type=int, default=ranks, help="torchrun's, if under torchrun")
    arguments.add_argument("--repeats", type=int, default=repeats)
    arguments.add_argument("--heap-size", type=int, default=1 << 30, help="bytes")
    arguments.add_argument("--graph", action="store_true", help="GPUs: replay a captured graph")
    arguments.add_argument("--calls", type=int, default=10, help="GPUs: calls in a repeat")
    arguments.add_argument("--json", type=pathlib.Path, help="append one JSON line per row")
    return arguments
