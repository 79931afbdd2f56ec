# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The example of a model of transformers: two ranks write what one process writes."""

import pathlib
import re
import sys

import pytest
from launching import TORCHRUN, output_of

EXAMPLE = (
    pathlib.Path(__file__).resolve().parents[2] / "docs/examples/generate_with_transformers.py"
)


@pytest.mark.slow
def test_text_does_not_depend_on_the_number_of_ranks():
    pytest.importorskip("transformers", reason="transformers is not installed")
    single = output_of([sys.executable, str(EXAMPLE), "--tokens", "8"])
    double = output_of([*TORCHRUN, "2", str(EXAMPLE), "--tokens", "8"])
    text = re.search(r"tokens \[(.*)\]", single)[1]
    assert len(set(text.split(", "))) > 2, "always the same token"
    assert re.search(r"tokens \[(.*)\]", double)[1] == text
    assert "model.layers.0.mlp.down_proj: 8 matmul_all_reduce" in double
