# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The package with its extension built by the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import programs


def _compilers_library(name: str) -> str:
    command = [programs.compilers()[0][-1], f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def runtimes() -> list[str]:
    """What is to be loaded before all else; empty where the compiler has no address sanitizer. The
    C++ library with it: the sanitizer looks for its exceptions when it is loaded."""
    names = [_compilers_library(name) for name in ("libasan.so", "libstdc++.so.6")]
    return names if pathlib.Path(names[0]).is_absolute() else []


def build(folder: pathlib.Path) -> pathlib.Path:
    """Builds into the folder; returns the directory that holds the package."""
    library = folder / "lib"
    programs.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(library)]
        + ["--build-temp", str(folder / "objects")],
        cwd=programs.ROOT,
        env={
            **os.environ,
            "IRIS_C_SANITIZE": "address,undefined",
            "IRIS_C_WERROR": "1",
            "IRIS_C_GPU_TARGETS": "none",
        },
    )
    for source in (programs.ROOT / "iris_c").glob("*.py"):
        shutil.copy(source, library / "iris_c")
    return library


def pytest_command(*arguments: str) -> list[str]:
    return [
        sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))",
        "-q", "-p", "no:cacheprovider", *arguments,
    ]  # fmt: skip


def environment(library: pathlib.Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(library),
        "PYTHONSAFEPATH": "1",  # not the source tree's package, which has no library
        "LD_PRELOAD": " ".join(runtimes()),
        # Python's own allocations at exit are not ours to judge.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
