# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The serving example, shortened: two ranks under torchrun write what one process writes."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/serve_tensor_parallel.py"
SMALL = ["--tokens", "20", "--width", "64", "--layers", "2"]


def generated(command):
    hidden = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    finished = subprocess.run(
        [*command, str(EXAMPLE), *SMALL],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert re.search(r"\d+ tokens/s, \d+\.\d+ ms a step", finished.stdout), finished.stdout
    (text,) = re.findall(r"text \[(.*)\] \.\.\.", finished.stdout)
    return text


@pytest.mark.slow
def test_text_does_not_depend_on_the_number_of_ranks():
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    single = generated([sys.executable])
    assert len(set(single.split(", "))) > 2, "always the same token"
    assert generated([*torchrun, "--nproc-per-node", "2"]) == single
