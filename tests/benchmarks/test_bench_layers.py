# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The benchmark of layers: its sizes, its choice of rows, and that nothing wrong is timed."""

import argparse
import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

import iris_c
import iris_c.torch

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
DEADLINE = 300


def output_of(*command, fails=False) -> str:
    hidden = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == int(fails), output[-4000:]
    return output


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder's modules, importable, and forgotten again."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# ---- sizes ----

# Blocks, vocabulary and thousands of millions of parameters, as published.
PUBLISHED = {
    "7B": (32, 32_000, 6.74),
    "8B": (32, 128_256, 8.03),
    "14B": (48, 152_064, 14.77),
    "32B": (64, 152_064, 32.76),
    "70B": (80, 128_256, 70.55),
    "405B": (126, 128_256, 405.85),
}


def test_models_have_as_many_parameters_as_published(benchmarks):
    import models

    assert set(models.PUBLISHED) == set(PUBLISHED)
    for name, (blocks, vocabulary, published) in PUBLISHED.items():
        model = models.MODELS[name]
        block = sum(layer.inputs * layer.outputs for layer in models.layers(model))
        total = blocks * block + 2 * vocabulary * model.hidden
        assert total / 1e9 == pytest.approx(published, rel=0.002), name
        for world in (2, 4, 8):
            assert all(layer.is_divisible(world) for layer in models.layers(model)), name


# ---- the choice of rows ----


def selection(**changed):
    import layer_cases
    import models

    options = {"ops": list(layer_cases.OPERATIONS), "passes": ["forward", "backward"],
               "modes": ["eager", "graph"], "models": models.PUBLISHED, "ms": layer_cases.ROWS,
               "weights": ["warm", "cold"]}  # fmt: skip
    return layer_cases.cases(argparse.Namespace(**{**options, **changed}), 4, 128 << 20, 2)


def test_every_beginning_is_evenly_spread(benchmarks):
    import layer_cases

    found = selection()
    ordered = layer_cases.spread(found)
    assert collections.Counter(ordered) == collections.Counter(found)
    assert ordered == layer_cases.spread(found), "ranks must agree"
    pairs = len({(case.group, case.M) for case in found})
    beginning = ordered[: 3 * pairs]
    assert set(collections.Counter((case.group, case.M) for case in beginning).values()) == {3}
    for attribute in ("model", "weights"):
        of = collections.Counter(getattr(case, attribute) for case in beginning)
        assert set(of) == {getattr(case, attribute) for case in found}


def test_cold_weights_where_warm_ones_stay_in_the_cache(benchmarks):
    found = selection(ops=["ctx.matmul_all_reduce"], ms=[16], modes=["graph"])
    of = collections.defaultdict(set)
    for case in found:
        of[case.model, case.layer.name].add(case.weights)
    assert of["8B", "o"] == {"warm", "cold"}  # 8 MiB
    assert of["405B", "down"] == {"warm"}  # 416 MiB
    only = selection(ops=["row"], ms=[16], weights=["cold"])
    assert {case.weights for case in only} == {"cold"}


def test_rows_that_ranks_cannot_divide_are_left_out(benchmarks):
    found = selection(ms=[1, 2, 4, 6])
    divided = {case.operation.name for case in found if case.M % 4 != 0}
    assert divided == {"row", "column", "torch.matmul_all_reduce", "ctx.matmul_all_reduce"}


# ---- nothing wrong is timed ----


@pytest.fixture
def bench(benchmarks, tmp_path):
    """A benchmark of one rank: (case of the operation, measured row)."""
    import bench_layers
    import harness

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with iris_c.init(heap_size=1 << 24, rank=0, world_size=1) as ctx:

            def measure(operation, passes="forward"):
                options = argparse.Namespace(
                    ops=[operation], passes=[passes], modes=["eager"], models=["tiny"], ms=[300],
                    weights=["warm"], dtype="float32", repeats=2, budget=None, graph=False, calls=1,
                    heap_size=1 << 24,
                )  # fmt: skip
                made = bench_layers.Bench(harness.Ranks(ctx, options), options)
                return made.measure(made.cases[0], 7)

            yield measure
    finally:
        dist.destroy_process_group()


