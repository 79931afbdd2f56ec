# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Builds the core of a source tree together with one of the standalone test programs."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMON = ["-g", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
C = ["-std=c11", "-D_GNU_SOURCE"]
CXX = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]


CORE = ("runtime/*.c", "device/*.c", "kernels/*.cpp")
BOOTSTRAP = ("runtime/bootstrap*.c", "runtime/status.c")


def build(
    program: str, out: pathlib.Path, *flags: str, root: pathlib.Path = ROOT, parts=CORE
) -> pathlib.Path:
    """Compiles ``tests/native/<program>`` of ``root`` with ``parts`` of csrc; returns the
    executable."""
    cc, cxx = (shlex.split(os.environ.get(n, d)) for n, d in (("CC", "cc"), ("CXX", "c++")))
    sources = [root / "tests/native" / program]
    for pattern in parts:
        sources += sorted((root / "csrc").glob(pattern))
    out.mkdir(parents=True, exist_ok=True)

    def compile_one(source: pathlib.Path) -> str:
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
