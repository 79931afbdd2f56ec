# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""How many cycles an access of a wave to LDS takes, by the banks that its lanes meet.

LDS serves the lanes of an access group by group. In one cycle each bank serves one word of 4 bytes;
lanes of a group that want different words of one bank wait for each other. Which lanes are a group
AMD's tile library (composable_kernel) documents for reads of 16 bytes; those of gfx950 are pairs of
the same groups, over 64 banks, as its published measurements have it. All other accesses are taken
to go by consecutive lanes, 128 bytes at a time.

The addresses come from the machine code: the value of an access's address register is worked out
for every lane by following its definitions back to the thread's number. Scalar registers count as
zero: what they add is the same for all lanes, and moves all of them by as many banks.
"""

from __future__ import annotations

import re

from control_flow import Register, Writers, registers

WAVE = 64
THREADS = 256
_HALF = ((0, 1, 2, 3, 20, 21, 22, 23), (4, 5, 6, 7, 16, 17, 18, 19),
         (8, 9, 10, 11, 28, 29, 30, 31), (12, 13, 14, 15, 24, 25, 26, 27))  # fmt: skip
READ_16 = tuple(tuple(lane + half for lane in group) for half in (0, 32) for group in _HALF)
# On gfx950: the first and the last, and the two between.
READ_16_GFX950 = tuple(
    tuple(sorted(READ_16[half + i] + READ_16[half + j]))
    for half in (0, 4)
    for i, j in ((0, 3), (1, 2))
)
BANKS = {"gfx90a": 32, "gfx942": 32, "gfx950": 64}


def groups(arch: str, width: int, reads: bool) -> tuple[tuple[int, ...], ...]:
    """Lanes that are served together, of an access of `width` bytes a lane."""
    if reads and width == 16:
        return READ_16_GFX950 if arch == "gfx950" else READ_16
    together = min(128 // width, WAVE)
    return tuple(tuple(range(i, i + together)) for i in range(0, WAVE, together))


def cycles(arch: str, width: int, reads: bool, addresses) -> int:
    """Of one access; ``addresses`` are the 64 lanes'."""
    total = 0
    for group in groups(arch, width, reads):
        wanted: dict[int, set[int]] = {}
        for lane in group:
            for word in range(addresses[lane] // 4, (addresses[lane] + width + 3) // 4):
                wanted.setdefault(word % BANKS[arch], set()).add(word)
        total += max(len(words) for words in wanted.values())
    return total


class UnknownAddress(Exception):
    """The address depends on something else than the thread's number and constants."""


WORD, HALF = 0xFFFFFFFF, 0xFFFF
# By the name without its encoding; operands in the order of the disassembly.
ARITHMETIC = {
    "v_mov_b32": lambda a: a,
    "v_accvgpr_read_b32": lambda a: a,
    "v_accvgpr_write_b32": lambda a: a,
    "v_accvgpr_mov_b32": lambda a: a,
    "v_add_u32": lambda a, b: a + b,
    "v_sub_u32": lambda a, b: a - b,
    "v_add_u16": lambda a, b: (a + b) & HALF,
    "v_and_b32": lambda a, b: a & b,
    "v_or_b32": lambda a, b: a | b,
    "v_xor_b32": lambda a, b: a ^ b,
    "v_lshlrev_b32": lambda a, b: b << (a & 31),
    "v_lshrrev_b32": lambda a, b: b >> (a & 31),
    "v_lshlrev_b16": lambda a, b: b << (a & 15) & HALF,
    "v_lshrrev_b16": lambda a, b: (b & HALF) >> (a & 15),
    "v_mul_u32_u24": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "v_mul_lo_u16": lambda a, b: a * b & HALF,
    "v_mad_u32_u24": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c,
    "v_add3_u32": lambda a, b, c: a + b + c,
    "v_add_lshl_u32": lambda a, b, c: (a + b & WORD) << (c & 31),
    "v_lshl_add_u32": lambda a, b, c: (a << (b & 31)) + c,
    "v_lshl_or_b32": lambda a, b, c: a << (b & 31) | c,
    "v_and_or_b32": lambda a, b, c: a & b | c,
    "v_or3_b32": lambda a, b, c: a | b | c,
    "v_xad_u32": lambda a, b, c: (a ^ b) + c,
    "v_bfe_u32": lambda a, b, c: a >> (b & 31) & (1 << (c & 31)) - 1,
}


def _signed_field(a: int, b: int, c: int) -> int:
    """c bits of a from b on, the uppermost of them the sign."""
    width = c & 31
    field = a >> (b & 31) & (1 << width) - 1
    return field - (1 << width) & WORD if width and field >> (width - 1) else field


ARITHMETIC["v_bfe_i32"] = _signed_field


def _bitwise(a: int, b: int, c: int, table: int) -> int:
    """Of each three bits the table's."""
    found = 0
    for row in range(8):
        if table >> row & 1:
            found |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return found & WORD


ARITHMETIC["v_bitop3_b32"] = _bitwise
# Additions. A scalar operand of one adds the same to every lane's address, so it is taken to be 0.
SUMS = ("v_add_u32", "v_add3_u32", "v_xad_u32", "v_mov_b32")
# Operations in which a scalar operand may be unknown (not a constant). Where the address of a
# wave's own memory is computed, it is the base, and shares no bits with the rest of the address:
# joining the two is an addition, so the base is taken to be 0.
PARTS = ("v_or_b32", "v_or_b32 last", "v_lshl_add_u32 last", "v_lshl_or_b32 last")
CONSTANT = re.compile(r"s\d+, (-?\d+|0x[0-9a-f]+)$")
NO_RESULT = re.compile(r"ds_write|(global|buffer|scratch)_store|v_cmp|s_|buffer_|v_readfirstlane")


def written(instruction) -> list[Register]:
    """The vector registers of the result, the first operand."""
    if NO_RESULT.match(instruction.name):
        return []
    return registers(instruction.operands.split(", ")[0], "av")


class Addresses:
    """What the threads of a work-group have in a vector register of a kernel
    (``control_flow.Kernel``)."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.known: dict[int, list[int]] = {}  # by the place of what writes it
        self.open: set[int] = set()  # what is being worked out: a loop leads back to it
        self.writers = Writers(kernel, written)

    def before(self, register: Register, i: int) -> list[int]:
        """Each thread's value before the i-th instruction."""
        values = [
            self._result(j)
            for j in self.writers.before(register, i)
            if j >= 0 and j not in self.open
        ] or ([list(range(THREADS))] if register == ("v", 0) else [])  # fmt: skip
        if not values or any(value != values[0] for value in values):
            raise UnknownAddress(f"{self.kernel.name}: {register} before instruction {i}")
        return values[0]

    def _result(self, i: int) -> list[int]:
        if i not in self.known:
            self.open.add(i)
            try:
                self.known[i] = self._evaluate(i)
            finally:
                self.open.remove(i)
        return self.known[i]

    def _evaluate(self, i: int) -> list[int]:
        instruction = self.kernel.code[i]
        name = re.sub(r"_(e32|e64|sdwa)$", "", instruction.name)
        whole, _, parts = instruction.operands.partition(" dst_sel:")
        if name not in ARITHMETIC or (parts and not parts.startswith("DWORD ")):
            raise UnknownAddress(f"{self.kernel.name}: {instruction.name} {instruction.operands}")
        text, _, table = whole.partition(" bitop3:")
        texts = text.split(", ")[1:]
        operands = [self._operand(text, name, i) for text in texts[:-1]]
        operands.append(self._operand(texts[-1], name + " last", i))
        operands += [[int(table, 0)] * THREADS] if table else []
        for k, (kind, at) in enumerate(re.findall(r"src\d_sel:(WORD|BYTE|DWORD)_?(\d?)", parts)):
            bits = {"WORD": 16, "BYTE": 8, "DWORD": 32}[kind]
            operands[k] = [x >> bits * int(at or 0) & (1 << bits) - 1 for x in operands[k]]
        return [ARITHMETIC[name](*of_thread) & WORD for of_thread in zip(*operands, strict=True)]

    def _operand(self, text: str, name: str, i: int) -> list[int]:
        if text[0] in "va":
            return self.before(registers(text, "av")[0], i)
        if text[0] == "s":
            return [self._scalar(text, name, i)] * THREADS
        return [int(text, 0) & WORD] * THREADS

    def _scalar(self, scalar: str, name: str, i: int) -> int:
        if name.split()[0] in SUMS:
            return 0
        try:
            return self._constant(scalar, i)
        except UnknownAddress:
            if name not in PARTS:
                raise
            return 0

    def _constant(self, scalar: str, i: int) -> int:
        """What a scalar register holds before the i-th instruction, if it is a constant."""
        found = self.kernel.before(
            i, lambda x: x.name.startswith("s_")
            and registers(scalar, "s")[0] in registers(x.operands.split(", ")[0], "s")
        )  # fmt: skip
        code = [self.kernel.code[j] for j in found if j >= 0]
        values = {int(x.operands.split(", ")[1], 0) for x in code if CONSTANT.match(x.operands)
                  and x.name in ("s_mov_b32", "s_movk_i32")}  # fmt: skip
        if len(values) != 1 or any(not CONSTANT.match(x.operands) for x in code):
            raise UnknownAddress(f"{self.kernel.name}: {scalar} before instruction {i}")
        return values.pop() & WORD


ACCESS = re.compile(r"ds_(read|write)(2?)(?:st64)?_(?:b|u|i)(\d+)")


def access_cycles(arch: str, addresses: Addresses, i: int) -> int:
    """Of the i-th instruction, which accesses LDS: the slowest wave's."""
    instruction = addresses.kernel.code[i]
    kind, twice, bits = ACCESS.match(instruction.name).groups()
    reads, width = kind == "read", int(bits) // 8
    where = instruction.operands.split(", ")[1 if reads else 0].split()[0]
    base = addresses.before(registers(where, "av")[0], i)
    scale = width * (64 if "st64" in instruction.name else 1) if twice else 1
    found = re.findall(r"(offset\d?):(\d+)", instruction.operands)
    offsets = {name: int(value) * scale for name, value in found}
    names = ("offset0", "offset1") if twice else ("offset",)
    return max(
        sum(
            cycles(arch, width, reads, [x + offsets.get(name, 0) for x in base[wave : wave + WAVE]])
            for name in names
        )
        for wave in range(0, THREADS, WAVE)
    )