def sabotage(monkeypatch, spoil):
    """Lets `spoil(results, number of the call)` change what ours returns."""
    import layer_runs

    genuine = layer_runs.Setup.ours

    def ours(self, scratch, **config):
        run, calls = genuine(self, scratch, **config), iter(range(10**6))

        def spoiled(number):
            return spoil(run(number), next(calls))

        spoiled.clear = getattr(run, "clear", lambda: None)
        return spoiled

    monkeypatch.setattr(layer_runs.Setup, "ours", ours)


OPERATIONS = ("row", "column_sp", "torch.matmul_all_reduce", "ctx.matmul_all_gather")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_right_results_are_timed(bench, operation):
    row = bench(operation)
    assert row.correct
    assert row.ours.median > 0
    assert set(row.peers) == {"gloo"}
    assert "plain" in row.own
    if operation.startswith("ctx."):
        assert "form=tiles" in row.own
    assert " n/a" not in row.line()
    assert row.ratio == pytest.approx(row.peers["gloo"].median / row.ours.median)
    assert row.alone is not None
    assert f"{row.ratio:.2f}x gloo" in row.line()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["one element", "nothing written", "not a number", "raises"])
def test_wrong_results_are_not_timed(bench, monkeypatch, operation, kind):
    def spoil(results, call):
        y = results[0]
        if kind == "one element":
            y = y.clone()
            y[217, 41] += 1.0
        elif kind == "nothing written":
            y = torch.empty_like(y)
        elif kind == "not a number":
            y = y.clone()
            y[0, 0] = float("nan")
        else:
            raise ValueError("spoiled")
        return (y, *results[1:])

    sabotage(monkeypatch, spoil)
    row = bench(operation)
    assert not row.correct
    assert row.ours is None
    assert row.ratio is None
    assert "FAIL" in row.line()
    assert ("ValueError: spoiled" in row.line()) == (kind == "raises")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_wrong_gradients_are_not_timed(bench, monkeypatch, which):
    def spoil(results, call):
        results = [result.clone() for result in results]
        results[which][5, 7] += 1.0
        return tuple(results)

    sabotage(monkeypatch, spoil)
    row = bench("row_sp", "backward")
    assert not row.correct
    assert row.ours is None


def test_results_are_compared_after_the_timing(bench, monkeypatch):
    sabotage(monkeypatch, lambda results, call: (results[0] + (call > 0),))
    row = bench("row")
    assert row.ours is None
    assert "wrong after the timing" in row.line()


@pytest.mark.parametrize("kind", ["wrong", "raises"])
def test_an_alternative_that_is_wrong_or_raises_is_not_one(bench, monkeypatch, kind):
    import layer_peers

    def plain(ctx, scratch):
        def all_reduce(x, B):
            if kind == "raises":
                raise NotImplementedError("not of this version\nand more")
            return torch.mm(x, B) * 0.9

        return layer_peers.Kit(all_reduce=all_reduce)

    monkeypatch.setattr(layer_peers, "plain", plain)
    row = bench("row")
    assert row.correct
    assert row.ours is not None
    assert row.own == {}
    expected = {"wrong": "plain n/a (error ", "raises": "not of this version)"}
    assert expected[kind] in row.line()


# ---- a heap that fills up ----

FILLING_UP = """
import sys
import bench_layers, layer_runs, torch

genuine, sizes = layer_runs.Setup.ours, SIZES
seen, kept = [], {}

def ours(self, scratch, **config):
    # As with a graph, what a row has taken of the heap stays as long as its context does.
    run, taken = genuine(self, scratch, **config), []
    if self.case not in seen:
        seen.append(self.case)
    mebibytes = sizes[seen.index(self.case) % len(sizes)]

    def taking(number):
        if not config and not taken:
            if self.ctx not in kept:
                kept.clear()
            taken.append(self.ctx.empty(mebibytes << 20, dtype=torch.uint8))
            kept.setdefault(self.ctx, []).extend(taken)
        return run(number)

    return taking

def body(ranks, options):
    layer_runs.Setup.ours = ours
    return bench_layers.body(ranks, options)

if __name__ == "__main__":
    sys.exit(bench_layers.main(body))
"""


