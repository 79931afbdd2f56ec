# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Decodes AMD code objects for the emulator: disassembly in, records for emulator/program.c out.

The syntax is LLVM's. Whatever it does not know (an operand, a modifier) is an error; whether it
knows an instruction, the emulator says when it loads the result.
"""

from __future__ import annotations

import functools
import pathlib
import re
import struct
import zlib

import amd_objects
from once import made_once

MAX_OPERANDS = 5
NONE, VECTOR, SCALAR, CONSTANT, OFF = range(5)
FIRST_ACCUMULATOR = 256
SCALAR_NAMES = {
    "vcc": (106, 2), "vcc_lo": (106, 1), "vcc_hi": (107, 1), "m0": (124, 1),
    "exec": (126, 2), "exec_lo": (126, 1), "exec_hi": (127, 1),
}  # fmt: skip
FLOATS = {"0.5", "-0.5", "1.0", "-1.0", "2.0", "-2.0", "4.0", "-4.0"}
SELECTS = {"DWORD": 0, "WORD_0": 1, "WORD_1": 2, "BYTE_0": 3, "BYTE_1": 4, "BYTE_2": 5,
           "BYTE_3": 6}  # fmt: skip
BITS = {"sc0": 1, "glc": 1, "sc1": 2, "nt": 4, "slc": 4}
PRESERVE = 8
HEADER, NAME, MAGIC = struct.Struct("<8sIIII"), struct.Struct("<48s"), b"IRISAMD1"
ALL_OUTSTANDING = 0xFFFFFFFF
# Instructions whose one operand is a number that matters to time alone, or a branch's distance.
IGNORED_OPERANDS = re.compile(r"s_(sleep|branch|cbranch_\w+)$")


class UnknownSyntax(ValueError):
    """The emulator would guess."""


def _register(text: str) -> tuple[int, int, int] | None:
    """Kind, index and number of registers, if the text names some."""
    match = re.fullmatch(r"([vsa])(?:(\d+)|\[(\d+):(\d+)\])", text)
    if match:
        letter, one, first, last = match.groups()
        index = int(one if one is not None else first)
        count = 1 if one is not None else int(last) - index + 1
        if letter == "s":
            return SCALAR, index, count
        return VECTOR, index + (FIRST_ACCUMULATOR if letter == "a" else 0), count
    if text in SCALAR_NAMES:
        return SCALAR, *SCALAR_NAMES[text]
    return None


def _constant(text: str, name: str) -> tuple[int, int]:
    """The low and high words. Inline integers are sign-extended to 64 bits, literals zero-extended
    except where the instruction's type is signed. lit() are literals that could be inline."""
    text = re.sub(r"lit\((.*)\)", r"\1", text)
    if text in FLOATS:
        if name.endswith("_f64"):
            return struct.unpack("<II", struct.pack("<d", float(text)))
        if not name.endswith(("_f32", "_b32", "_u32")):
            raise UnknownSyntax(f"{name}: the constant {text}")
        return struct.unpack("<I", struct.pack("<f", float(text)))[0], 0
    value = int(text, 0)
    if value < 0 or (text.startswith("0x") and value >> 31 and name.endswith("_i64")):
        return value & 0xFFFFFFFF, 0xFFFFFFFF
    return value, 0


def _operand(text: str, name: str) -> list[int]:
    """kind, select, registers, index, low, high"""
    if text == "off":
        return [OFF, 0, 0, 0, 0, 0]
    register = _register(text)
    if register is not None:
        kind, index, count = register
        return [kind, 0, count, index, 0, 0]
    try:
        low, high = _constant(text, name)
    except ValueError as error:
        raise UnknownSyntax(f"{name}: the operand {text!r}") from error
    return [CONSTANT, 0, 0, 0, low, high]


def _split(text: str) -> tuple[list[str], list[str]]:
    """Operands and modifiers: the operands are separated by commas outside brackets, modifiers
    follow the last one after spaces."""
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)] if text.strip() else []
    modifiers = []
    if parts:
        parts[-1], *modifiers = parts[-1].split()
        if ":" in parts[-1] and not parts[-1].endswith("]"):
            modifiers.insert(0, parts.pop())
    if len(parts) == 1 and parts[0] in BITS:
        modifiers.insert(0, parts.pop())
    return parts, modifiers


def _bit_list(text: str) -> int:
    return sum(int(bit) << i for i, bit in enumerate(text.strip("[]").split(",")))


