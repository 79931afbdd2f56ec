# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""What scalar loads of an AMD kernel read, by following their addresses back through all paths.

Nothing invalidates the scalar cache while a kernel runs, so scalar loads may read the kernel's
arguments, the dispatch packet and constants of the code object alone: by what registers hold at the
kernel's entry, or by the program counter. Sums with constants stay what they are.
"""

from __future__ import annotations

import re

from control_flow import Kernel, Register, Writers, registers

LOAD = re.compile(r"s_(buffer_)?load_")
KEEPS = re.compile(r"s_(mov_b32|mov_b64|add_u32|addc_u32|add_i32)$")
CONSTANT = re.compile(r"-?\d+$|-?0x[0-9a-f]+$")
COMPARES = re.compile(r"s_(cmp|bitcmp|waitcnt|nop|barrier|branch|cbranch|sleep|setprio|endpgm)")


def _operands(x) -> list[str]:
    return [part.split()[0] for part in re.split(r",(?![^\[]*\])", x.operands) if part.strip()]


def written(x) -> list[Register]:
    """Vector instructions write scalars as their first or, beside a sum, second result."""
    if not x.name.startswith(("s_", "v_")) or COMPARES.match(x.name):
        return []
    operands = _operands(x)
    carries = re.match(r"v_(add|sub|subrev|addc|subb|subbrev)_co_|v_mad_[ui]64_", x.name)
    return registers(",".join(operands[: 2 if carries else 1]), "s")


class _Origins:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.writers = Writers(kernel, written)
        self.known: dict[tuple[Register, int], str | None] = {}

    def before(self, name: Register, i: int) -> str | None:
        """What the register holds before the i-th instruction, if a scalar load may not use it."""
        key = (name, i)
        if key not in self.known:
            self.known[key] = None  # a way round a loop leads back here
            self.known[key] = self._before(name, i)
        return self.known[key]

    def _before(self, name: Register, i: int) -> str | None:
        for j in self.writers.before(name, i):
            found = self._result(name, j) if j >= 0 else None
            if found is not None:
                return found
        return None

    def _result(self, name: Register, j: int) -> str | None:
        x = self.kernel.code[j]
        if x.name == "s_getpc_b64":
            return None
        if not KEEPS.match(x.name):
            return f"{x.name} {x.operands}"
        result, *sources = _operands(x)
        half = registers(result, "s").index(name)
        for source in sources:
            names = registers(source, "s")
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
        reasons = {origins.before(name, i) for name in registers(base, "s")} - {None}
        if reasons or not registers(base, "s"):
            found.append(
                f"{kernel.name} {x.address:#x} {x.name} {x.operands}: an address from {reasons}"
            )
    return found
