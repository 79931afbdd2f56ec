# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Runs an example as a user does, in a process group of its own, which is gone afterwards."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest
from descriptors import ON_GPU

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def has_devices(ranks):
    """Whether there are GPUs for so many ranks, or they need none."""
    import torch

    return not ON_GPU or torch.cuda.device_count() >= ranks


def output_of(command, deadline=150):
    """What the command prints; it ends well, and in time."""
    hidden = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with tempfile.TemporaryDirectory() as temporary:  # torchrun leaves its logs there
        environment |= {"OMP_NUM_THREADS": "1", "TMPDIR": temporary}
        return _output_of(command, environment, deadline)


def _output_of(command, environment, deadline):
    process = subprocess.Popen(
        command,
        env=environment,
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
    return output
