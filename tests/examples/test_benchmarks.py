# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The benchmarks of collectives run, shortened: tables, JSON lines, plots, and a short soak."""

import contextlib
import importlib.util
import json
import pathlib
import re
import sys
import types

import pytest
import torch
import torch.distributed as dist
from descriptors import ON_GPU
from launching import output_of

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


def benchmark(name, *arguments):
    return output_of([sys.executable, str(BENCHMARKS / name), *map(str, arguments)])


@pytest.mark.slow
def test_the_demonstration():
    assert "all correct" in benchmark("demo.py", "--ranks", 2, "--repeats", 2)


@pytest.mark.slow
def test_bench_ccl_and_its_plot(tmp_path):
    pytest.importorskip("matplotlib")
    lines = tmp_path / "rows.jsonl"
    operations = ["all_reduce", "reduce_scatter"]
    table = benchmark(
        "bench_ccl.py", "--op", *operations, "--bytes", 4096, 65536, "--repeats", 2,
        "--json", lines,
    )  # fmt: skip
    assert "4 rows, all correct" in table
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(row["name"], row["size"]) for row in rows] == [
        (name, size) for name in operations for size in (4096, 65536)
    ]
    rows[1]["others"] = {"another peer": rows[1]["peer"]}  # on GPUs there are some
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark("plot.py", lines, "--out", tmp_path)
    plot = (tmp_path / "all_reduce.svg").read_text()
    for text in (
        "iris_c: float32",
        f"{rows[0]['peer_name']}: float32",
        "another peer: float32",
        "bus bandwidth, GB/s",
    ):
        assert f"<!-- {text}" in plot, text


@pytest.mark.slow
def test_bench_busy(tmp_path, monkeypatch):
    monkeypatch.setenv("IRIS_C_BACKEND", "cpu")  # on which it is
    lines = tmp_path / "rows.jsonl"
    table = benchmark(
        "bench_busy.py", "--ranks", 2, "--busy", 0, 1, "--bytes", 8, "--blocks", 2,
        "--seconds", 0.01, "--json", lines,
    )  # fmt: skip
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 2 * 8, table  # three sizes of a product, of the other five calls one
    assert all(min(row["ours"]) > 0 for row in rows)


@pytest.mark.slow
def test_soak():
    said = benchmark("soak_ccl.py", "--number", 300, "--largest", 14)
    replays = "[1-9][0-9]*" if ON_GPU else "0"
    assert re.search(f"^300 calls, {replays} replays of four each, seed 1: no wrong element", said)


class StandIn:
    """vLLM's communicator as far as it is used: disabled until its peers are looked at."""

    def __init__(self, group, device):
        self.disabled, self.capturing, self.calls = True, False, []

    def finalize_p2p(self):
        self.disabled = False

    def should_custom_ar(self, tensor):
        return not self.disabled

    def custom_all_reduce(self, tensor):
        self.calls.append(self.capturing)

    @contextlib.contextmanager
    def capture(self):
        self.capturing = True
        yield
        self.capturing = False


def test_vllm_is_a_peer_where_it_is_installed(monkeypatch):
    spec = importlib.util.spec_from_file_location("peers", BENCHMARKS / "peers.py")
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "new_group", lambda backend: backend)
    tensor = types.SimpleNamespace(device=torch.device("cuda:0"))
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert peers.vllm_all_reduces(tensor) == {}
    peers._vllm_communicator.cache_clear()
    path = "vllm.distributed.device_communicators.custom_all_reduce"
    names = path.split(".")
    for depth in range(1, len(names) + 1):
        name = ".".join(names[:depth])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[path].CustomAllreduce = StandIn
    run = peers.vllm_all_reduces(tensor)["vllm"]
    run()
    with run.capture():
        run()
    assert run.communicator.calls == [False, True]
