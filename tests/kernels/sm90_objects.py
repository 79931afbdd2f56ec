# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Reads sm_90a code objects: resources, disassembly, and the rules of memory order.

The rules are about what the protocol rests on (csrc/kernels/gpu/sm90/sync_sm90.h), in the machine
code that ptxas makes of it: a release is MEMBAR.ALL.SYS before the access, an acquire is CCTL.IVALL
after it, which drops what the first-level cache holds.

release   Right before every store of a signal comes MEMBAR.ALL.SYS: a signal is a 32-bit store at
          system scope of anything but the constant zero, or a 32-bit addition to memory.
publish   Before that membar comes, on every path, a block barrier, with no ordinary store between:
          but for the three words of a record, which the same thread announces, and for reports
          of faults, which publish what their own thread wrote.
acquire   A polling loop does not invalidate; the way out of it does. So does what follows a lock's
          compare-and-swap and an addition that returns a count.
scope     What is strong is so at system scope, but for a count whose order the end of a launch
          gives.
bulk      Bulk stores of a thread are complete (DEPBAR and CCTL.IVALL; without the second it is the
          wait that lets shared memory be reused), and fenced (FENCE.VIEW.ASYNC), before its next
          MEMBAR.ALL.SYS.
"""

from __future__ import annotations

import functools
import pathlib
import re
import subprocess
import typing

from amd_build import build_kernels
from control_flow import Kernel

LINE = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;$")
# What is not in a subroutine that only computes. LDC reads constants; LDL and STL reach what is
# the thread's own.
NOT_ARITHMETIC = re.compile(
    r"LD(?![CL])|ST(?!L)|ATOM|RED|U?BLK|UTMA|BAR|MEMBAR|CCTL|FENCE|NANOSLEEP|EXIT|CALL|BRX|BPT"
)
LABEL = re.compile(r"^(\.L_x_\d+|\$\S+):")
FUNCTION = re.compile(r"^\.text\.(iris_\w+):")
# Places in global memory, and what orders accesses to them.
MEMORY = re.compile(
    r"(LD|ST)G?\.E|ATOM|RED|UBLK|UTMA(LDG|STG)|BAR\.|MEMBAR\.ALL\.SYS|CCTL\.IVALL|EXIT"
)
PLAIN_STORE = re.compile(r"STG?\.E(?!.*STRONG)")
BULK_STORE = re.compile(r"UBLKCP\.G\.S|UTMASTG")
RELEASE = "MEMBAR.ALL.SYS"
ACQUIRE = "CCTL.IVALL"
SIGNALS = ("STG.E.STRONG.SYS", "REDG.E.ADD.STRONG.SYS")
POLL = "LDG.E.STRONG.SYS"
PACKET = "LDG.E.128.STRONG.SYS"  # brings its data itself
COUNT = "ATOMG.E.ADD.STRONG.SYS"
SWAP = "ATOMG.E.CAS.STRONG.SYS"
RELAXED_COUNT = "ATOMG.E.ADD.STRONG.GPU"
RECORD = ["ST.E.64"] * 3


def tool(name: str) -> str | None:
    return build_kernels.find_cuda_tool(name)


class Instruction(typing.NamedTuple):
    address: int
    predicate: str
    name: str
    operands: str
    targets: tuple[int, ...]
    called: int | None  # the address of what a call calls; None also where that is unknown

    @property
    def falls_through(self) -> bool:
        """Calls do: `violations` has what is called touch no memory."""
        if self.predicate:
            return True
        if self.name.startswith("BRA"):
            return re.fullmatch(r"`\(\S+\)", self.operands) is None
        return not self.name.startswith(("EXIT", "RET", "BRX"))

    @property
    def returns_nothing(self) -> bool:
        return "RZ" in self.operands.split(", ")[:2]

    def is_signal(self) -> bool:
        return self.name in SIGNALS and not self.operands.endswith(" RZ")


def disassemble(path) -> dict[str, Kernel]:
    command = [tool("nvdisasm"), "-c", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines: dict[str, list] = {}
    labels, waiting, code = {}, [], None
    for line in text.splitlines():
        if match := FUNCTION.match(line):
            code = lines[match.group(1)] = []
        elif match := LABEL.match(line):
            waiting.append(match.group(1))
        elif code is not None and (match := LINE.match(line)):
            code.append(match.groups())
            labels.update(dict.fromkeys(waiting, int(match.group(1), 16)))
            waiting.clear()
    return {
        name: Kernel(name, [_instruction(*line, labels) for line in code])
        for name, code in lines.items()
    }


def _instruction(address, predicate, name, operands, labels) -> Instruction:
    targets = re.findall(r"\.L_x_\d+", operands) if name.startswith(("BR", "WARPSYNC")) else ()
    where = tuple(labels[target] for target in targets)
    subroutine = re.fullmatch(r"`\((\S+)\)", operands) if name.startswith("CALL") else None
    called = labels.get(subroutine.group(1)) if subroutine else None
    return Instruction(int(address, 16), predicate or "", name, operands, where, called)


def resources(path) -> dict[str, dict[str, int]]:
    """Per kernel: REG of a thread, STACK and LOCAL bytes of a thread, SHARED bytes of a block."""
    command = [tool("cuobjdump"), "--dump-resource-usage", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        name: {key: int(value) for key, value in re.findall(r"([\w\[\]]+):(\d+)", numbers)}
        for name, numbers in re.findall(r"Function (\w+):\s+(.*)", text)
    }


# ---- the rules ----


def _touches_memory(x: Instruction) -> bool:
    return MEMORY.match(x.name) is not None


def _names(kernel: Kernel, places: list[int]) -> set[str]:
    return {kernel.code[i].name if i >= 0 else "the entry" for i in places}


def releases(kernel: Kernel) -> list[int]:
    return [i for i, x in enumerate(kernel.code) if x.name == RELEASE]


def naps(kernel: Kernel) -> list[int]:
    return [i for i, x in enumerate(kernel.code) if x.name == "NANOSLEEP"]


def bulk_stores(kernel: Kernel) -> list[int]:
    return [i for i, x in enumerate(kernel.code) if BULK_STORE.match(x.name)]


def _unpublished(kernel: Kernel, release: int) -> list[str]:
    """The ordinary stores between the last barrier and this release, unless it is a fault's."""
    stop = lambda x: x.name.startswith("BAR.") or (x.name == SWAP and not x.returns_nothing)  # noqa: E731
    if SWAP in _names(kernel, kernel.before(release, stop)):
        return []
    seen, todo = set(), list(kernel.predecessors[release])
    while todo:
        i = todo.pop()
        if i not in seen and not stop(kernel.code[i]):
            seen.add(i)
            todo.extend(kernel.predecessors[i])
    stores = [kernel.code[i].name for i in seen if PLAIN_STORE.match(kernel.code[i].name)]
    return [] if stores == RECORD else stores


