# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The extension, built with the address and undefined-behaviour sanitizers, through Python."""

import os
import pathlib
import shutil
import subprocess
import sys

import programs
import pytest

ROOT = programs.ROOT
TESTS = [
    "tests/api/test_world_of_one.py",
    "tests/api/test_overridden.py",
    "tests/api/test_descriptions.py",
    "tests/ops/test_arguments.py",
    "tests/ops/test_ownership.py::test_workspaces_of_others[another context-1]",
    "tests/protocol/test_workspace.py::test_random_interleavings[world3]",
    "tests/protocol/test_workspace.py::test_ranks_that_disagree_get_one_error_and_go_on[world2]",
    "tests/ops/test_collectives.py::test_all_reduce[world2-two_shot]",
    "tests/ops/test_empty.py::test_all_reduce_of_nothing[world2-None]",
    "tests/ops/test_empty.py::test_collectives_of_nothing[world2]",
    "tests/ops/test_empty.py::test_configs_of_nothing[world1]",
    "tests/ops/test_empty.py::test_messages_of_nothing[world2]",
    "tests/ops/test_empty.py::test_rmsnorm_of_nothing[world2-None]",
    "tests/ops/test_empty.py::test_shapes_are_checked_all_the_same[world2]",
    "tests/ops/test_empty.py::test_tensors_without_elements[world2]",
    "tests/ops/test_empty.py::test_the_joined_operand_of_a_product_without_columns[world2]",
    "tests/faults/test_peers.py::test_a_rank_that_leaves_is_named",
]


@pytest.mark.sanitize
def test_extension_under_address_and_undefined_sanitizers(tmp_path):
    # The C++ library with it: the sanitizer looks for its exceptions when it is loaded.
    runtime, cxx = (
        subprocess.run(
            ["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    )
    if not pathlib.Path(runtime).is_absolute():
        pytest.skip("the compiler has no address sanitizer")
    library = tmp_path / "lib"
    programs.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(library)]
        + ["--build-temp", str(tmp_path / "objects")],
        cwd=ROOT,
        env={
            **os.environ,
            "IRIS_C_SANITIZE": "address,undefined",
            "IRIS_C_WERROR": "1",
            "IRIS_C_GPU_TARGETS": "none",
        },
    )
    for source in (ROOT / "iris_c").glob("*.py"):
        shutil.copy(source, library / "iris_c")
    programs.run(
        [sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"]
        + ["-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(library),
            "PYTHONSAFEPATH": "1",  # not the source tree's package, which has no library
            "LD_PRELOAD": f"{runtime} {cxx}",
            # Python's own allocations at exit are not ours to judge.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
        timeout=400,
    )
