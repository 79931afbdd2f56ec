# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Rules of the house that a search can check."""

import ast
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
SOURCES = [*C_SOURCES, ROOT / "csrc/kernels/abi/instances.def", *PYTHON, ROOT / "setup.py"]


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


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by their bare names, and refuses the second of a name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


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
def test_calls_that_may_wait_answer_signals(path):
    """They lie between IRIS_PY_BEGIN_WAIT and IRIS_PY_END_WAIT (py_wait.h). Without the GIL alone
    is what has no result, and so no way to raise."""
    for block in re.findall(
        r"Py_BEGIN_ALLOW_THREADS(.*?)Py_END_ALLOW_THREADS", without_comments(path), flags=re.S
    ):
        assert not re.search(r"status\s*=\s*iris_", block), block


@pytest.mark.parametrize("path", C_SOURCES, ids=short)
def test_data_of_the_process_has_one_lock(path):
    """Which forks wait for: see base/process.h."""
    if short(path) != "csrc/base/process.c":
        assert not re.search(r"PTHREAD_\w*MUTEX_INITIALIZER", without_comments(path))


# What a file of a folder may include, besides its own folder; a folder stands for those in it. The
# most specific row counts. base/ and kernels/abi/ are vocabulary: everyone may include them.
MAY_INCLUDE = {
    "base": (),
    "kernels/abi": (),
    "kernels/base": ("kernels/cpu/rows_host.h", "kernels/gpu/convert_gpu.h"),
    "kernels/protocol": ("kernels/base",),
    "kernels/ops": ("kernels/base", "kernels/protocol"),
    "kernels/cpu": ("kernels/base", "kernels/protocol", "kernels/ops"),
    "kernels/gpu": ("kernels/base", "kernels/protocol", "kernels/ops"),
    "device": ("kernels/cpu/gemm_host.h",),
    "runtime": ("device",),
    "python": ("runtime/iris.h", "kernels/cpu/gemm_host.h", "device/device.h"),
}


@pytest.mark.parametrize("path", C_SOURCES, ids=short)
def test_includes_point_down(path):
    """python -> runtime -> device -> kernels/abi and base; kernels know nobody above them."""
    csrc = ROOT / "csrc"
    here = path.relative_to(csrc).as_posix()
    folder = max((row for row in MAY_INCLUDE if here.startswith(row + "/")), key=len)
    allowed = ("base", "kernels/abi", folder, *MAY_INCLUDE[folder])
    for included in re.findall(r'#include "([^"]+)"', path.read_text()):
        target = path.parent / included if "/" not in included else csrc / included
        assert target.exists(), f"{included}: in the own folder, or a path from csrc/"
        name = target.relative_to(csrc).as_posix()
        assert any(name == row or name.startswith(row + "/") for row in allowed), included


@pytest.mark.parametrize("path", C_SOURCES, ids=short)
def test_one_header_asks_for_the_target(path):
    """One target's code lies in its folder; kernels/abi/target.h names its files."""
    folders = {"__CUDACC__": "gpu/sm90", "__CUDA_ARCH__": "gpu/sm90", "__HIP__": "gpu/cdna",
               "__AMDGCN__": "gpu/cdna", "__gfx": "gpu/cdna", "__builtin_amdgcn": "gpu/cdna",
               "threadIdx": "gpu/sm90", "blockIdx": "gpu/sm90"}  # fmt: skip
    text = without_comments(path)
    here = path.relative_to(ROOT / "csrc").as_posix()
    for word, folder in folders.items():
        allowed = here.startswith(f"kernels/{folder}/") or here == "kernels/abi/target.h"
        assert allowed or word not in text, f"{word} outside kernels/{folder}"


def test_file_names_are_unique():
    names = [path.name for path in C_SOURCES]
    assert len(names) == len(set(names))


# ---- every test can fail ----

CHECK = re.compile(r"_*(check|assert|expect|verify|raises$|warns$|opcheck$|run_ranks$)")


def name_of(node: ast.AST) -> str:
    """The last part of a dotted name; "" for anything else."""
    return getattr(node, "attr", None) or getattr(node, "id", "")


def looks_itself(node: ast.AST) -> bool:
    """Whether this statement or call fails where something is wrong."""
    if isinstance(node, ast.Raise):
        return node.exc is not None and "AssertionError" in ast.unparse(node.exc)
    if isinstance(node, ast.Call):
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        return CHECK.match(name_of(node.func)) is not None or options.get("check") == "True"
    return isinstance(node, ast.Assert)


def functions_of(path: pathlib.Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)]  # fmt: skip


def is_fixture(function: ast.FunctionDef) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)


def unchecked_tests(files: list[pathlib.Path]) -> list[str]:
    """Tests of the files in which nothing is looked at: neither in themselves, nor in a function
    that they call or pass on. A function counts in its own file, else in any of the files."""
    functions = [(path, function) for path in files for function in functions_of(path)]
    own = [(path, function.name) for path, function in functions]
    mentions = [
        {name_of(node) for statement in function.body for node in ast.walk(statement)}
        for _, function in functions
    ]
    looks = [any(map(looks_itself, ast.walk(function))) for _, function in functions]
    while True:
        good = {place for place, yes, (_, function) in zip(own, looks, functions, strict=True)
                if yes and not is_fixture(function)}  # fmt: skip
        anywhere, here = {name for _, name in good}, set(own)
        more = [
            yes or any((path, name) in good or ((path, name) not in here and name in anywhere)
                       for name in names)
            for yes, names, (path, _) in zip(looks, mentions, own, strict=True)
        ]  # fmt: skip
        if more == looks:
            break
        looks = more
    return [
        f"{path.name}: {function.name}"
        for (path, function), yes in zip(functions, looks, strict=True)
        if function.name.startswith("test_") and not yes
    ]


def test_every_test_looks_at_something():
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert unchecked_tests(files) == []


def test_a_test_that_looks_at_nothing_is_found(tmp_path):
    path = tmp_path / "test_some.py"
    path.write_text(
        "def test_runs(ctx):\n    ctx.barrier()\n"
        "def test_looks(ctx):\n    assert ctx.rank == 0\n"
        "def body(ctx):\n    check_all(ctx)\n"
        "def idle(ctx):\n    ctx.barrier()\n"
        "def test_passes_on(ranks):\n    ranks.run(body)\n"
        "def test_passes_on_nothing(ranks):\n    ranks.run(idle)\n"
    )
    assert unchecked_tests([path]) == [
        "test_some.py: test_runs", "test_some.py: test_passes_on_nothing"
    ]  # fmt: skip