class Record:
    """An instruction as emulator/program.c reads it, but for its place and a branch's target."""

    HEAD = struct.Struct("<III")  # address, number of the name, index of the target
    TAIL = struct.Struct("<IiiII" + "BBBxIII" * MAX_OPERANDS)

    def __init__(self, name: str, operands: str):
        self.name = re.sub(r"_(e32|e64|sdwa)$", "", name)
        self.word, self.offset, self.bits, self.operands = 0, [0, 0], 0, []
        if self.name == "s_waitcnt":
            self._wait(operands)
        elif self.name == "s_nop":
            self.word = int(operands, 0)
        elif not IGNORED_OPERANDS.match(self.name):
            if name.endswith("_dpp"):
                raise UnknownSyntax(name)
            self._parse(operands)
        rows = [*self.operands, *[[0] * 6] * (MAX_OPERANDS - len(self.operands))]
        self.packed = self.TAIL.pack(
            self.word, *self.offset, self.bits, len(self.operands),
            *[field for row in rows for field in row],
        )  # fmt: skip

    def _wait(self, text: str) -> None:
        counts = dict(re.findall(r"(\w+)\((\d+)\)", text))
        if text.strip() == "0":
            counts = {"vmcnt": "0", "lgkmcnt": "0"}
        if not counts or not set(counts) <= {"vmcnt", "lgkmcnt", "expcnt"}:
            raise UnknownSyntax(f"s_waitcnt {text}")
        self.word = int(counts.get("vmcnt", ALL_OUTSTANDING))
        self.offset[0] = int(counts.get("lgkmcnt", -1))

    def _parse(self, text: str) -> None:
        operands, modifiers = _split(text)
        self.operands = [_operand(operand, self.name) for operand in operands]
        selects = {}
        if self.name.startswith("v_pk_"):
            self.word = 0 if self.name == "v_pk_mov_b32" else 0x700
        for modifier in modifiers:
            key, _, value = modifier.partition(":")
            if key in BITS:
                self.bits |= BITS[key]
            elif key in ("offset", "offset0"):
                self.offset[0] = int(value, 0)
            elif key == "offset1":
                self.offset[1] = int(value, 0)
            elif key == "bitop3":
                self.word = int(value, 0)
            elif key in ("op_sel", "op_sel_hi") and self.name.startswith("v_fma_mix"):
                self.word |= _bit_list(value) << (8 if key == "op_sel_hi" else 0)
            elif key == "op_sel" and self.name.startswith("v_pk_"):
                self.word = self.word & ~0xFF | _bit_list(value)
            elif key == "op_sel_hi" and self.name.startswith("v_pk_"):
                self.word = self.word & 0xFF | _bit_list(value) << 8
            elif key in ("cbsz", "blgp") and self.name.endswith("_f8f6f4"):
                self.word |= int(value, 0) << (0 if key == "cbsz" else 8)
            elif key in ("dst_sel", "src0_sel", "src1_sel"):
                selects[key] = SELECTS[value]
            elif modifier == "offen":
                self.word = 1
            elif modifier == "dst_unused:UNUSED_PRESERVE":
                self.bits |= PRESERVE
            elif modifier != "dst_unused:UNUSED_PAD":
                raise UnknownSyntax(f"{self.name}: the modifier {modifier!r}")
        for place, key in enumerate(("dst_sel", "src0_sel", "src1_sel")):
            if selects.get(key):
                self.operands[place][1] = selects[key]


@functools.cache
def _record(name: str, operands: str) -> Record:
    return Record(name, operands)


def decode(path, kernels: str = ".*", edit=None) -> bytes:
    """The contents of the file that emulator/program.c reads for these kernels of the object, after
    `edit(kernel, its instructions)` has changed them."""
    image = pathlib.Path(path).read_bytes()
    code = amd_objects.instructions(path, kernels)
    rows, places = [], {}
    for symbol, instructions in code.items():
        left = instructions if edit is None else edit(symbol, instructions)
        # A branch to what has gone leads to what follows it.
        at = len(rows)
        for instruction in instructions:
            places[instruction.address] = at
            at += at - len(rows) < len(left) and left[at - len(rows)].address == instruction.address
        for instruction in left:
            try:
                rows.append((instruction, _record(instruction.name, instruction.operands)))
            except UnknownSyntax as error:
                raise UnknownSyntax(f"{symbol} at {instruction.address:#x}: {error}") from None
    names = {name: i for i, name in enumerate(sorted({record.name for _, record in rows}))}
    described = {kernel: x for kernel, x in amd_objects.metadata(path).items() if kernel in code}
    chunks = [HEADER.pack(MAGIC, len(names), len(rows), len(described), len(image))]
    chunks += [NAME.pack(name.encode()) for name in names]
    for kernel, numbers in described.items():
        arguments = [(offset, size) for offset, size, _ in numbers["args"]]
        flat = [field for pair in arguments for field in pair]
        chunks.append(
            struct.pack(
                "<64sII32I",
                kernel.encode(),
                places[code[kernel][0].address],
                len(arguments),
                *flat,
                *[0] * (32 - len(flat)),
            )
        )
    for instruction, record in rows:
        target = places[instruction.target] if instruction.target is not None else 0
        chunks += (
            Record.HEAD.pack(instruction.address, names[record.name], target),
            record.packed,
        )
    return b"".join([*chunks, image])


def prepare(path, directory, kernels: str = ".*", edit=None) -> pathlib.Path:
    """Decodes the object into the folder, once: the file's name is made of its contents. With
    `kernels`, only those, for a folder from which no others will run; with `edit`, changed."""
    image = pathlib.Path(path).read_bytes()
    target = pathlib.Path(directory) / f"{zlib.crc32(image):08x}.program"
    return made_once(target, lambda part: part.write_bytes(decode(path, kernels, edit)))


def names(path) -> set[str]:
    """The instructions in a prepared file, without the suffixes of their encodings."""
    data = pathlib.Path(path).read_bytes()
    _, count, *_ = HEADER.unpack_from(data)
    return {
        NAME.unpack_from(data, HEADER.size + i * NAME.size)[0].rstrip(b"\0").decode()
        for i in range(count)
    }
