# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""A kernel's machine code as a graph, for rules about what comes before what."""

from __future__ import annotations

import collections
import re
import typing


class Instruction(typing.Protocol):
    @property
    def address(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction may follow."""

    @property
    def targets(self) -> typing.Sequence[int]:
        """The addresses it may jump to."""


REGISTER = re.compile(r"\b([asv])(?:(\d+)\b|\[(\d+):(\d+)\])")
Register = tuple[str, int]


def registers(text: str, kinds: str) -> list[Register]:
    """The registers that operands of AMD's instructions name, of these kinds: s, scalar; v, vector;
    a, accumulation."""
    found = []
    for kind, alone, first, last in REGISTER.findall(text):
        if kind in kinds:
            found += [(kind, i) for i in range(int(alone or first), int(alone or last) + 1)]
    return found


class Kernel:
    """One kernel's instructions and the edges between them."""

    def __init__(self, name: str, code: list):
        self.name = name
        self.code = code
        place = {instruction.address: i for i, instruction in enumerate(code)}
        self.successors = [self._after(i, place) for i in range(len(code))]
        self.predecessors = collections.defaultdict(list)
        for i, after in enumerate(self.successors):
            for j in after:
                self.predecessors[j].append(i)

    def _after(self, i: int, place: dict) -> list[int]:
        follows = [i + 1] if self.code[i].falls_through and i + 1 < len(self.code) else []
        return follows + [place[target] for target in self.code[i].targets]

    def names(self) -> collections.Counter:
        return collections.Counter(instruction.name for instruction in self.code)

    def before(self, start: int, stop) -> list[int]:
        """The first instructions for which `stop` holds on every path backwards from `start`; -1
        stands for a path that reaches the kernel's entry without one."""
        found, seen, todo = [], set(), list(self.predecessors[start])
        if start == 0:
            return [-1]
        while todo:
            i = todo.pop()
            if i in seen:
                continue
            seen.add(i)
            if stop(self.code[i]):
                found.append(i)
            elif i == 0:
                found.append(-1)
            else:
                todo.extend(self.predecessors[i])
        return found

    def after(self, start: int, stop) -> list[int]:
        """The same forwards."""
        found, seen, todo = [], set(), list(self.successors[start])
        while todo:
            i = todo.pop()
            if i in seen:
                continue
            seen.add(i)
            if stop(self.code[i]):
                found.append(i)
            else:
                todo.extend(self.successors[i])
        return found

    def within(self, start: int, leave) -> set[int]:
        """What can be reached from `start` without passing what `leave` holds for."""
        seen, todo = set(), list(self.successors[start])
        while todo:
            i = todo.pop()
            if i not in seen and not leave(self.code[i]):
                seen.add(i)
                todo.extend(self.successors[i])
        return seen


class Writers:
    """Which instructions write a kernel's registers, by ``written(instruction)``, which names those
    of one."""

    def __init__(self, kernel: Kernel, written: typing.Callable[..., typing.Iterable[Register]]):
        self.kernel = kernel
        self._of: dict[Register, set[int]] = collections.defaultdict(set)
        for instruction in kernel.code:
            for register in written(instruction):
                self._of[register].add(id(instruction))

    def before(self, register: Register, i: int) -> list[int]:
        """Whatever may have written what the register holds before the i-th instruction; -1: it
        holds what it did at the kernel's entry."""
        writers = self._of[register]
        return self.kernel.before(i, lambda x: id(x) in writers)
