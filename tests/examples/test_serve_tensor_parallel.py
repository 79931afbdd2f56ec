# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The serving example, shortened: two ranks under torchrun write what one process writes."""

import pathlib
import re
import sys

import pytest
from launching import TORCHRUN, output_of

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/serve_tensor_parallel.py"
SMALL = ["--tokens", "20", "--width", "64", "--layers", "2"]


def generated(command):
    output = output_of([*command, str(EXAMPLE), *SMALL])
    assert re.search(r"\d+ tokens/s, \d+\.\d+ ms a step", output), output
    (text,) = re.findall(r"text \[(.*)\] \.\.\.", output)
    return text


@pytest.mark.slow
def test_text_does_not_depend_on_the_number_of_ranks():
    single = generated([sys.executable])
    assert len(set(single.split(", "))) > 2, "always the same token"
    assert generated([*TORCHRUN, "2"]) == single
