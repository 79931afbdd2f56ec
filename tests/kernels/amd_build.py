# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Compiles AMD code objects for tests, and mutants of them."""

import importlib.util
import pathlib
import shutil
import subprocess
import typing

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


class Mutant(typing.NamedTuple):
    before: str
    after: str
    complaint: str  # what the rules of amd_objects.py say of it


# What the memory order rests on, taken out of sync_cdna.h.
MUTANTS = {
    "drain": Mutant(
        '    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");\n}\n\n/* What the group wrote',
        "}\n\n/* What the group wrote",
        "is not drained before the barrier",
    ),
    "barrier": Mutant(
        "group_publish(work_group wg)\n{\n    drain_stores();\n    group_barrier(wg);",
        "group_publish(work_group)\n{\n    drain_stores();",
        "is not drained before the barrier",  # the one before
    ),
    "write-back": Mutant(
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");\n'
        '    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");',
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");',
        "before the write-back is complete",
    ),
    "scope": Mutant(
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");',
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");',
        "scope: expected sc0 sc1",
    ),
    "signal's scope": Mutant(
        "    fence_release();\n"
        "    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);",
        "    fence_release();\n"
        "    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);",
        "a signal without sc0 sc1",
    ),
    "poll's scope": Mutant(
        "return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);",
        "return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);",
        "it never waits",
    ),
    "release": Mutant(
        '    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");\n    asm volatile("s_waitcnt vmcnt(0)"',
        '    asm volatile("s_waitcnt vmcnt(0)"',
        "it never releases",
    ),
    "acquire": Mutant(
        '    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "");\n}',
        "}",
        "no invalidate after the poll",
    ),
    "acquire in the loop": Mutant(
        "return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);",
        "return __hip_atomic_load(word, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_SYSTEM);",
        "every round of the polling loop invalidates",
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
