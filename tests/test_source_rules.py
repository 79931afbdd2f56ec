# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Rules of the house that a search can check."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
C_SOURCES = sorted(
    path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".c", ".h", ".cpp", ".hip"}
)
PYTHON = sorted(
    path
    for folder in ("iris_c", "tests", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
SOURCES = [*C_SOURCES, ROOT / "csrc/kernels/instances.def", *PYTHON, ROOT / "setup.py"]


def without_comments(path: pathlib.Path) -> str:
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_licence_and_size(path):
    text = path.read_text()
    assert "SPDX-License-Identifier: MIT" in text
    assert "SPDX-FileCopyrightText: The iris_c authors" in text
    limit = 600 if path.suffix != ".py" else 850
    assert text.count("\n") <= limit, "a file has one responsibility"


@pytest.mark.parametrize("path", C_SOURCES, ids=short)
def test_the_core_neither_prints_nor_ends_the_process(path):
    forbidden = re.compile(r"\b(printf|fprintf|puts|perror|exit|_exit|abort|assert_fail)\s*\(")
    assert not forbidden.search(without_comments(path))


@pytest.mark.parametrize("path", C_SOURCES, ids=short)
def test_memory_order_is_spelled_in_one_place(path):
    if "kernels" not in path.parts or path.name.startswith("sync"):
        return
    # gemm_host*.cpp publish what all threads compute alike; that orders nothing.
    allowed = "__ATOMIC_RELAXED" if path.name.startswith("gemm_host") else None
    for word in re.findall(r"__ATOMIC_\w+|__sync_\w+|atomic_thread_fence|std::atomic|volatile",
                           without_comments(path).replace("asm volatile", "asm")):  # fmt: skip
        assert word == allowed, word


@pytest.mark.parametrize("path", C_SOURCES, ids=short)
def test_includes_point_down(path):
    """py_*.c -> runtime -> device; kernels know nobody. status.h and what the host shares with
    the kernels (abi.h, instances.h, schedule.h) are vocabulary."""
    vocabulary = {"status.h", "abi.h", "instances.h", "schedule.h", "gemm_host.h", "device.h",
                  "gpu_launch.h", "instances.def"}  # fmt: skip
    allowed = {
        "csrc": {"csrc", "runtime"},
        "runtime": {"runtime", "device"},
        "device": {"device"},
        "kernels": {"kernels"},
    }[path.parent.name]
    for included in re.findall(r'#include "([^"]+)"', path.read_text()):
        target = next(
            (base / included).resolve()
            for base in (path.parent, ROOT / "csrc")
            if (base / included).exists()
        )
        assert target.parent.name in allowed or target.name in vocabulary, included


def test_file_names_are_unique():
    names = [path.name for path in C_SOURCES]
    assert len(names) == len(set(names))
