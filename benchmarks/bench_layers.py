# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What users call - layers, torch.ops.iris_c.*, ctx.ops.* without a config - over the sizes of real
models, beside all alternatives in one run.

    torchrun --nproc-per-node 4 benchmarks/bench_layers.py --budget 100      # GPUs
    torchrun --nproc-per-node 4 benchmarks/bench_layers.py --modes graph --ops row row_sp column_sp
    python benchmarks/bench_layers.py --ranks 2                              # the cpu, tiny sizes

An operation is `row`, `column` (the layers), `row_sp`, `column_sp` (with sequence parallelism),
`torch.NAME` or `ctx.NAME`. The alternatives are torch.mm + NCCL (gloo on the cpu), + torch's
symmetric-memory one_shot and two_shot all_reduce, torch's fused operations. Beside them stand our
own plain form (torch.mm, then our collective), all forms that ctx.NAME has (form=...), and the
product alone (mm). One that is missing or raises is n/a. TP is the number of ranks; M counts the
rows before the ranks divide them.

Every row is checked before it is timed: samples of each result against float64, with a bound that
a missing rank would exceed, and all elements against the library's. A row that is wrong is printed
as FAIL, and makes the benchmark exit with 1. After the timing the last results are compared again.

--budget takes an evenly spread subset, of as many rows as the time allows. A context whose heap is
more than half full is closed, and another takes its place.
"""

from __future__ import annotations

import gc
import os
import pathlib
import sys
import time
import warnings

import harness
import layer_peers
import layer_report
import torch
from layer_cases import LAYERS, OPERATIONS, ROWS, Case, cases, spread
from layer_clock import Clock
from layer_peers import ONE_SHOT_BYTES, Scratch, make_kits, short
from layer_report import Row
from layer_runs import Setup, reference
from models import MODELS, PUBLISHED

import iris_c
import iris_c.torch

# Relative to the largest element of a result: roundings of partial sums and of the result.
BOUND = {torch.float32: 4e-6, torch.float16: 4e-3, torch.bfloat16: 1.6e-2}
SAMPLE_SECONDS = 300e-6  # what a graph should last at least
FEWEST_SECONDS = 2e-3  # samples longer than this are taken less often
MOST_CALLS = 10
FULL = 0.5  # of the heap, after which the next row gets another
FORMS = ("tiles", "decode", "plain")  # of a fused product, where there are these
CACHE_BYTES = 128 << 20  # more than a GPU's last cache holds


class Bench:
    def __init__(self, ranks: harness.Ranks, options):
        self.ranks, self.ctx, self.options = ranks, ranks.ctx, options
        self.clock = Clock(self.ctx)
        self.on_gpu = self.clock.on_gpu
        self.dtype = harness.DTYPES[options.dtype]
        self.cases = spread(self._selected())
        self.numel = max((self._numel(case) for case in self.cases), default=1)
        self.kits, self.remarks = make_kits(self.ctx, self.numel, self.dtype)
        self.library = next(iter(self.kits))
        self.renewals = 0
        self._begin()

    # ---- the heap ----

    def _begin(self) -> None:
        """What lies in the heap of a context, which has no more in it."""
        iris_c.torch.register(self.ctx)
        memory = [self.ctx.empty(self.numel, dtype=self.dtype) for _ in range(2)]
        self.kits["plain"] = layer_peers.plain(self.ctx, Scratch(memory[0]))
        self.scratch = Scratch(memory[1])
        self.used_at_first = self.ctx.heap_used
        self.exhausted = False

    def _renew(self) -> None:
        """Goes on with another context. Storages that a captured graph has used stay as long as
        their context does, with all that they have grown out of."""
        del self.scratch, self.kits["plain"]
        gc.collect()
        self.ranks.renew()
        self.ctx = self.clock.ctx = self.ranks.ctx
        self._begin()
        self.renewals += 1

    def _fullness(self) -> float:
        """Of what of the heap was free at first, the part that has been used."""
        room = self.ctx.heap_size - self.used_at_first
        return (self.ctx.heap_used - self.used_at_first) / max(1, room)

    def _measured(self, case: Case, seed: int) -> Row:
        """The row, once more with an empty heap where there has been too little room for any of
        its runs, unless it was empty: a run that then finds none is too large."""
        before, self.exhausted = self._fullness(), False
        row = self.measure(case, seed)
        (lacking,) = self.clock.agreed([float(self.exhausted and before > 0)])
        if lacking:
            self._renew()
            row = self.measure(case, seed)
        return row

    def _selected(self) -> list[Case]:
        options, world = self.options, self.ctx.world_size
        cache = CACHE_BYTES if self.on_gpu else 1 << 16
        return cases(options, world, cache, self.dtype.itemsize)

    def _numel(self, case: Case) -> int:
        """The most elements of a result or of a joined operand."""
        K, N = case.operation.sizes(case.layer, self.ctx.world_size)
        return case.M * (K if case.operation.exchange in ("gather", "none") else N)

    # ---- one case ----

    def measure(self, case: Case, seed: int) -> Row:
        K, N = case.operation.sizes(case.layer, self.ctx.world_size)
        row = Row(case, K, N, bound=BOUND[self.dtype])
        weight_bytes = K * N * self.dtype.itemsize
        cache = CACHE_BYTES if self.on_gpu else 1 << 16
        calls, rounds = self._calls(case, K, N)
        weights = 1
        if case.weights == "cold":
            weights = max(2, -(-cache // weight_bytes) + 1)
            calls = max(calls, weights)
        setup = Setup(case, self.ctx, self.dtype, seed, weights)
        runs = self._runs(setup, row)
        with torch.set_grad_enabled(case.backward):
            before = self._check(setup, runs, row, seed)
            if not row.correct:
                return row
            if not case.backward:
                runs["mm"] = setup.alone()
            self._time(runs, before, row, calls, rounds, weights)
        return row

    def _calls(self, case: Case, K: int, N: int) -> tuple[int, int]:
        """Calls of a sample, and samples, from a rough estimate that is the same on all ranks."""
        rounds = self.options.repeats
        if not self.on_gpu:
            return 1, rounds
        seconds = 10e-6 + 2 * case.M * N * K / 600e12 + N * K * self.dtype.itemsize / 3e12
        seconds *= 3 if case.backward else 1
        calls = min(MOST_CALLS, max(1, round(SAMPLE_SECONDS / seconds)))
        return calls, rounds if calls * seconds < FEWEST_SECONDS else max(2, rounds - 2)

    def _runs(self, setup: Setup, row: Row) -> dict:
        """Ours, the library's first, and those of the others that have what the case needs."""
        case = setup.case
        exchanges = case.backward or case.operation.exchange != "none"
        runs = {self.library: setup.of_kit(self.kits[self.library])}
        runs["ours"] = setup.ours(self.scratch)
        for name, kit in self.kits.items():
            if name in runs or not exchanges:
                continue
            if name == "one_shot" and case.M * setup.N * self.dtype.itemsize > ONE_SHOT_BYTES:
                continue
            run = setup.of_kit(kit)
            if run is not None:
                runs[name] = run
        if case.operation.name.startswith("ctx."):
            for form in FORMS:
                runs[f"form={form}"] = setup.ours(self.scratch, form=form)
        return runs

    # ---- results ----

    def _check(self, setup: Setup, runs: dict, row: Row, seed: int) -> tuple:
        """Calls every run once and compares; drops those that raise or are wrong. Returns what
        ours has left."""
        ctx = self.ctx
        expected = [
            reference(one, ctx.world_size, ctx.rank, seed + i)
            for i, one in enumerate(setup.expected())
        ]
        limits = [float(missing) for *_, missing in expected]
        errors, results, said, kept = [], {}, {}, ()
        for name, run in runs.items():
            try:
                getattr(run, "clear", lambda: None)()
                # Kept, so that nobody gets memory in which right results are left.
                results[name] = run(0)
                if name == "ours":
                    kept = tuple(result.clone() for result in results[name])
                errors.append(float(self._error(results, name, expected)))
            except Exception as error:  # a peer's, of another version; ours fails the row
                errors.append(float("inf"))
                said[name] = self._said(error)
        # Without a rank the error is as large as `missing` on all ranks.
        *errors, least = self.clock.agreed([*errors, -min(limits)])
        if row.bound * 4 > -least:
            raise AssertionError(
                f"{row.what()}: a bound of {row.bound:.1e} might pass a missing rank, whose error "
                f"is {-least:.1e}"
            )
        for name, error in zip(list(runs), errors, strict=True):
            if name == "ours":
                row.error = error
                if not error < row.bound:
                    row.remarks.append(said.get(name, "ours is wrong"))
            elif not error < row.bound:
                del runs[name]
                why = said.get(name, f"error {error:.1e}")
                if not why.startswith("ValueError: form:"):  # this operation has not got the form
                    row.remarks.append(f"{name} n/a ({why})")
        return kept

    def _said(self, error: Exception) -> str:
        self.exhausted |= isinstance(error, iris_c.HeapExhausted)
        return short(error)

    def _error(self, results: dict, name: str, expected) -> torch.Tensor:
        """The largest error of a sample, and half the largest distance from the library's result,
        relative to the largest element; NaN counts as infinite."""
        worst = torch.zeros((), dtype=torch.float64, device=self.clock.device)
        for i, (rows, columns, values, _) in enumerate(expected):
            got = results[name][i].detach()
            distance = (got[rows][:, columns].double() - values).abs().max() / values.abs().max()
            worst = torch.maximum(worst, distance)
            if name != self.library and self.library in results:
                whole = _distance(got, results[self.library][i].detach())
                worst = torch.maximum(worst, whole / 2)
        return torch.nan_to_num(worst, nan=float("inf"))

    # ---- times ----

    def _time(self, runs, before, row: Row, calls: int, rounds: int, weights: int) -> None:
        mode = row.case.mode
        sequences, failed = {}, []
        for name, run in runs.items():
            try:
                sequences[name] = self.clock.sequence(
                    lambda number, run=run: run(number % weights), mode, calls
                )
                failed.append(0.0)
            except Exception as error:  # cannot be captured
                failed.append(1.0)
                row.remarks.append(f"{name} n/a ({self._said(error)})")
        for name, fails in zip(list(runs), self.clock.agreed(failed), strict=True):
            if fails:
                sequences.pop(name, None)
        if "ours" not in sequences:
            row.error = float("inf")
            return
        times = self.clock.samples(sequences, calls, rounds, mode)
        self._compare_again(sequences["ours"], before, row)
        if not row.correct:
            return
        row.ours, row.alone = times.pop("ours"), times.pop("mm", None)
        for name, timing in times.items():
            kind = row.own if name == "plain" or name.startswith("form=") else row.peers
            kind[name] = timing

    def _compare_again(self, sequence, before, row: Row) -> None:
        """What a last sequence leaves with what was checked."""
        self.ctx.barrier()
        after = sequence()
        distance = max(float(_distance(a, b)) for a, b in zip(after, before, strict=True))
        distance = distance if distance == distance else float("inf")
        (distance,) = self.clock.agreed([distance / 2])
        if not distance < row.bound:
            row.error = distance
            row.remarks.append("wrong after the timing")

    # ---- all ----

    def rows(self, done) -> list[Row]:
        """Measured until the budget is spent; `done(row)` is called at once, on rank 0."""
        printing = self.ctx.rank == 0
        if printing:
            for remark in self.remarks:
                print(remark)
            print(f"{len(self.cases)} rows are selected", flush=True)
        rows, start, longest = [], time.perf_counter(), 0.0
        with self.clock.on_stream():
            for number, case in enumerate(self.cases):
                begun = time.perf_counter() - start
                begun, fullness = self.clock.agreed([begun, self._fullness()])
                if self.options.budget and begun + longest > self.options.budget:
                    break
                self._tidy()
                if fullness > FULL:
                    self._renew()
                rows.append(self._measured(case, 1000 + 10 * number))
                longest = max(longest, time.perf_counter() - start - begun)
                if printing:
                    done(rows[-1])
        seconds = time.perf_counter() - start
        if printing and rows:
            spent = f"{seconds:.0f} s, {seconds / len(rows):.2f} s a row"
            if self.renewals:
                spent += f", with {self.renewals} renewals of the heap"
            print(f"{len(rows)} of {len(self.cases)} rows, evenly spread, in {spent}", flush=True)
        return rows

    def _tidy(self) -> None:
        """Memory that shapes before have left in pieces goes back in time."""
        if self.on_gpu and torch.cuda.memory_reserved() > torch.cuda.mem_get_info()[1] // 2:
            torch.cuda.empty_cache()


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """max |a - b| over max |b|, in float64."""
    return (a - b).abs().max().double() / b.abs().max().double()