def _after_polls(kernel: Kernel) -> set[int]:
    """Invalidations that are not those of an atomic access, or of a wait for bulk stores."""
    own = lambda x: _touches_memory(x) or x.name.startswith("DEPBAR")  # noqa: E731
    return {
        i
        for i, x in enumerate(kernel.code)
        if x.name == ACQUIRE and POLL in _names(kernel, kernel.before(i, own))
    }


def _bulk_unfinished(kernel: Kernel, store: int) -> str | None:
    """What is missing on some way from this bulk store to its thread's next release."""
    seen, todo = set(), [(i, False) for i in kernel.successors[store]]
    while todo:
        i, complete = todo.pop()
        if (i, complete) in seen:
            continue
        seen.add((i, complete))
        x = kernel.code[i]
        if x.name == RELEASE:
            return "not fenced" if complete else "not complete"
        if complete and x.name.startswith("FENCE.VIEW.ASYNC"):
            continue
        if x.name.startswith("DEPBAR") and kernel.code[i + 1].name == ACQUIRE:
            complete = True
        todo.extend((j, complete) for j in kernel.successors[i])
    return None


def _calls_wrong(kernel: Kernel, i: int) -> str | None:
    """What is wrong with what this call calls."""
    start = next((j for j, x in enumerate(kernel.code) if x.address == kernel.code[i].called), None)
    if start is None:
        return "of what is not in the kernel"
    body = [kernel.code[j] for j in {start, *kernel.within(start, lambda x: False)}]
    found = sorted({x.name for x in body if NOT_ARITHMETIC.match(x.name)})
    returns = any(x.name.startswith("RET") for x in body)
    return f"of what has {found}" if found else None if returns else "of what does not return"


def violations(kernel: Kernel) -> list[str]:
    """What breaks the rules, one line each."""
    found = []

    def report(i: int, text: str) -> None:
        x = kernel.code[i]
        found.append(f"{kernel.name} {x.address:#x} {x.name} {x.operands}: {text}")

    for i, x in enumerate(kernel.code):
        if x.is_signal() or x.name == COUNT:
            before = _names(kernel, kernel.before(i, _touches_memory))
            if before != {RELEASE}:
                report(i, f"release: expected {RELEASE} before it, found {sorted(before)}")
        if x.name == COUNT or (x.name == SWAP and not x.returns_nothing):
            after = _names(kernel, kernel.after(i, _touches_memory))
            if after != {ACQUIRE}:
                report(i, f"acquire: expected {ACQUIRE} after it, found {sorted(after)}")
        if "STRONG" in x.name and "STRONG.SYS" not in x.name and x.name != RELAXED_COUNT:
            report(i, "scope: expected SYS")
    for i in releases(kernel):
        if stores := _unpublished(kernel, i):
            report(i, f"publish: {sorted(set(stores))} are not behind a barrier")
    acquires = _after_polls(kernel)
    locks = "SPINLOCK" in kernel.name  # whose swap acquires what its poll has seen
    ends = lambda x: x.name.startswith(("CCTL", "BAR.")) or (x.name == "EXIT" and not x.predicate)  # noqa: E731
    for i in naps(kernel):
        round_ = kernel.within(i, ends)
        if i not in round_:
            report(i, "acquire: every round of the polling loop invalidates")
        needless = (PACKET, SWAP) if locks else (PACKET,)
        only_packets = "COMPARE_CLOCKS" in kernel.name
        if not only_packets and not any(kernel.code[j].name in needless for j in round_):
            if not acquires & set(kernel.after(i, ends)):
                report(i, "acquire: no invalidation after the poll")
    for i, x in enumerate(kernel.code):
        if x.name.startswith("CALL") and (wrong := _calls_wrong(kernel, i)):
            report(i, f"a call {wrong}")
    for i in bulk_stores(kernel):
        if missing := _bulk_unfinished(kernel, i):
            report(i, f"bulk: {missing} before the release")
    return found


@functools.lru_cache(maxsize=1)  # half a million instructions
def read(path: pathlib.Path) -> dict[str, Kernel]:
    return disassemble(path)
