# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""DDP and FSDP learn on the backend what they learn on gloo."""

import pathlib
import re

import pytest
from launching import TORCHRUN, output_of

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/train_data_parallel.py"


def losses(*arguments):
    said = output_of([*TORCHRUN, "2", str(SCRIPT), "--steps", "40", *arguments])
    found = re.search(r"loss ([0-9.]+) -> ([0-9.]+)", said)
    assert found, said
    return [float(loss) for loss in found.groups()]


@pytest.mark.slow
def test_losses_do_not_depend_on_the_backend():
    expected = losses("--backend", "gloo")
    assert expected[1] < expected[0] / 3
    assert losses() == pytest.approx(expected, rel=1e-3)
    assert losses("--shard") == pytest.approx(expected, rel=1e-3)
