# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The example of a plan, shortened: the losses are those of torch's styles, and do not depend on
the number of ranks that the plan divides the model among."""

import pathlib
import re

import pytest
from launching import TORCHRUN, has_devices, output_of

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/train_with_a_plan.py"
SMALL = ["--steps", "6", "--width", "32", "--layers", "1", "--length", "16"]


def run(ranks, *options):
    output = output_of([*TORCHRUN, str(ranks), str(EXAMPLE), *SMALL, *options])
    losses = [float(loss) for loss in re.findall(r"step \d+ loss (\S+)", output)]
    return losses, re.findall(r"^(layers\S+|output): (.*)$", output, re.M)


@pytest.mark.slow
def test_losses_are_those_of_torchs_styles():
    losses, layers = run(2)
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.2, "it does not learn"
    assert len(layers) == 8
    for name, ran in layers:
        scattered = name.endswith(("out", "down"))
        assert ran == ("6 matmul_reduce_scatter" if scattered else "6 all_gather_matmul"), name
    expected, none = run(2, "--styles", "torch")
    assert none == []
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not has_devices(4), reason="for 4 GPUs")
def test_with_fsdp_on_the_other_dimension():
    losses, layers = run(4, "--data-parallel", "2")
    assert losses[-1] < losses[0] - 0.2, "it does not learn"
    assert len(layers) == 8
