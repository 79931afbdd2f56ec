# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""Takes parts of the memory order out of a code object's machine code.

In the machine code and not in the source, because the compiler puts in waits of its own where it
happens to have a reason: the source without a wait often still has it.
"""

from __future__ import annotations

import pathlib
import struct

import amd_objects

NOP = struct.pack("<I", 0xBF800000)
SC0_SC1, SC1 = 0xC000, 0x8000  # in the first word of buffer_wbl2 and buffer_inv


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


def _drain(code):
    """All waits for stores but those for write-backs. Loads of the emulator need none."""
    kept = _waits_after_write_backs(code)
    return [x for x in code if _is_wait(x) and x.address not in kept], _erase


def _wait(code):
    dropped = _waits_after_write_backs(code)
    return [x for x in code if x.address in dropped], _erase


def _write_back(code):
    return [x for x in code if x.name == "buffer_wbl2"], _erase


def _scope(code):
    """System scope becomes agent scope; gfx90a writes back and drops L2 at system scope alone."""
    names = ("buffer_wbl2", "buffer_inv", "buffer_invl2")
    return [x for x in code if x.name in names], _weaken


def _invalidate(code):
    names = ("buffer_inv", "buffer_invl2", "buffer_wbinvl1_vol")
    return [x for x in code if x.name in names], _erase


def _matrix(code):
    return [x for x in code if x.name.startswith("v_mfma_")], _erase


def _erase(x, image, at) -> None:
    nbytes = 8 if x.name.startswith(("buffer_", "v_mfma_")) else 4
    image[at : at + nbytes] = NOP * (nbytes // 4)


def _weaken(x, image, at) -> None:
    if not x.has("sc0", "sc1"):
        _erase(x, image, at)
        return
    (word,) = struct.unpack_from("<I", image, at)
    assert word & SC0_SC1 == SC0_SC1
    struct.pack_into("<I", image, at, word & ~SC0_SC1 | SC1)


MUTANTS = {
    "drain": _drain,
    "wait for the write-back": _wait,
    "write-back": _write_back,
    "scope": _scope,
    "invalidate": _invalidate,
}
OTHERS = {"matrix": _matrix}


def _file_offset(image: bytes, address: int) -> int:
    """Where the byte at an address lies in an ELF file."""
    (first,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for i in range(count):
        kind, _, offset, start, _, nbytes = struct.unpack_from("<IIQQQQ", image, first + i * size)
        if kind == 1 and start <= address < start + nbytes:
            return offset + address - start
    raise ValueError(f"{address:#x} is in no segment")


def mutate(source, name: str, target, kernels: str = ".*") -> int:
    """Writes the object without the named part of the matching kernels; how often it was there."""
    image = bytearray(pathlib.Path(source).read_bytes())
    changes = 0
    for code in amd_objects.instructions(source, kernels).values():
        chosen, change = {**MUTANTS, **OTHERS}[name](code)
        for x in chosen:
            change(x, image, _file_offset(image, x.address))
        changes += len(chosen)
    pathlib.Path(target).write_bytes(image)
    return changes