@pytest.mark.parametrize(
    ("sizes", "renewals", "wrong"),
    [
        ([1], 0, False),
        ([6], 3, False),  # before every other row: then the heap is more than half full
        ([8, 15], 7, False),  # so it is after a second row, which finds no room beside the first
        ([40], 7, True),  # by each row in a heap of its own
    ],
)
def test_rows_find_room_in_the_heap(tmp_path, sizes, renewals, wrong):
    """8 rows that take so many MiB of a heap of 20. What has no room in an empty one is a FAIL."""
    script = tmp_path / "filling_up.py"
    script.write_text(FILLING_UP.replace("SIZES", str(sizes)))
    said = output_of(
        script, "--ms", 4, "--weights", "warm", "--passes", "forward", "--repeats", 2,
        "--ops", "row", "row_sp", "column_sp", "ctx.matmul_all_gather", "--heap-size", 20 << 20,
        fails=wrong,
    )  # fmt: skip
    assert "8 rows, " + ("8 WRONG" if wrong else "all correct") in said
    assert ("HeapExhausted" in said) == wrong
    counts = re.findall(r"with (\d+) renewals", said)
    assert counts == ([str(renewals)] if renewals else []), said


# ---- the whole program ----

MISSING_RANK = """
import sys
import bench_layers, harness, layer_runs, torch

genuine = layer_runs.Setup.ours

def ours(self, scratch, **config):
    x = self.x
    if self.ctx.rank == 1:
        self.x = torch.zeros_like(x)
    run = genuine(self, scratch, **config)

    def without(number):
        kept, self.x = self.x, torch.zeros_like(x) if self.ctx.rank == 1 else x
        try:
            return run(number)
        finally:
            self.x = kept

    self.x = x
    return without

def body(ranks, options):
    layer_runs.Setup.ours = ours
    return bench_layers.body(ranks, options)

if __name__ == "__main__":
    sys.exit(bench_layers.main(body))
"""


@pytest.mark.slow
def test_a_missing_rank_is_seen(tmp_path):
    script = tmp_path / "missing_rank.py"
    script.write_text(MISSING_RANK)
    said = output_of(
        script, "--ms", 4, "--weights", "warm", "--passes", "forward", "--dtype", "bfloat16",
        "--ops", "row", "row_sp", "column_sp", "ctx.matmul_all_gather", fails=True,
    )  # fmt: skip
    assert "8 rows, 8 WRONG" in said


@pytest.mark.slow
def test_bench_layers(tmp_path):
    pytest.importorskip("matplotlib")
    lines, plots = tmp_path / "rows.jsonl", tmp_path / "plots"
    said = output_of(
        BENCHMARKS / "bench_layers.py", "--ms", 1, 4, "--repeats", 2, "--weights", "warm",
        "--json", lines, "--plot", plots,
    )  # fmt: skip
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert f"{len(rows)} rows, all correct" in said
    assert all(row["ratio"] > 0 and row["ours"]["median"] > 0 for row in rows)
    groups = {(row["name"], row["passes"], row["mode"]) for row in rows}
    assert len(groups) == 13 + 4, "four layers have a backward pass, too"
    assert len(list(plots.glob("*.svg"))) == len(groups)
    slower = sum(row["ratio"] < 1 for row in rows)
    assert f"{slower} of {len(rows)} rows below 1.0" in said


@pytest.mark.slow
def test_a_budget_is_kept():
    said = output_of(
        BENCHMARKS / "bench_layers.py", "--ms", 1, 4, "--repeats", 2, "--budget", 0.001,
        "--ops", "row",
    )  # fmt: skip
    assert "1 of 16 rows, evenly spread" in said
    assert "1 rows, all correct" in said
