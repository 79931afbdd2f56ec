# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Builds the standalone test programs, each with what it needs of the core."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from once import made_once

ROOT = pathlib.Path(__file__).resolve().parents[2]
# -O1 and line numbers alone: the compiler is what takes long, not the programs.
# The ranks as threads use float32 and bytes; other dtypes are the same templates.
COMMON = ["-g1", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-DIRIS_ONLY_FLOAT32"]
C = ["-std=c11", "-D_GNU_SOURCE"]
CXX = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]

SANITIZERS = {
    "plain": [],
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}
CORE = ("base/*.c", "runtime/**/*.c", "device/*.c", "kernels/cpu/*.cpp")
PRODUCT = (
    "kernels/cpu/gemm_host*.cpp",
    "kernels/cpu/rows_host.cpp",
    "kernels/cpu/float8_host.cpp",
)
BOOTSTRAP = ("runtime/bootstrap/*.c", "base/*.c")


def copy_sources(tree: pathlib.Path) -> None:
    """What the programs are made of, to be changed."""
    for folder in ("csrc", "tests/native"):
        shutil.copytree(ROOT / folder, tree / folder)


def compiled(tree: pathlib.Path, sources, out: pathlib.Path, *flags: str) -> list[str]:
    """Compiles sources of ``tree`` into ``out``; returns the objects."""
    cc, cxx = compilers()
    flags = (f"-I{tree / 'csrc'}", *flags)

    def compile_one(source: pathlib.Path) -> str:
        target = str(out / f"{source.name}.o")
        language = [*cxx, *CXX] if source.suffix == ".cpp" else [*cc, *C]
        run([*language, *COMMON, *flags, "-c", str(source), "-o", target])
        return target

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def sources_of(tree: pathlib.Path, parts) -> list[pathlib.Path]:
    return [source for part in parts for source in sorted((tree / "csrc").glob(part))]


def core(shared: pathlib.Path, sanitizer: str) -> pathlib.Path:
    """A folder with the objects of the core with few kernels, which all programs are made with."""

    def make(out: pathlib.Path) -> None:
        compiled(ROOT, sources_of(ROOT, CORE), out, *SANITIZERS[sanitizer])

    return made_once(shared / f"core-{sanitizer}", make)


def build(
    program: str,
    out: pathlib.Path,
    sanitizer: str,
    objects: pathlib.Path,
    root: pathlib.Path = ROOT,
    parts=CORE,
    changed=lambda source: False,
) -> pathlib.Path:
    """Links ``tests/native/<program>`` with ``parts`` of the core, whose objects are those of
    ``core``, but for the sources that have ``changed`` in ``root``; returns the executable."""
    flags, sources = SANITIZERS[sanitizer], sources_of(root, parts)
    own = [root / "tests/native" / program, *filter(changed, sources)]
    new = compiled(root, own, out, *flags)
    old = [str(objects / f"{source.name}.o") for source in sources if not changed(source)]
    executable = out / pathlib.Path(program).stem
    run([*compilers()[0], "-pthread", *flags, *new, *old, "-o", str(executable), "-lm"])
    return executable


def compilers() -> tuple[list[str], list[str]]:
    cc, cxx = (shlex.split(os.environ.get(n, d)) for n, d in (("CC", "cc"), ("CXX", "c++")))
    return cc, cxx


def run(command, **options) -> subprocess.CompletedProcess:
    """Runs and raises with the output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(
            f"{shlex.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout[-4000:]}\n"
            f"{done.stderr[-8000:]}"
        )
    return done