def body(ranks: harness.Ranks, options) -> list[Row]:
    if ranks.device.type == "cpu":
        options.modes = [mode for mode in options.modes if mode != "graph"]
    # torch renames its collectives; the old names are those that all versions have.
    warnings.filterwarnings("ignore", category=FutureWarning)
    machine, measured = harness.machine(ranks), []

    def done(row: Row) -> None:
        measured.append(row)
        print(row.line(), flush=True)
        if options.json:
            layer_report.append_json(options.json, row.record(machine, ranks.ctx.world_size))

    try:
        return Bench(ranks, options).rows(done)
    except BaseException:
        if measured:
            print("stopped by an error; so far:", *layer_report.summary(measured), sep="\n")
        raise


def main(body=body) -> int:
    on_gpu = torch.cuda.is_available() and os.environ.get("IRIS_C_BACKEND") != "cpu"
    arguments = harness.parser(__doc__.splitlines()[0], repeats=5)
    add = arguments.add_argument
    add("--ops", nargs="+", choices=OPERATIONS, default=LAYERS if on_gpu else list(OPERATIONS))
    add("--passes", nargs="+", choices=("forward", "backward"), default=["forward", "backward"],
        help="backward: forward and backward, of layers")  # fmt: skip
    add("--modes", nargs="+", choices=("eager", "graph"), default=["eager", "graph"],
        help="graph: GPUs alone")  # fmt: skip
    add("--models", nargs="+", choices=MODELS, default=PUBLISHED if on_gpu else ["tiny"])
    add("--ms", nargs="+", type=int, default=ROWS if on_gpu else [1, 8, 64])
    add("--weights", nargs="+", choices=("warm", "cold"), default=["warm", "cold"],
        help="cold: another in each call, more than the cache holds")  # fmt: skip
    add("--dtype", choices=harness.DTYPES, default="bfloat16" if on_gpu else "float32")
    add("--budget", type=float, metavar="SECONDS")
    add("--plot", type=pathlib.Path, metavar="FOLDER", help="draw each operation's speed-ups")
    arguments.set_defaults(heap_size=(12 << 30) if on_gpu else (1 << 28))
    options = arguments.parse_args()
    machine, rows, printing = harness.run_ranks(body, options)
    wrong = sum(not row.correct for row in rows)
    if printing:
        print(machine)
        print("\n".join(layer_report.summary(rows)))
        for path in layer_report.plot(rows, options.plot, machine) if options.plot else ():
            print(path)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
