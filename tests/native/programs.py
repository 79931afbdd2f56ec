# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Builds the core of a source tree together with one of the standalone test programs."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMON = ["-g", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
C = ["-std=c11", "-D_GNU_SOURCE"]
CXX = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]


FEW = """\
#define IRIS_FLOAT_INSTANCES(operation, variant, arguments, kernel) \\
    IRIS_INSTANCE(operation, variant, F32, arguments, \\
                  (iris::kernel<float, IRIS_VARIANT_##variant>))
#define IRIS_REDUCTION_INSTANCES IRIS_FLOAT_INSTANCES
"""
CORE = ("runtime/*.c", "device/*.c", "kernels/*.cpp")
PRODUCT = ("kernels/gemm_host*.cpp", "kernels/rows_host.cpp")
BOOTSTRAP = ("runtime/bootstrap*.c", "runtime/status.c")


def copy_with_few_kernels(tree: pathlib.Path) -> None:
    """The sources, with kernels of the dtypes alone that the ranks as threads use: float32, and
    bytes. The others are the same templates, and most of the compiler's time."""
    for folder in ("csrc", "tests/native"):
        shutil.copytree(ROOT / folder, tree / folder)
    table = tree / "csrc/kernels/instances.def"
    rows = table.read_text()
    begin = rows.index("#define IRIS_FLOAT_INSTANCES")
    table.write_text(rows[:begin] + FEW + rows[rows.index("\n\n", begin) :])


def build(
    program: str,
    out: pathlib.Path,
    *flags: str,
    root: pathlib.Path = ROOT,
    parts=CORE,
    objects: pathlib.Path | None = None,
    changed=lambda source: True,
) -> pathlib.Path:
    """Compiles ``tests/native/<program>`` of ``root`` with ``parts`` of csrc; returns the
    executable. What has not ``changed`` since it was built into ``objects`` is taken from there."""
    cc, cxx = (shlex.split(os.environ.get(n, d)) for n, d in (("CC", "cc"), ("CXX", "c++")))
    sources = [root / "tests/native" / program]
    for pattern in parts:
        sources += sorted((root / "csrc").glob(pattern))
    out.mkdir(parents=True, exist_ok=True)

    def compile_one(source: pathlib.Path) -> str:
        if objects is not None and not changed(source):
            return str(objects / f"{source.name}.o")
        target = str(out / f"{source.name}.o")
        language = [*cxx, *CXX] if source.suffix == ".cpp" else [*cc, *C]
        run([*language, *COMMON, *flags, "-c", str(source), "-o", target])
        return target

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    executable = out / pathlib.Path(program).stem
    run([*cc, "-pthread", *flags, *objects, "-o", str(executable), "-lm"])
    return executable


def run(command, **options) -> subprocess.CompletedProcess:
    """Runs and raises with the output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(
            f"{shlex.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout[-4000:]}\n"
            f"{done.stderr[-8000:]}"
        )
    return done
