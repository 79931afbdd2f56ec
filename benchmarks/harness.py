# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What all benchmarks share: starting ranks, timing two things side by side, tables.

A benchmark is a function ``body(ctx, options) -> list of rows`` that runs on every rank, with
torch.distributed initialised beside the iris_c context. It validates what it is about to time.

Timing: ours and the peer alternate in one process, so that both see the same machine. A host
barrier precedes every repeat, which takes the ranks' skew out; a repeat lasts as long as its
slowest rank; the median and the quartiles over the repeats are reported.

On the cpu every rank has one thread of its own, for iris_c, torch and gloo alike.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import iris_c

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclasses.dataclass
class Timing:
    """Seconds: median and quartiles over the repeats of the slowest rank's time."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(samples: list[float]) -> Timing:
        quartiles = statistics.quantiles(samples, n=4)
        return Timing(statistics.median(samples), quartiles[0], quartiles[2])


@dataclasses.dataclass
class Row:
    """One line of a table. ``work`` is in flop or in bytes, as the unit says."""

    name: str
    shape: str
    dtype: str
    variant: str
    error: float
    ours: Timing
    peer_name: str
    peer: Timing
    work: float = 0.0
    unit: str = "GFLOP/s"

    @property
    def ratio(self) -> float:
        return self.peer.median / self.ours.median

    def cells(self) -> list[str]:
        spread = f"{self.ours.low * 1e6:.0f}-{self.ours.high * 1e6:.0f}"
        rate = f"{self.work / self.ours.median / 1e9:.1f} {self.unit}" if self.work else ""
        return [
            self.name,
            self.shape,
            self.dtype,
            self.variant,
            f"{self.error:.1e}",
            f"{self.ours.median * 1e6:.1f}",
            spread,
            rate,
            f"{self.peer.median * 1e6:.1f}",
            f"{self.ratio:.2f}x",
        ]

    def record(self) -> dict:
        return {**dataclasses.asdict(self), "ratio": self.ratio}


def print_table(rows: list[Row]) -> None:
    peer = rows[0].peer_name if rows else "peer"
    head = ["", "shape", "dtype", "variant", "error", "ours us", "quartiles", "rate"]
    table = [[*head, f"{peer} us", "speed-up"], *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


class Ranks:
    """The ranks of a benchmark, as its body sees them."""

    def __init__(self, ctx, repeats: int, progress):
        self.ctx = ctx
        self.repeats = repeats
        self.progress = progress

    def alternate(self, ours, peer, repeats: int | None = None) -> tuple[Timing, Timing]:
        """Times two functions in turn; the same result on all ranks."""
        samples = [[], []]
        for _ in range(3):  # warm-up: allocations, packing buffers, page faults
            ours()
            peer()
        for _ in range(repeats or self.repeats):
            for which, run in enumerate((ours, peer)):
                self.ctx.barrier()
                start = time.perf_counter()
                run()
                samples[which].append(time.perf_counter() - start)
        self.progress.update(1)
        slowest = torch.tensor(samples, dtype=torch.float64)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        return Timing.of(slowest[0].tolist()), Timing.of(slowest[1].tolist())


def require(condition: bool, what: str) -> None:
    """Ends the benchmark: nothing wrong is ever timed."""
    if not condition:
        raise AssertionError(f"validation failed: {what}")


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max |actual - expected| over max |expected|; NaN counts as infinite."""
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    return float(error) if not error.isnan() else float("inf")


def progress_bar(total: int, rank: int):
    """A bar on rank 0 of a terminal, nothing elsewhere."""
    with contextlib.suppress(ImportError):
        from tqdm import tqdm

        return tqdm(total=total, disable=rank != 0 or not sys.stderr.isatty(), leave=False)
    return contextlib.nullcontext()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank_main(rank: int, world_size: int, port: int, body, options, results) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
        IRIS_C_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        with iris_c.init(heap_size=options.heap_size) as ctx:
            rows = body(ctx, options)
            ctx.barrier()
        if rank == 0:
            results.put(rows)
            results.join()
    finally:
        dist.destroy_process_group()


def run(body, options) -> list[Row]:
    """Runs ``body`` on ``options.ranks`` ranks; returns rank 0's rows. Raises if any rank fails."""
    context = multiprocessing.get_context("spawn")
    results = context.JoinableQueue()
    ranks = multiprocessing.start_processes(
        _rank_main,
        args=(options.ranks, _free_port(), body, options, results),
        nprocs=options.ranks,
        join=False,
        start_method="spawn",
    )
    rows = None
    while not ranks.join(timeout=0.1):
        if rows is None and not results.empty():
            rows = results.get()
            results.task_done()
    return rows


def parser(description: str, ranks: int = 2, repeats: int = 15) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--ranks", type=int, default=ranks)
    arguments.add_argument("--repeats", type=int, default=repeats)
    arguments.add_argument("--heap-size", type=int, default=1 << 30, help="bytes")
    arguments.add_argument("--json", type=pathlib.Path, help="append one JSON line per row")
    return arguments


def report(rows: list[Row], options) -> None:
    """Prints the table; writes the JSON lines if asked to."""
    print_table(rows)
    if options.json:
        with options.json.open("a") as file:
            for row in rows:
                file.write(json.dumps({"ranks": options.ranks, **row.record()}) + "\n")
