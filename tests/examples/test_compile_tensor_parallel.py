# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The example of torch.compile, and its benchmark, shortened: two ranks, and the fused operations
that they name."""

import pathlib
import re
import sys

import pytest
from descriptors import ON_GPU
from launching import TORCHRUN, output_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/compile_tensor_parallel.py"


@pytest.mark.slow
def test_it_is_fused_and_equal(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    small = ["--width", "16", "--length", "8", "--steps", "1"]
    output = output_of([*TORCHRUN, "2", str(EXAMPLE), *small], deadline=300)
    assert "{'all_gather_matmul': 2, 'matmul_reduce_scatter': 2}" in output
    limit = 3e-2 if ON_GPU else 1e-4  # in bfloat16, in float32
    assert float(re.search(r"largest difference (\S+),", output)[1]) < limit


@pytest.mark.slow
def test_bench_compile(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    small = "--length 8 --width 16 --hidden 32 --heads 4 --repeats 2 --only forward".split()
    command = [sys.executable, str(ROOT / "benchmarks/bench_compile.py"), *small]
    output = output_of(command, deadline=300)
    assert "matmul_all_reduce 2 eager" in output
    assert "all_gather_matmul 2 matmul_reduce_scatter 2 eager" in output
    assert "2 rows, all correct" in output
