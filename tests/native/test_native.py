# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The core without Python, under the sanitizers."""

import programs
import pytest


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", programs.SANITIZERS)
def test_ranks_as_threads(sanitizer, shared, tmp_path):
    """Every operation and variant over 1 to 4 ranks, back-to-back calls, the wrap."""
    core = programs.core(shared, sanitizer)
    executable = programs.build("test_ranks_as_threads.c", tmp_path, sanitizer, core)
    worlds = ["1", "2", "3", "4", "8"] if sanitizer == "plain" else ["1", "2", "3"]
    done = programs.run([str(executable), *worlds], timeout=240)
    assert done.stdout.count(": ok") == len(worlds)


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", ["plain", "address"])
def test_host_product(sanitizer, shared, tmp_path):
    """The tile product of every instruction set that the machine has, against double precision."""
    core = programs.core(shared, sanitizer)
    executable = programs.build(
        "test_gemm_host.c", tmp_path, sanitizer, core, parts=programs.PRODUCT
    )
    done = programs.run([str(executable)], timeout=240)
    assert "FAIL" not in done.stdout + done.stderr
    assert done.stdout.count("ok") >= 14


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", programs.SANITIZERS)
def test_bootstrap(sanitizer, shared, tmp_path):
    """Meeting, collectives, and ranks that die, stop, leave, disagree or come late."""
    core = programs.core(shared, sanitizer)
    executable = programs.build(
        "test_bootstrap.c", tmp_path, sanitizer, core, parts=programs.BOOTSTRAP
    )
    done = programs.run([str(executable)], timeout=120)
    assert "FAILED" not in done.stdout
    assert done.stdout.count(": ok") >= 20
