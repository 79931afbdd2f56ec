# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The README's examples run as they stand there, and would on GPUs; its lines are short."""

import pathlib
import re

from snippets import blocks_of, run_as_on_a_gpu

from iris_c.testing import run_ranks

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def run_sums(code):
    names = run_as_on_a_gpu(code, {"__name__": "__main__"})
    summed = names["total"]
    assert tuple(names["C"].shape) == (512, 1024)
    assert bool(summed.isfinite().all())
    return summed.tolist()


def run_layers(code):
    names = run_as_on_a_gpu(code, {"__name__": "__main__"})
    names["ctx"].barrier()
    return [tuple(parameter.grad.shape) for parameter in names["mlp"].parameters()]


def test_examples():
    sums, layers = blocks_of(README)
    assert sums.count("\n") <= 16
    first, second = run_ranks(run_sums, 2, sums)
    assert first == second
    norm, column, row = [(1024,), (1024,)], [(2048, 1024), (2048,)], [(1024, 2048), (1024,)]
    assert run_ranks(run_layers, 2, layers) == [norm + column + row] * 2


def test_lines_fit():
    long = [line for line in README.read_text().splitlines() if len(line) > 120]
    assert not long


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target
