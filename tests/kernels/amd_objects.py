# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Reads AMD code objects: metadata, disassembly, and the rules of memory order.

The rules are about what the protocol rests on (csrc/kernels/gpu/cdna/sync_cdna.h):

release   Before a write-back of L2 (buffer_wbl2) comes, on every path, a block barrier, and before
          that every wave's drain of its stores (s_waitcnt vmcnt(0)); after it, the wait for it,
          before any store; and it publishes something. A fault's report, behind a lock, publishes
          what its own thread wrote.
acquire   A polling loop does not invalidate; the way out of it does, once.
scope     On gfx942 and gfx950 signals and polls carry sc0 sc1, the write-back and the invalidate
          too; on gfx90a polls carry glc, and the invalidate is buffer_invl2 and then
          buffer_wbinvl1_vol. A signal that is an addition carries sc1 alone, as sc0 asks for the
          old value.
packets   Both words of a packet are stored and polled with the bits of a signal and of a poll; on
          gfx90a stores have none.
"""

from __future__ import annotations

import functools
import pathlib
import re
import shutil
import subprocess
import typing
import zlib

from control_flow import Kernel

STORE = re.compile(r"^(global|flat|buffer)_(store|atomic)")
# Mnemonic, operands, address, and for a branch its target: a label and an offset.
LINE = re.compile(r"^\t(\S+)\s*(.*?)\s*// ([0-9A-F]+):[^<]*(?:<(\S+?)(?:\+0x([0-9a-f]+))?>)?")
LABEL = re.compile(r"^([0-9a-f]+) <(\S+)>:$", re.M)
LOAD = re.compile(r"^(global|flat|buffer)_load")


def tool(name: str) -> str | None:
    """An LLVM tool by its plain or its newest versioned name."""
    names = [f"{name}-{version}" for version in range(30, 21, -1)] + [name]
    return next((found for found in names if shutil.which(found)), None)


class Instruction(typing.NamedTuple):
    address: int
    name: str
    operands: str
    target: int | None  # of a branch

    def waits_for_stores(self) -> bool:
        return self.name == "s_waitcnt" and (
            "vmcnt(0)" in self.operands or self.operands.strip() == "0"
        )

    @property
    def falls_through(self) -> bool:
        return self.name not in ("s_endpgm", "s_branch")

    @property
    def targets(self) -> tuple[int, ...]:
        return () if self.target is None else (self.target,)

    def has(self, *bits: str) -> bool:
        return all(bit in self.operands.split() for bit in bits)


def instructions(path, kernels: str = ".*") -> dict[str, list[Instruction]]:
    """The code behind each symbol of the object, or of the kernels alone whose names match; to be
    read only, as it is kept."""
    return _instructions(str(path), zlib.crc32(pathlib.Path(path).read_bytes()), kernels)


# Two: an object has hundreds of thousands of instructions, and takes seconds to read.
@functools.lru_cache(maxsize=2)
def _instructions(path: str, contents: int, kernels: str) -> dict[str, list[Instruction]]:
    command = [tool("llvm-objdump"), "-d", "--no-show-raw-insn"]
    if kernels != ".*":
        names = [name for name in metadata(path) if re.fullmatch(kernels, name)]
        command.append(f"--disassemble-symbols={','.join(names)}")
    text = subprocess.run([*command, path], check=True, capture_output=True, text=True).stdout
    labels = {name: int(address, 16) for address, name in LABEL.findall(text)}
    found, code = {}, None
    for line in text.splitlines():
        if line.startswith("\t"):
            match = LINE.match(line)
            if match:
                mnemonic, operands, address, label, offset = match.groups()
                target = None
                if "branch" in mnemonic:  # where symbols are, the operand is one
                    target = labels[label or operands] + int(offset or "0", 16)
                code.append(Instruction(int(address, 16), mnemonic, operands, target))
        elif match := LABEL.match(line):
            code = found[match.group(2)] = []
    return found


def disassemble(path) -> dict[str, Kernel]:
    return {name: Kernel(name, code) for name, code in instructions(path).items()}


def metadata(path) -> dict[str, dict]:
    """Per kernel, the numbers of its metadata, and its arguments."""
    text = subprocess.run(
        [tool("llvm-readelf"), "--notes", str(path)], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for block in re.split(r"\n  - (?=\.agpr_count|\.args)", text)[1:]:
        found_numbers = re.findall(r"\.(\w+):\s+(\d+)\s*(?:\n|$)", block)
        numbers = {key: int(value) for key, value in found_numbers}
        name = re.search(r"\.symbol:\s+(\S+)\.kd", block).group(1)
        numbers["args"] = [
            (int(offset), int(size), kind)
            for offset, size, kind in re.findall(
                r"\.offset:\s+(\d+)\s+\.size:\s+(\d+)\s+\.value_kind:\s+(\w+)", block
            )
        ]
        found[name] = numbers
    return found


# ---- the rules ----


def _is_store(x: Instruction) -> bool:
    return STORE.match(x.name) is not None


def write_backs(kernel: Kernel) -> list[int]:
    return [i for i, x in enumerate(kernel.code) if x.name == "buffer_wbl2"]


def _published(kernel: Kernel, back: int) -> int | None:
    """The store that a write-back is for: a signal, or a counter of work-groups. The next one in
    the code, where a branch on the way skips it for lanes that do not signal; or, where the code
    ends, what a branch leads to that shares the store with another place."""
    for i in range(back + 1, min(back + 200, len(kernel.code))):
        if _is_store(kernel.code[i]):
            return i
    return min((i for i in kernel.after(back, _is_store) if i >= 0), default=None)


def _unwaited(kernel: Kernel, back: int) -> bool:
    """R1: whether a store may come before the write-back has been waited for."""
    first = kernel.after(back, lambda x: x.waits_for_stores() or _is_store(x))
    return any(_is_store(kernel.code[i]) for i in first)


def _undrained(kernel: Kernel, back: int) -> str | None:
    """R2: before the write-back comes a barrier, and before that the drain, with no store between.
    The leader's own stores after the barrier are covered by its wait. A path on which a lock was
    taken since is that of a fault's report, which publishes what its own thread wrote."""
    stop = lambda x: x.name == "s_barrier" or "cmpswap" in x.name  # noqa: E731
    for barrier in kernel.before(back, stop):
        if barrier < 0:
            return "no barrier before the write-back"
        if kernel.code[barrier].name != "s_barrier":
            continue
        for drain in kernel.before(barrier, lambda x: x.waits_for_stores() or _is_store(x)):
            if drain >= 0 and _is_store(kernel.code[drain]):
                return f"{kernel.code[drain].name} is not drained before the barrier"
    return None


