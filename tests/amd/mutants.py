# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Takes parts out of a code object's machine code, as the emulator reads it: of its disassembly.

Not of the source, because the compiler puts in waits of its own where it happens to have a reason:
the source without a wait often still has it.

A mutant is a function from a kernel's instructions to what is left of them.
"""

from __future__ import annotations

import pathlib
import re

import amd_objects
import program

SCOPES = ("sc0", "sc1", "glc")


def _is_wait(x) -> bool:
    return x.name == "s_waitcnt" and "vmcnt(0)" in x.operands


def _waits_after_write_backs(code) -> set[int]:
    """The waits between a write-back and the store that it is for."""
    found, after = set(), False
    for x in code:
        if x.name == "buffer_wbl2":
            after = True
        elif amd_objects.STORE.match(x.name):
            after = False
        elif after and _is_wait(x):
            found.add(x.address)
    return found


def _idle(x):
    """As long, and nothing else."""
    return x._replace(name="s_nop", operands="0")


def _unscoped(x):
    """At the scope of a work-group."""
    return x._replace(operands=" ".join(t for t in x.operands.split() if t not in SCOPES))


def _without(*names):
    return lambda code: [x for x in code if x.name not in names]


def _at_work_group_scope(*names):
    """Of accesses that have a scope: those without one are not meant for other devices."""

    def edit(code):
        scoped = lambda x: x.name in names and any(x.has(scope) for scope in SCOPES)  # noqa: E731
        return [_unscoped(x) if scoped(x) else x for x in code]

    return edit


def _drain(code):
    """All waits for stores but those for write-backs."""
    kept = _waits_after_write_backs(code)
    return [_counting_loads(x) if _is_wait(x) and x.address not in kept else x for x in code]


def _counting_loads(x):
    """The wait asks for nothing that a counter of memory says."""
    return x._replace(operands=_without_counter(x.operands, "vmcnt"))


def _without_counter(operands: str, counter: str) -> str:
    """expcnt(0), which nothing here counts, stands for a wait that is not there."""
    return re.sub(rf"{counter}\(\d+\)", "", operands).strip() or "expcnt(0)"


def _wait(code):
    dropped = _waits_after_write_backs(code)
    return [x for x in code if x.address not in dropped]


def _scope(code):
    """System scope becomes agent scope; gfx90a writes back and drops L2 at system scope alone."""
    found = []
    for x in code:
        if x.name in ("buffer_wbl2", "buffer_inv", "buffer_invl2"):
            if not x.has("sc0", "sc1"):
                continue
            x = x._replace(operands="sc1")
        found.append(x)
    return found


def _lds_waits(code):
    return [
        x._replace(operands=_without_counter(x.operands, "lgkmcnt")) if x.name == "s_waitcnt" else x
        for x in code
    ]


def _load_waits(code):
    """Waits for all memory stay, as they are those of the protocol too."""
    return [_counting_loads(x) if x.name == "s_waitcnt" and not _is_wait(x) else x for x in code]


def barrier(number: int):
    """Without the barrier of that number in the kernel's code."""

    def edit(code):
        places = [i for i, x in enumerate(code) if x.name == "s_barrier"]
        gone = places[number] if number < len(places) else -1
        return [_idle(x) if i == gone else x for i, x in enumerate(code)]

    return edit


# What only adversarial memory shows.
ORDER = {
    "drain": _drain,
    "wait for the write-back": _wait,
    "write-back": _without("buffer_wbl2"),
    "payload": _at_work_group_scope("global_store_dwordx4"),
    "scope": _scope,
    "invalidate": _without("buffer_inv", "buffer_invl2", "buffer_wbinvl1_vol"),
}


def orders(arch: str) -> list[str]:
    """Those that the architecture's releases have: gfx942's payload is stored past L2."""
    others = ("wait for the write-back", "write-back") if arch == "gfx942" else ("payload",)
    return [name for name in ORDER if name not in others]


# Accesses at the scope of a work-group.
SCOPE = {
    "packet stores": _at_work_group_scope("global_store_dwordx4"),
    "packet loads": _at_work_group_scope("buffer_load_dwordx4"),
    "flag stores": _at_work_group_scope("global_store_dword"),
    "flag loads": _at_work_group_scope("global_load_dword"),
}
# What is wrong whatever the memory does.
CODE = {
    "waits for LDS and scalars": _lds_waits,
    "waits for loads": _load_waits,
    "s_nops": _without("s_nop"),
    "barriers": lambda code: [_idle(x) if x.name == "s_barrier" else x for x in code],
}
OTHERS = {"matrix": lambda code: [x for x in code if not x.name.startswith("v_mfma_")]}
MUTANTS = {**ORDER, **SCOPE, **CODE, **OTHERS}


def prepare(source, edit, directory, kernels: str = ".*", changed: str = ".*") -> int:
    """Decodes the matching kernels of the object into the folder, with `edit`, a mutant's name or
    function, applied to those that match `changed`; returns how many instructions differ."""
    edit = MUTANTS[edit] if isinstance(edit, str) else edit
    changes = 0

    def counted(kernel, code):
        nonlocal changes
        if not re.fullmatch(changed, kernel):
            return code
        left = {x.address: x for x in edit(code)}
        changes += sum(left.get(x.address) != x for x in code)
        return list(left.values())

    pathlib.Path(directory).mkdir(exist_ok=True)
    program.prepare(source, directory, kernels, counted)
    return changes
