# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The training example, shortened: two ranks under torchrun learn what one process learns."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/train_tensor_parallel.py"
SMALL = ["--steps", "40", "--batch", "4", "--time", "32", "--width", "64", "--layers", "2"]


def losses_of(command, directory, deadline=150):
    """Runs the example in a process group of its own, which is gone afterwards."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"}
    }
    process = subprocess.Popen(
        [*command, str(EXAMPLE), *SMALL, "--out", str(directory)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"not done after {deadline} s\n{output[-4000:]}")
    assert process.returncode == 0, output[-4000:]
    assert (directory / "loss.png").stat().st_size > 1000
    return json.loads((directory / "losses.json").read_text())


@pytest.mark.slow
def test_losses_do_not_depend_on_the_number_of_ranks(tmp_path):
    pytest.importorskip("matplotlib")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    single = losses_of([sys.executable], tmp_path / "single")
    double = losses_of([*torchrun, "--nproc-per-node", "2"], tmp_path / "double")
    assert len(single) == len(double) == 40
    assert single[-1] < 0.75 * single[0], "it does not learn"
    for step, (one, two) in enumerate(zip(single, double, strict=True)):
        assert abs(one - two) < 1e-3 * one, f"step {step}: {one} against {two}"
