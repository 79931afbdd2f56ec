# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The core without Python, under the sanitizers."""

import programs
import pytest

SANITIZERS = {
    "plain": [],
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_ranks_as_threads(sanitizer, tmp_path):
    """Every operation and variant over 1 to 4 ranks, back-to-back calls, the wrap."""
    tree = tmp_path / "tree"
    programs.copy_with_few_kernels(tree)
    executable = programs.build(
        "test_ranks_as_threads.c", tmp_path, *SANITIZERS[sanitizer], root=tree
    )
    worlds = ["1", "2", "3", "4", "8"] if sanitizer == "plain" else ["1", "2", "3"]
    done = programs.run([str(executable), *worlds], timeout=240)
    assert done.stdout.count(": ok") == len(worlds)


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", ["plain", "address"])
def test_host_product(sanitizer, tmp_path):
    """The tile product of every instruction set that the machine has, against double precision."""
    # gcc 12 sees an element read as four bytes where the dtype says that it has two.
    flags = [*SANITIZERS[sanitizer], "-Wno-array-bounds"]
    executable = programs.build("test_gemm_host.c", tmp_path, *flags, parts=programs.PRODUCT)
    done = programs.run([str(executable)], timeout=240)
    assert "FAIL" not in done.stdout + done.stderr
    assert done.stdout.count("ok") >= 14


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_bootstrap(sanitizer, tmp_path):
    """Meeting, collectives, and ranks that die, stop, leave, disagree or come late."""
    executable = programs.build(
        "test_bootstrap.c", tmp_path, *SANITIZERS[sanitizer], parts=programs.BOOTSTRAP
    )
    done = programs.run([str(executable)], timeout=120)
    assert "FAILED" not in done.stdout
    assert done.stdout.count(": ok") >= 20
