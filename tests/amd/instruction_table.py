# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""The instructions that ran on emulated GPUs: how often, how true their emulation is, and which
test runs each by itself."""

from __future__ import annotations

import collections
import ctypes
import itertools
import pathlib
import re

import machine

FILES = ("test_amd_instructions.py", "test_amd_matrix.py", "test_amd_machine.py")
# By every kernel that runs, the cache controls by test_amd_memory_order.py.
BY_KERNELS = {
    "s_load_dword": "every kernel", "s_memrealtime": "test_amd_checks.py",
    "buffer_wbl2": "test_amd_memory_order.py", "buffer_inv": "test_amd_memory_order.py",
    "buffer_invl2": "test_amd_memory_order.py", "buffer_wbinvl1_vol": "test_amd_memory_order.py",
}  # fmt: skip


def _made_by_loops() -> dict[str, str]:
    """Names that the tests put together."""
    found = {}
    for relation in ("lt", "eq", "le", "gt", "ne", "ge"):
        for kind in ("u32", "i32", "u64", "i64"):
            found[f"v_cmp_{relation}_{kind}"] = FILES[0]
    for relation in ("lg", "eq", "le", "gt", "lt", "ge"):
        for kind in ("u32", "i32"):
            found[f"s_cmp_{relation}_{kind}"] = FILES[0]
    for width in ("ubyte", "ushort", "dword", "dwordx2", "dwordx3", "dwordx4"):
        found[f"global_load_{width}"] = FILES[2]
    for n, k in ((32, 2), (32, 8), (32, 16)):
        for kind in ("f32", "f16", "bf16"):
            found[f"v_mfma_f32_{n}x{n}x{k}_{kind}"] = FILES[1]
    for n, k in ((32, 16), (16, 32)):
        for first, second in itertools.product(("fp8", "bf8"), repeat=2):
            found[f"v_mfma_f32_{n}x{n}x{k}_{first}_{second}"] = FILES[1]
    for n, k in ((32, 64), (16, 128)):
        found[f"v_mfma_f32_{n}x{n}x{k}_f8f6f4"] = FILES[1]
    return found


def tests() -> dict[str, str]:
    """Of each instruction that a test runs by itself, the test's file."""
    found = {**BY_KERNELS, **_made_by_loops()}
    for name in reversed(FILES):
        text = (pathlib.Path(__file__).parent / name).read_text().replace("\\n", " ")
        for word in re.findall(r"\b(?:v|s|ds|global|buffer)_\w+", text):
            found[word] = found[re.sub(r"_(e32|e64|sdwa)$", "", word)] = name
    return found


def status(library, name: str) -> str:
    """exact, approximate: why, or refused"""
    emulator = ctypes.CDLL(str(pathlib.Path(library).with_name(machine.OWN_LIBRARY)))
    emulator.emulator_status.restype = ctypes.c_char_p
    return emulator.emulator_status(name.encode()).decode()


def lines(counts, library) -> list[str]:
    """A line for each instruction in the folder's files, those that are not exact first."""
    total = collections.Counter()
    for path in filter(pathlib.Path.is_file, pathlib.Path(counts).iterdir()):
        for line in path.read_text().splitlines():
            name, number = line.split()
            total[name] += int(number)
    tested = tests()
    rows = [(status(library, name), name, number) for name, number in total.items()]
    return [
        f"{name:28} {number:13} {how:10} {tested.get(name, 'no test')}"
        for how, name, number in sorted(rows, key=lambda row: (row[0] == "exact", row[0], -row[2]))
    ]
