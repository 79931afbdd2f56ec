# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What scalar loads of an AMD kernel read, by following their addresses back through all paths.

Nothing invalidates the scalar cache while a kernel runs, so scalar loads may read the kernel's
arguments, the dispatch packet and constants of the code object alone: by what registers hold at the
kernel's entry, or by the program counter. Sums with constants stay what they are.
"""

from __future__ import annotations

import re

from control_flow import Kernel

LOAD = re.compile(r"s_(buffer_)?load_")
KEEPS = re.compile(r"s_(mov_b32|mov_b64|add_u32|addc_u32|add_i32)$")
CONSTANT = re.compile(r"-?\d+$|-?0x[0-9a-f]+$")
COMPARES = re.compile(r"s_(cmp|bitcmp|waitcnt|nop|barrier|branch|cbranch|sleep|setprio|endpgm)")


def registers(text: str) -> list[str]:
    """The scalar registers that an operand names."""
    match = re.fullmatch(r"s(?:(\d+)|\[(\d+):(\d+)\])", text.strip())
    if match is None:
        return []
    first = int(match[1] or match[2])
    return [f"s{i}" for i in range(first, int(match[3] or first) + 1)]


def _operands(x) -> list[str]:
    return [part.split()[0] for part in re.split(r",(?![^\[]*\])", x.operands) if part.strip()]


def written(x) -> list[str]:
    """Vector instructions write scalars as their first or, beside a sum, second result."""
    if not x.name.startswith(("s_", "v_")) or COMPARES.match(x.name):
        return []
    operands = _operands(x)
    carries = re.match(r"v_(add|sub|subrev|addc|subb|subbrev)_co_|v_mad_[ui]64_", x.name)
    return [name for text in operands[: 2 if carries else 1] for name in registers(text)]


class _Origins:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.place = {id(x): i for i, x in enumerate(kernel.code)}
        self.writers: dict[str, set[int]] = {}
        for i, x in enumerate(kernel.code):
            for name in written(x):
                self.writers.setdefault(name, set()).add(i)
        self.known: dict[tuple[str, int], str | None] = {}

    def before(self, name: str, i: int) -> str | None:
        """What the register holds before the i-th instruction, if a scalar load may not use it."""
        key = (name, i)
        if key not in self.known:
            self.known[key] = None  # a way round a loop leads back here
            self.known[key] = self._before(name, i)
        return self.known[key]

    def _before(self, name: str, i: int) -> str | None:
        writers = self.writers.get(name, set())
        for j in self.kernel.before(i, lambda x: self.place[id(x)] in writers):
            found = self._result(name, j) if j >= 0 else None
            if found is not None:
                return found
        return None

    def _result(self, name: str, j: int) -> str | None:
        x = self.kernel.code[j]
        if x.name == "s_getpc_b64":
            return None
        if not KEEPS.match(x.name):
            return f"{x.name} {x.operands}"
        result, *sources = _operands(x)
        half = registers(result).index(name)
        for source in sources:
            names = registers(source)
            if names:
                found = self.before(names[min(half, len(names) - 1)], j)
                if found is not None:
                    return found
            elif not CONSTANT.match(source):
                return f"{x.name} {x.operands}"
        return None


def violations(kernel: Kernel) -> list[str]:
    """Scalar loads of anything else, one line each."""
    origins, found = _Origins(kernel), []
    for i, x in enumerate(kernel.code):
        if not LOAD.match(x.name):
            continue
        base, *_ = _operands(x)[1:]
        reasons = {origins.before(name, i) for name in registers(base)} - {None}
        if reasons or not registers(base):
            found.append(
                f"{kernel.name} {x.address:#x} {x.name} {x.operands}: an address from {reasons}"
            )
    return found
