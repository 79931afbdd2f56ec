# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The example in which a rank dies: the others learn the same weights, and the right ones."""

import pathlib
import re
import sys

from launching import output_of

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/train_through_failures.py"


def test_the_others_train_on(monkeypatch):
    monkeypatch.setenv("IRIS_C_BACKEND", "cpu")  # on which the example is
    output = output_of([sys.executable, str(EXAMPLE), "--ranks", "3"])
    assert re.search(r"rank \d, step 50: .*rank 2 died", output), output
    assert output.count("of (0, 1), step 50") == 2, output
    results = set(re.findall(r"is done: loss ([\d.]+), weights ([\d.]+)", output))
    assert len(results) == 1, output
    loss, weights = (float(text) for text in results.pop())
    assert loss < 1e-6
    assert abs(weights - (1 - 2 + 3 + 0.5 + 1)) < 1e-3
