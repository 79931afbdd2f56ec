# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Compiles AMD code objects for tests, and mutants of them."""

import importlib.util
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _build_kernels():
    """The build's own module, without putting the root, and with it the sources of the package,
    before the installed one."""
    spec = importlib.util.spec_from_file_location("build_kernels", ROOT / "build_kernels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_kernels = _build_kernels()


def compiled(target, directory, source=build_kernels.SOURCE, root=ROOT, extra=()):
    output = directory / build_kernels.object_name(target)
    command = build_kernels.command(target, output, source, werror=True, extra=extra)
    subprocess.run(command, cwd=root, check=True)
    return output


# What the memory order rests on, taken out of sync_cdna.h: before, after, and what the rules of
# amd_objects.py say of it.
MUTANTS = {
    "drain": (
        '    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");\n}\n\n/* What the group wrote',
        "}\n\n/* What the group wrote",
        "is not drained",
    ),
    "write-back": (
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");\n'
        '    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");',
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");',
        "before the write-back is complete",
    ),
    "scope": (
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");',
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");',
        "scope: expected sc0 sc1",
    ),
    "release": (
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");\n    asm volatile("s_waitcnt vmcnt(0)"',
        '    asm volatile("s_waitcnt vmcnt(0)"',
        "it never releases",
    ),
    "acquire": (
        '    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "");\n}',
        "}",
        "no invalidate after the poll",
    ),
}


# The kernels that neither multiply nor reduce: a dozen, which compile in seconds and have all of
# the memory order.
FEW = ("-DIRIS_ONLY_BYTES",)


def copy_sources(directory) -> None:
    shutil.copytree(ROOT / "csrc", directory / "csrc")


def mutant(name: str, target: str, directory) -> pathlib.Path:
    """The object of few kernels with one of the MUTANTS."""
    before, after, _ = MUTANTS[name]
    copy_sources(directory)
    header = directory / "csrc/kernels/gpu/cdna/sync_cdna.h"
    text = header.read_text()
    assert before in text
    header.write_text(text.replace(before, after))
    return compiled(target, directory, root=directory, extra=FEW)
