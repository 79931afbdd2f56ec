# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Every test must leave the machine as it found it."""

import os

import pytest


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """No shared memory and no growing number of file descriptors in this process."""
    shared, descriptors = _shared_memory(), _descriptors()
    yield
    # The fork server, started by the first multi-rank test, holds a few descriptors from then on.
    grown = _descriptors() - descriptors
    assert grown <= 8, f"{grown} file descriptors were left open"
    left = {name for name in _shared_memory() - shared if "iris" in name}
    assert not left, f"left in /dev/shm: {left}"