def _invalidates(kernel: Kernel) -> list[int]:
    return [i for i, x in enumerate(kernel.code) if x.name in ("buffer_inv", "buffer_invl2")]


def polls(kernel: Kernel, gfx90a: bool) -> list[int]:
    """Loads that bypass the caches and come round to a sleep and back to themselves."""
    bits = ("glc",) if gfx90a else ("sc0", "sc1")
    found = []
    for i, x in enumerate(kernel.code):
        if not (LOAD.match(x.name) and x.name.endswith("_dword") and x.has(*bits)):
            continue
        leave = lambda x: x.name == "s_barrier" or x.name.startswith("buffer_inv")  # noqa: E731
        inner = kernel.within(i, leave)
        if i in inner and any(kernel.code[j].name == "s_sleep" for j in inner):
            found.append(i)
    return found


def packets(kernel: Kernel, gfx90a: bool) -> tuple[list[int], list[int]]:
    """Loads and stores of packets. No other load goes by a descriptor; a store is one that wait
    states follow, as the compiler does not know what it is, or has the scope of a signal."""
    loads = [i for i, x in enumerate(kernel.code) if x.name == "buffer_load_dwordx4"]
    stores = [
        i
        for i, x in enumerate(kernel.code)
        if x.name == "global_store_dwordx4" and kernel.code[i + 1].name == "s_nop"
    ]
    return loads, [] if gfx90a else stores


def packet_violations(kernel: Kernel, target: str) -> list[str]:
    """Of kernels that send packets (LL): they are stored and polled at system scope, each by one
    access of 16 bytes.

    gfx90a's stores have no scope.
    """
    gfx90a = target == "gfx90a"
    bits = ("glc",) if gfx90a else ("sc0", "sc1")
    loads, stores = packets(kernel, gfx90a)
    found = [
        f"{kernel.name} {x.address:#x} {x.name} {x.operands}: scope: a packet without "
        + " ".join(bits)
        for x in (kernel.code[i] for i in loads + stores)
        if not x.has(*bits)
    ]
    if not loads:
        found.append(f"{kernel.name}: it polls no packets")
    if not stores and not gfx90a:
        found.append(f"{kernel.name}: it stores no packets")
    return found


def violations(kernel: Kernel, target: str) -> list[str]:
    """What breaks the rules, one line each."""
    gfx90a = target == "gfx90a"
    found = []

    def report(i: int, text: str) -> None:
        x = kernel.code[i]
        found.append(f"{kernel.name} {x.address:#x} {x.name} {x.operands}: {text}")

    for back in write_backs(kernel):
        if _unwaited(kernel, back):
            report(back, "release: a store may come before the write-back is complete")
        undrained = _undrained(kernel, back)
        if undrained:
            report(back, f"release: {undrained}")
        signal = _published(kernel, back)
        if signal is None:
            report(back, "release: it publishes nothing")
        elif not gfx90a:
            x = kernel.code[signal]
            if not x.has(*(("sc1",) if "atomic" in x.name else ("sc0", "sc1"))):
                report(signal, "scope: a signal without sc0 sc1")
    for i, x in enumerate(kernel.code):
        if x.name in ("buffer_wbl2", "buffer_inv") and not gfx90a and not x.has("sc0", "sc1"):
            report(i, "scope: expected sc0 sc1")
    ends = lambda x: x.name.startswith("buffer_inv") or x.name in ("s_barrier", "s_endpgm")  # noqa: E731
    for i in polls(kernel, gfx90a):
        if not any(kernel.code[j].name.startswith("buffer_inv") for j in kernel.after(i, ends)):
            report(i, "acquire: no invalidate after the poll")
    for i, x in enumerate(kernel.code):
        if x.name == "s_sleep" and i not in kernel.within(
            i, lambda x: x.name.startswith("buffer_inv") or x.name == "s_barrier"
        ):
            report(i, "acquire: every round of the polling loop invalidates")
    for i in _invalidates(kernel) if gfx90a else ():
        after = kernel.after(i, lambda x: x.name != "s_nop")
        if any(kernel.code[j].name != "buffer_wbinvl1_vol" for j in after):
            report(i, "acquire: buffer_invl2 without buffer_wbinvl1_vol")
    return found


@functools.cache
def read(path: str):
    return metadata(path), disassemble(path)
