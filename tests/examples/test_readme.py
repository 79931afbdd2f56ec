# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The README's examples run as they stand there."""

import pathlib
import re

import torch

from iris_c.testing import run_ranks

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def run_example(code):
    names = {"__name__": "__main__"}
    exec(compile(code, "example.py", "exec"), names)
    summed = names["total"]
    assert tuple(names["C"].shape) == (512, 1024)
    assert bool(summed.isfinite().all())
    return summed.tolist()


def test_example():
    (code,) = re.findall(r"```python\n# example\.py.*?\n(.*?)```", README.read_text(), flags=re.S)
    assert code.count("\n") <= 15
    first, second = run_ranks(run_example, 2, code)
    assert first == second


def build_layers(code):
    """Without memory for their weights, which are those of a large model."""
    names = {}
    with torch.device("meta"):
        exec(compile(code, "layers.py", "exec"), names)
    return [tuple(p.shape) for p in names["mlp"].parameters()]


def test_layers():
    (code,) = re.findall(
        r"```python\n(import torch\n\nimport iris_c\.torch\n.*?)```", README.read_text(), flags=re.S
    )
    assert run_ranks(build_layers, 2, code) == [[(8192, 4096), (8192,), (4096, 8192), (4096,)]] * 2
