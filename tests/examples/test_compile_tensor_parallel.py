# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The example of torch.compile: two ranks, and the fused operations that it names."""

import pathlib
import re

import pytest
from launching import TORCHRUN, output_of

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/compile_tensor_parallel.py"


@pytest.mark.slow
def test_it_is_fused_and_equal(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    small = ["--width", "16", "--length", "8", "--steps", "1"]
    output = output_of([*TORCHRUN, "2", str(EXAMPLE), *small], deadline=300)
    assert "{'all_gather_matmul': 2, 'matmul_reduce_scatter': 2}" in output
    assert float(re.search(r"largest difference (\S+),", output)[1]) < 1e-4
